"""Timing in the style of `agon bench`: warm-up, rounds, medians, a peak probe beside every case, one JSON."""
import datetime
import json
import platform
import statistics
import subprocess
import sys
import time

import torch


def stopwatch(device):
    """start() and stop() -> seconds: CUDA events on a GPU, the host's clock on a CPU."""
    if device == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

        def stop():
            end.record()
            end.synchronize()
            return begin.elapsed_time(end) / 1e3

        return begin.record, stop
    at = [0.0]

    def start():
        at[0] = time.perf_counter()

    return start, lambda: time.perf_counter() - at[0]


def seconds_of(device, times, f):
    f()
    start, stop = stopwatch(device)
    start()
    for _ in range(times):
        f()
    return stop() / times


class Probe:
    """The device's peak as PyTorch reaches it: a large product and a large copy."""

    def __init__(self, device, tiny):
        self.device = device
        self.n = 64 if tiny else 8192 if device == "cuda" else 2048
        dtype = torch.bfloat16 if device == "cuda" else torch.float32
        self.a, self.b = (torch.randn(self.n, self.n, device=device, dtype=dtype) for _ in range(2))
        self.source = torch.ones((1 << 12) if tiny else (1 << 28) if device == "cuda" else (1 << 24), device=device)
        self.target = torch.empty_like(self.source)
        self.times = 10 if device == "cuda" else 1

    def __call__(self):
        product = 2 * self.n**3 / seconds_of(self.device, self.times, lambda: self.a @ self.b)
        copy = 2 * 4 * self.source.numel() / seconds_of(self.device, self.times, lambda: self.target.copy_(self.source))
        return product, copy


def measure(body, device, seconds, probe):
    """body(turn) is one iteration. Returns what a case of the JSON has of time."""
    start, stop = stopwatch(device)
    turn = 0

    def timed(iterations):
        nonlocal turn
        start()
        for _ in range(iterations):
            body(turn)
            turn += 1
        return stop()

    timed(3)  # compilation and the first allocations
    one = timed(1)
    spent = one
    while spent < 0.3 * seconds:
        one = timed(1)
        spent += one
    rounds = 3 if 5 * one > 2 * seconds else 5
    iterations = max(1, round(seconds / rounds / one))
    times, peaks = [], []
    for _ in range(rounds):
        peaks.append(probe())
        times.append(timed(iterations) / iterations)
    median = statistics.median(times)
    return {
        "milliseconds": 1e3 * median,
        "spread": (max(times) - min(times)) / median,
        "rounds": rounds,
        "iterations": iterations,
        "peak_gflops_per_second": statistics.median(p for p, _ in peaks) / 1e9,
        "copy_gigabytes_per_second": statistics.median(c for _, c in peaks) / 1e9,
    }


def add_rates(case, flops, tokens):
    seconds = case["milliseconds"] / 1e3
    case["flops"] = flops
    case["gflops_per_second"] = flops / seconds / 1e9
    case["share_of_peak"] = case["gflops_per_second"] / case["peak_gflops_per_second"]
    case["tokens_per_second"] = tokens / seconds
    if torch.cuda.is_available():
        case["memory_at_most"] = torch.cuda.max_memory_allocated()
    return case


def clocks(device):
    if device != "cuda":
        return ""
    query = ["nvidia-smi", "--id=0", "--query-gpu=clocks.sm,clocks.mem,power.draw,temperature.gpu", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def machine(device):
    m = {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    if device == "cuda":
        p = torch.cuda.get_device_properties(0)
        m["gpu"] = {"name": p.name, "memory": p.total_memory, "processors": p.multi_processor_count, "cuda": torch.version.cuda}
    return m


class Report:
    """Runs cases, keeps going where one fails, and rewrites the file after each."""

    def __init__(self, device, seconds, path, tiny):
        self.device, self.seconds, self.path = device, seconds, path
        self.probe = Probe(device, tiny)
        self.data = {"schema": 1, "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
                     "command": " ".join(sys.argv), "device": device, "machine": machine(device), "cases": []}

    def run(self, group, name, shape, dtype, flops, tokens, prepare):
        print(f"{group} {name} {shape} ...", file=sys.stderr, flush=True)
        case = {"group": group, "case": name, "shape": shape, "dtype": dtype}
        try:
            if self.device == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            case |= measure(prepare(), self.device, self.seconds, self.probe)
            add_rates(case, flops, tokens)
            case["clocks"] = clocks(self.device)
        except Exception as e:  # a variant this version of PyTorch does not have is a row that says so
            case["error"] = f"{type(e).__name__}: {e}".splitlines()[0][:300]
        self.data["cases"].append(case)
        if self.path:
            with open(self.path, "w") as f:
                json.dump(self.data, f, indent=1)

    def table(self):
        """Prints it; returns whether anything was measured."""
        rows = self.data["cases"]
        width = max([len(c["group"] + c["case"]) for c in rows] + [4]) + 1
        shape = max([len(c["shape"]) for c in rows] + [5])
        print(f"{'case':<{width}} {'shape':<{shape}} {'dtype':<9}{'ms':>10}{'spread':>8}{'GFLOP/s':>11}{'of peak':>9}{'tokens/s':>11}")
        for c in rows:
            head = f"{c['group'] + ' ' + c['case']:<{width}} {c['shape']:<{shape}} {c['dtype']:<9}"
            if "error" in c:
                print(head + "  failed: " + c["error"])
            else:
                print(head + f"{c['milliseconds']:>10.3f}{c['spread']:>8.1%}{c['gflops_per_second']:>11.1f}"
                      f"{c['share_of_peak']:>9.1%}{c['tokens_per_second']:>11.0f}")
        return any("error" not in c for c in rows)
