#!/usr/bin/env bash
# Rules of style that a program can check: no ';' in the name of a test, no file above 400 lines. What files may include
# is tests/core/includes.cpp.
set -euo pipefail
cd "$AGON_SOURCE_DIR"
broken=0
say() {
  echo "$*"
  broken=1
}

while IFS= read -r hit; do
  say "$hit: a ';' in a test's name splits it in two"
done < <(grep -rnE '^ *[A-Z_]*CASE[A-Z_]*\("[^"]*;' tests --include='*.cpp' --include='*.h')

while read -r lines file; do
  [ "$lines" -le 400 ] || [ "$file" = total ] || say "$file has $lines lines: more than 400"
done < <(find core autograd ops distributed moe apps tests \( -name '*.h' -o -name '*.cpp' -o -name '*.cu*' \) \
  -exec wc -l {} +)
exit $broken
