#!/usr/bin/env bash
# What the documents say is there is there: linked files, paths between backticks, cited names of tests; and agon takes
# the configurations they show.
set -euo pipefail
cd "$AGON_SOURCE_DIR"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
broken=0
links=0 paths=0 cited=0 configs=0
say() {
  echo "$*"
  broken=1
}

for page in *.md docs/*.md tests/golden/*.md tools/*/*.md; do
  while IFS= read -r target; do
    links=$((links + 1))
    [ -e "$(dirname "$page")/$target" ] || say "$page: links to $target, which does not exist"
  done < <(sed '/^```/,/^```/d' "$page" | grep -oE '\]\([^)#:]+[)#]' | sed -E 's/^\]\(//; s/[)#]$//')
done

for page in docs/strategies.md docs/add-a-strategy.md; do
  while IFS= read -r path; do
    paths=$((paths + 1))
    [ -e "$path" ] || say "$page: names $path, which does not exist"
  done < <(grep -oE '`(core|autograd|ops|distributed|moe|apps|configs|tests|tools|docs)/[a-z0-9_/.-]+`' "$page" | tr -d '`')
done

# Names of tests stand between straight quotation marks and are longer than anything else that does.
while IFS= read -r name; do
  cited=$((cited + 1))
  grep -rqF --include='*.cpp' -e "$name" tests || say "docs/strategies.md: no test is called \"$name\""
done < <(sed '/^```/,/^```/d' docs/strategies.md | tr '\n' ' ' | grep -oE '"[a-z][^"`]{24,}"' | tr -d '"')

takes() {
  configs=$((configs + 1))
  { echo 'moe.experts = 4'; cat; } >"$folder/config.toml"
  "$AGON" info "$folder/config.toml" >"$folder/output" 2>&1 || say "$1: agon refuses: $(cat "$folder/output")"
}
for page in docs/strategies.md docs/add-a-strategy.md; do
  while IFS= read -r line; do
    takes "$page: $line" <<<"$line"
  done < <(grep -oE '`moe\.router = \{[^`]*\}`' "$page" | tr -d '`')
  awk -v to="$folder/block" '/^```toml/ { n++; inside = 1; next } /^```/ { inside = 0 } inside { print > (to n) }' "$page"
  for block in "$folder"/block*; do
    [ -e "$block" ] || continue
    takes "$page: a block of TOML" <"$block"
    rm "$block"
  done
done

echo "$links links, $paths paths, $cited names of tests, $configs configurations"
[ "$links" -gt 5 ] && [ "$paths" -gt 5 ] && [ "$cited" -gt 4 ] && [ "$configs" -gt 5 ] || say "the documents were not read"
exit $broken
