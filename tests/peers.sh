#!/usr/bin/env bash
# tools/peers: Python that compiles, the arithmetic of its figures, and, where there is PyTorch, one round of all of it.
set -euo pipefail
cd "$AGON_SOURCE_DIR"
if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  echo "there is no Python 3.11"
  exit 77
fi
export PYTHONDONTWRITEBYTECODE=1
python3 - <<'PYTHON'
import glob, sys
for path in glob.glob("tools/*/*.py"):
    compile(open(path).read(), path, "exec")
sys.path.insert(0, "tools/peers")
from rounds import Machine, summary, with_overrides

config = with_overrides({"train": {"batch": 8}}, ["train.batch=4", "data.train=builtin:domains", "model.tied=true"])
assert config == {"train": {"batch": 4}, "data": {"train": "builtin:domains"}, "model": {"tied": True}}, config

rounds = [{"rates": {"agon": a, "torch": t}, "others": {"agon": 0, "torch": o}, "peak": p}
          for a, t, o, p in ((300, 100, 0, 400), (320, 110, 0.01, 500), (100, 90, 0.5, 410))]
agon, torch = summary(rounds, 1e9)
assert (agon["tokens_per_second"], agon["best_tokens_per_second"], agon["agon_over_this"]) == (300, 320, 1)
assert (torch["tokens_per_second"], torch["agon_over_this"], torch["others"]) == (100, 3, 0.5)
assert abs(torch["agon_over_this_best"] - 320 / 110) < 1e-12 and abs(torch["spread"] - 0.2) < 1e-12
assert abs(agon["share_of_peak"] - 300 / 410) < 1e-12

machine = Machine()
sum(i * i for i in range(1_000_000))
assert 0 <= machine.others() < 2
PYTHON
if ! python3 -c 'import torch' 2>/dev/null; then
  echo "the rest was not tried: there is no PyTorch"
  exit 0
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 tools/peers/moe_layer.py --check
small='[model]
layers = 2
width = 16
heads = 2
sequence = 16
'
printf '%s[moe]\nexperts = 4\nexpert_width = 12\n[moe.router]\nstrategy = "token_choice"\nk = 2\n[train]\nbatch = 2\n' "$small" >"$folder/moe.toml"
printf '%sactivation = "gelu"\nnorm = "layer"\nposition = "learned"\ntied = true\n[train]\nbatch = 2\n' "$small" >"$folder/dense.toml"
compare() {
  python3 tools/peers/compare.py --agon "$AGON" --rounds 1 --seconds 0.01 --quiet 1 --set data.builtin_bytes=60000 --json "$folder/out.json" "$@"
  python3 -c 'import json, sys; assert all(r["tokens_per_second"] > 0 for r in json.load(open(sys.argv[1]))["rows"])' "$folder/out.json"
}
compare --config "$folder/moe.toml" --variants grouped_mm,sorted_loop,loop
compare --config "$folder/dense.toml" --set data.tokenizer=chars --variants dense
