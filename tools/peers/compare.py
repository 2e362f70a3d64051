"""agon and PyTorch train the same model on the same CPU in alternating rounds: tokens per second of both.

    python3 tools/peers/compare.py --agon build/release/agon --config configs/bench-10m.toml
    python3 tools/peers/compare.py --agon build/release/agon --config configs/char-dense.toml --set data.train=builtin:domains
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import tomllib

import torch

from moe_model import prepare, refuse_other, variants_of
from rounds import AGON, Machine, summary, table, with_overrides


class Agon:
    def __init__(self, a):
        self.command = [a.agon, "bench", "train", "--config", a.config, "--threads", str(a.threads), "--json"]
        self.sets = [word for s in a.set for word in ("--set", s)]

    def __call__(self, seconds):
        """The case of `agon bench train`, as its JSON has it."""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "bench.json")
            done = subprocess.run([*self.command, path, "--seconds", str(seconds), *self.sets], capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"compare: agon failed: {done.stderr.strip()}")
            with open(path) as f:
                return json.load(f)["cases"][0]


def torch_round(once, seconds):
    """Seconds of a step."""
    once(0)
    start, steps = time.perf_counter(), 0
    while steps < 2 or time.perf_counter() - start < seconds:
        steps += 1
        once(steps)
    return (time.perf_counter() - start) / steps


def measure(a, agon, steps, tokens):
    """Rounds: one dictionary each, tokens per second by name, and the peak that agon's probe found in the same round."""
    machine, rounds = Machine(), []

    def undisturbed(body):
        for _ in range(3):
            machine.wait_for_quiet(a.quiet)
            machine.start()
            result = body()
            share = machine.others()
            if share <= a.quiet:
                break
        return result, share

    for i in range(a.rounds):
        print(f"round {i + 1} of {a.rounds}", file=sys.stderr, flush=True)
        case, share = undisturbed(lambda: agon(a.seconds))
        one = {"rates": {AGON: case["tokens_per_second"]}, "others": {AGON: share}, "peak": case["peak_gflops_per_second"]}
        for name, once in steps.items():
            seconds, share = undisturbed(lambda: torch_round(once, a.seconds))
            one["rates"][name], one["others"][name] = tokens / seconds, share
        rounds.append(one)
    return rounds


def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument("--agon", required=True, help="the program")
    a.add_argument("--config", required=True)
    a.add_argument("--set", action="append", default=[], help="key=value of the configuration, for both sides")
    a.add_argument("--variants", default="", help="of moe_model.py; eager and compiled unless given")
    a.add_argument("--rounds", type=int, default=5)
    a.add_argument("--seconds", type=float, default=3, help="of measuring per side and round")
    a.add_argument("--threads", type=int, default=0, help="of both; 0: one per core")
    a.add_argument("--quiet", type=float, default=0.02,
                   help="share of the processors that other processes may take; a round beside more is repeated, twice at most")
    a.add_argument("--json")
    a = a.parse_args()
    with open(a.config, "rb") as f:
        config = with_overrides(tomllib.load(f), a.set)
    refuse_other(config)
    torch.set_num_threads(a.threads or len(os.sched_getaffinity(0)))
    agon = Agon(a)
    known = agon(0.001)
    batch = config["train"]["batch"]
    tokens = batch * config["model"]["sequence"]
    steps = {}
    for name in a.variants.split(",") if a.variants else variants_of(config, "cpu"):
        steps["torch " + name] = once = prepare(config, batch, "cpu", name, int(known["vocabulary"]))
        if once.parameters != known["parameters"]:
            sys.exit(f"compare: not the same model: agon has {known['parameters']:.0f} parameters, PyTorch {once.parameters}")
        for turn in range(3):  # compilation, the first allocations
            once(turn)
    rounds = measure(a, agon, steps, tokens)
    rows = summary(rounds, known["flops"] / tokens)
    print(f"{known['shape']}; {torch.get_num_threads()} threads; PyTorch {torch.__version__}; {a.rounds} rounds")
    table(rows)
    if a.json:
        with open(a.json, "w") as f:
            json.dump({"schema": 1, "command": " ".join(sys.argv), "torch": torch.__version__,
                       "threads": torch.get_num_threads(), "agon": known, "rows": rows, "rounds": rounds}, f, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
