"""What compare.py needs that is not PyTorch: overrides of a configuration, a quiet machine, figures over rounds."""
import os
import statistics
import time
import tomllib

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

    def wait_for_quiet(self, most, patience=10):
        for _ in range(int(patience / 0.5)):
            self.start()
            time.sleep(0.5)
            if self.others() <= most:
                return


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
