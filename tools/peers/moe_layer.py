"""One MoE layer in PyTorch, select to combine, forward and backward, in the shapes of `agon bench layer`.

    python3 tools/peers/moe_layer.py --device cuda --json layer.json
"""
import argparse
import math
import sys

import torch
import torch.nn.functional as F

from common import Report

SHAPES = {  # T, D, F, E, k
    "S1": (4096, 256, 512, 8, 2), "S2": (2048, 512, 1024, 8, 2), "S3": (2048, 768, 3072, 8, 2),
    "S4": (2048, 768, 384, 64, 8), "S5": (1024, 1024, 512, 64, 8),
    "P1": (24576, 1536, 256, 128, 8), "P2": (24576, 1536, 512, 64, 4), "P3": (24576, 1536, 1024, 32, 2),
    "P4": (40960, 768, 256, 128, 8), "P5": (32768, 4096, 512, 128, 8), "P6": (32768, 4096, 1024, 64, 4),
    "tiny": (24, 32, 16, 4, 2),
}


def grouped_mm(rows, weight, offsets):
    """rows [N, I] sorted by expert, weight [E, O, I], offsets [E] ends -> [N, O]."""
    if hasattr(F, "grouped_mm"):
        return F.grouped_mm(rows, weight.transpose(1, 2), offs=offsets)
    return torch._grouped_mm(rows, weight.transpose(1, 2), offs=offsets)  # PyTorch 2.8 to 2.9


def select(x, gate, k):
    """Softmax over all experts in f32, the best k, renormalised; and the balance loss (Switch)."""
    p = torch.softmax(x.float() @ gate.t(), -1)
    weight, expert = p.topk(k, -1)
    share = torch.zeros_like(p[0]).scatter_add(0, expert.flatten(), torch.ones_like(weight).flatten()) / expert.numel()
    return expert, weight / weight.sum(-1, keepdim=True), p.shape[1] * (share * p.mean(0)).sum()


def swiglu(x):
    gate, up = x.chunk(2, -1)
    return F.silu(gate) * up


def by_expert(expert, experts):
    """expert [T, k] -> the pairs sorted by expert: their order [T k] among all, and how many each expert has, [E] i32."""
    flat = expert.flatten()
    counts = torch.zeros(experts, dtype=torch.int32, device=expert.device)
    return flat.argsort(stable=True), counts.scatter_add(0, flat, torch.ones_like(flat, dtype=torch.int32))


