"""agon and PyTorch train the same model on the same CPU in alternating rounds: tokens per second of both.

    python3 tools/peers/compare.py --agon build/release/agon --config configs/bench-10m.toml
    python3 tools/peers/compare.py --agon build/release/agon --config configs/char-dense.toml --set data.train=builtin:domains
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib

import torch

from moe_model import prepare, refuse_other, variants_of

AGON = "agon"


def with_overrides(config, overrides):
    """key=value as agon takes it: the value is TOML, or where it is not, a string."""
    for text in overrides:
        path, _, value = text.partition("=")
        *sections, name = path.split(".")
        at = config
        for section in sections:
            at = at.setdefault(section, {})
        try:
            at[name] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            at[name] = value
    return config


class Machine:
    """What other processes take of the processors, from /proc/stat. A round beside them says little of either side."""

    def __init__(self):
        self.tick, self.cores = os.sysconf("SC_CLK_TCK"), os.cpu_count()
        self.start()

    def read(self):
        with open("/proc/stat") as f:
            user, nice, system, _, _, irq, softirq, steal = map(int, f.readline().split()[1:9])
        return time.perf_counter(), (user + nice + system + irq + softirq + steal) / self.tick, sum(os.times()[:4])

    def start(self):
        self.at = self.read()

    def others(self):
        """Their share of all processors since start()."""
        elapsed, busy, ours = (now - then for now, then in zip(self.read(), self.at))
        return max(0.0, busy - ours) / (elapsed * self.cores)

    def wait_for_quiet(self, most, patience=60):
        for _ in range(int(patience / 0.5)):
            self.start()
            time.sleep(0.5)
            if self.others() <= most:
                return


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


def summary(rounds, flops_per_token):
    """Rows: name, median and best tokens per second, spread, share of agon's peak probe, agon's median and best over these."""
    rates = {name: [r["rates"][name] for r in rounds] for name in rounds[0]["rates"]}
    peak = statistics.median(r["peak"] for r in rounds)
    median, best = ({name: f(values) for name, values in rates.items()} for f in (statistics.median, max))
    return [{
        "name": name,
        "tokens_per_second": median[name],
        "best_tokens_per_second": best[name],
        "spread": (max(values) - min(values)) / median[name],
        "share_of_peak": median[name] * flops_per_token / 1e9 / peak,
        "agon_over_this": median[AGON] / median[name],
        "agon_over_this_best": best[AGON] / best[name],
        "others": max(r["others"][name] for r in rounds),
    } for name, values in rates.items()]


def table(rows):
    print(f"{'':<28}{'tokens/s':>10}{'spread':>8}{'best':>10}{'of peak':>9}{'agon over it':>14}{'best':>8}{'others':>8}")
    for r in rows:
        print(f"{r['name']:<28}{r['tokens_per_second']:>10.0f}{r['spread']:>8.1%}{r['best_tokens_per_second']:>10.0f}"
              f"{r['share_of_peak']:>9.1%}{r['agon_over_this']:>13.2f}x{r['agon_over_this_best']:>7.2f}x{r['others']:>8.1%}")
    peers = [r for r in rows if r["name"] != AGON]
    for what, rate, ratio in (("medians", "tokens_per_second", "agon_over_this"),
                              ("best rounds", "best_tokens_per_second", "agon_over_this_best")):
        fastest = max(peers, key=lambda r: r[rate])
        print(f"by {what}: agon {fastest[ratio]:.2f} x the fastest of PyTorch ({fastest['name']})")


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