def weighed(x, y, weight, order):
    """y [T k, D], sorted by expert, times the pairs' weights, added per token."""
    y = y * weight.flatten()[order, None].to(y.dtype)
    return torch.zeros_like(x).index_add(0, order // weight.shape[1], y)


def experts_grouped(x, expert, weight, gate_up, down):
    """Sort by expert, two grouped products, weigh, add per token. gate_up [E, 2F, D], down [E, D, F]."""
    order, counts = by_expert(expert, len(gate_up))
    offsets = counts.cumsum(0, dtype=torch.int32)
    y = grouped_mm(swiglu(grouped_mm(x.index_select(0, order // expert.shape[1]), gate_up, offsets)), down, offsets)
    return weighed(x, y, weight, order)


def experts_sorted(x, expert, weight, gate_up, down):
    """Sort by expert, then one expert after the other: two products each, on adjacent rows."""
    order, counts = by_expert(expert, len(gate_up))
    rows = x.index_select(0, order // expert.shape[1]).split(counts.tolist())
    y = [F.linear(swiglu(F.linear(r, up)), out) for r, up, out in zip(rows, gate_up, down)]
    return weighed(x, torch.cat(y), weight, order)


def experts_loop(x, expert, weight, gate_up, down):
    """One expert after the other, each looking for its tokens: what Mixtral's code in transformers did for long."""
    y = torch.zeros_like(x)
    for e in range(len(gate_up)):
        token, choice = (expert == e).nonzero(as_tuple=True)
        h = F.linear(swiglu(F.linear(x[token], gate_up[e])), down[e])
        y = y.index_add(0, token, h * weight[token, choice, None].to(h.dtype))
    return y


EXPERTS = {"grouped_mm": experts_grouped, "sorted_loop": experts_sorted, "loop": experts_loop}
STACKED = {"grouped_mm"}  # take all experts' weights as one tensor; the loops have one for each expert


def layer(x, gate, gate_up, down, k, experts):
    expert, weight, balance = select(x, gate, k)
    return experts(x, expert, weight, gate_up, down), balance


def tokens_for(T, D, gate, k, balanced, device):
    """As apps/bench_layer.cpp: a common direction, which makes loads uneven, or tokens made for k experts each."""
    x = torch.randn(T, D, device=device)
    if not balanced:
        return x + 0.4 * torch.randn(D, device=device)
    chosen = (torch.arange(T, device=device)[:, None] * k + torch.arange(k, device=device)) % gate.shape[0]
    return x + 8 * gate[chosen].sum(1)


def parameters_of(weights, experts):
    """weights [E, O, I] as the variant wants them: one leaf, or one for each expert."""
    if experts in STACKED:
        return weights.requires_grad_()
    return [w.clone().requires_grad_() for w in weights]


def prepare(shape, dtype, device, experts, compiled, balanced):
    T, D, H, E, k = shape
    torch.manual_seed(1)
    gate = (torch.randn(E, D, device=device) / math.sqrt(D)).requires_grad_()
    gate_up = parameters_of((torch.randn(E, 2 * H, D, device=device) / math.sqrt(D)).to(dtype), experts)
    down = parameters_of((torch.randn(E, D, H, device=device) / math.sqrt(H)).to(dtype), experts)
    with torch.no_grad():
        sets = max(1, min(16, (128 << 20) // (4 * T * D)))
        xs = [tokens_for(T, D, gate, k, balanced, device).to(dtype).requires_grad_() for _ in range(sets)]
    dy = torch.randn(T, D, device=device).to(dtype)
    f = torch.compile(layer) if compiled else layer
    leaves = [gate, *gate_up, *down] if isinstance(gate_up, list) else [gate, gate_up, down]

    def once(turn):
        x = xs[turn % sets]
        for p in [*leaves, x]:
            p.grad = None
        y, balance = f(x, gate, gate_up, down, k, EXPERTS[experts])
        torch.autograd.backward([y, balance], [dy, torch.full_like(balance, 0.01)])

    return once


def check(device):
    """Whether the variants compute the same, forward and backward: the largest relative difference in norm."""
    T, D, H, E, k = SHAPES["tiny"]
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    torch.manual_seed(2)
    leaves = [torch.randn(s, device=device) / 4 for s in [(T, D), (E, D), (E, 2 * H, D), (E, D, H)]]
    results = []
    for experts in EXPERTS.values():
        x, gate, gate_up, down = (t.clone().to(t.dtype if i == 1 else dtype).requires_grad_() for i, t in enumerate(leaves))
        y, balance = layer(x, gate, gate_up, down, k, experts)
        (y.float().square().sum() + balance).backward()
        results.append([y.detach(), x.grad, gate.grad, gate_up.grad, down.grad])
    return max(((a - b).float().norm() / b.float().norm()).item() for one in results[1:] for a, b in zip(one, results[0]))


def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    a.add_argument("--shapes", default="", help="comma-separated; S1 to S5 unless given, on a GPU P1 to P6 too")
    a.add_argument("--variants", default="grouped_mm,grouped_mm+compile,loop",
                   help=f"of {', '.join(EXPERTS)}, each with +compile or without")
    a.add_argument("--seconds", type=float, default=0, help="of measuring per case; 0: 0.5 on a CPU, 1 on a GPU")
    a.add_argument("--balanced", action="store_true", help="also with balanced routing")
    a.add_argument("--check", action="store_true", help="only compare the variants with each other")
    a.add_argument("--json")
    a = a.parse_args()
    if a.device == "cuda" and not torch.cuda.is_available():
        print("moe_layer: PyTorch sees no GPU here", file=sys.stderr)
        return 2
    if a.check:
        worst, allowed = check(a.device), 2e-2 if a.device == "cuda" else 1e-5
        print(f"variants differ by {worst:.1e} in norm, allowed {allowed:.0e}")
        return 0 if worst <= allowed else 1
    names = a.shapes.split(",") if a.shapes else [n for n in SHAPES if n[0] == "S" or (n[0] == "P" and a.device == "cuda")]
    dtype = torch.bfloat16 if a.device == "cuda" else torch.float32
    report = Report(a.device, a.seconds or (1 if a.device == "cuda" else 0.5), a.json, names == ["tiny"])
    for name in names:
        T, D, H, E, k = shape = SHAPES[name]
        flops = 18 * T * k * D * H + 6 * T * D * E
        for variant in a.variants.split(","):
            experts, _, how = variant.partition("+")
            for balanced in [False, True] if a.balanced else [False]:
                report.run("layer", "torch " + variant + (", balanced" if balanced else ""), f"{name} {shape}",
                           str(dtype).removeprefix("torch."), flops, T,
                           lambda: prepare(shape, dtype, a.device, experts, how == "compile", balanced))
        torch.compiler.reset()
    return 0 if report.table() else 1


if __name__ == "__main__":
    sys.exit(main())
