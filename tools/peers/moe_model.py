"""A training step of agon's model in PyTorch, from one of agon's configurations: tokens per second.

    python3 tools/peers/moe_model.py --config configs/bench-124m.toml --device cuda --json model.json
"""
import argparse
import sys
import tomllib
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from common import Report
from moe_layer import EXPERTS, select, swiglu

VOCABULARY = 257  # bytes, and the end of a document


def rope(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Block(nn.Module):
    """Pre-norm: attention, then experts or a dense SwiGLU."""

    def __init__(self, model, moe, k, experts):
        super().__init__()
        D, self.heads = model["width"], model["heads"]
        self.norm1, self.norm2 = nn.RMSNorm(D, 1e-5), nn.RMSNorm(D, 1e-5)
        self.q, self.k, self.v, self.o = (nn.Linear(D, D, bias=False) for _ in range(4))
        self.choices, self.experts = k, experts
        if moe:
            E, H = moe["experts"], moe["expert_width"]
            self.gate = nn.Parameter(0.02 * torch.randn(E, D))
            self.gate_up = nn.Parameter(0.02 * torch.randn(E, 2 * H, D))
            self.down = nn.Parameter(0.02 * torch.randn(E, D, H))
        else:
            H = model.get("feed_forward") or (8 * D // 3 + 7) // 8 * 8
            self.gate = None
            self.up, self.dense_down = nn.Linear(D, 2 * H, bias=False), nn.Linear(H, D, bias=False)

    def forward(self, x, cos, sin):
        B, L, D = x.shape
        h = self.norm1(x)
        q, k, v = (p(h).view(B, L, self.heads, -1).transpose(1, 2) for p in (self.q, self.k, self.v))
        h = F.scaled_dot_product_attention(rope(q, cos, sin).to(v.dtype), rope(k, cos, sin).to(v.dtype), v, is_causal=True)
        x = x + self.o(h.transpose(1, 2).reshape(B, L, D))
        h = self.norm2(x)
        if self.gate is None:
            return x + self.dense_down(swiglu(self.up(h))), x.new_zeros((), dtype=torch.float32)
        rows = h.reshape(B * L, D)
        with torch.autocast(x.device.type, enabled=False):
            expert, weight, balance = select(rows, self.gate, self.choices)
        dtype = self.q.weight.dtype if not torch.is_autocast_enabled(x.device.type) else torch.bfloat16
        y = self.experts(rows.to(dtype), expert, weight, self.gate_up.to(dtype), self.down.to(dtype))
        return x + y.view(B, L, D), balance


class Decoder(nn.Module):
    def __init__(self, config, experts):
        super().__init__()
        model, moe = config["model"], config.get("moe")
        k = int(moe["router"].get("k", 2)) if moe else 0
        self.embedding = nn.Embedding(VOCABULARY, model["width"])
        nn.init.normal_(self.embedding.weight, std=0.02)
        first_dense = moe.get("first_dense", 0) if moe else 0
        self.blocks = nn.ModuleList(Block(model, None if i < first_dense else moe, k, experts) for i in range(model["layers"]))
        self.norm = nn.RMSNorm(model["width"], 1e-5)
        self.head = None if model.get("tied") else nn.Linear(model["width"], VOCABULARY, bias=False)
        d, L = model["width"] // model["heads"], model["sequence"]
        angle = torch.arange(L)[:, None] / 10000 ** (torch.arange(0, d, 2) / d)
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())

    def forward(self, token, target):
        x, balance = self.embedding(token), 0.0
        for block in self.blocks:
            x, b = block(x, self.cos, self.sin)
            balance = balance + b
        logits = F.linear(self.norm(x), self.embedding.weight if self.head is None else self.head.weight)
        return F.cross_entropy(logits.float().flatten(0, 1), target.flatten()) + 0.01 * balance / len(self.blocks)


def training_flops_per_token(config):
    """As `agon info` counts: 2 per multiply-add parameter used, attention 4 D L/2 a block, backward twice the forward."""
    m, moe = config["model"], config.get("moe")
    D, L, layers = m["width"], m["sequence"], m["layers"]
    dense = 3 * D * (m.get("feed_forward") or (8 * D // 3 + 7) // 8 * 8)
    first_dense = moe.get("first_dense", 0) if moe else layers
    sparse = 3 * D * moe["expert_width"] * float(moe["router"].get("k", 2)) + moe["experts"] * D if moe else 0
    used = layers * 4 * D * D + first_dense * dense + (layers - first_dense) * sparse + VOCABULARY * D
    return 3 * (2 * used + layers * 4 * D * L / 2)


def refuse_other(config):
    """What this program does not build is refused, not ignored."""
    m, moe = config["model"], config.get("moe", {})
    plain = {"layers", "width", "heads", "sequence", "tied", "feed_forward"}
    odd = [f"model.{k}" for k in m if k not in plain]
    odd += [f"moe.{k}" for k in moe if k not in {"experts", "expert_width", "first_dense", "router"}]
    odd += [f"moe.router.{k}" for k in moe.get("router", {}) if k not in {"strategy", "k"}]
    if moe.get("router", {}).get("strategy", "token_choice") != "token_choice":
        odd.append("moe.router.strategy")
    if odd:
        sys.exit("moe_model: the configuration sets what this program does not have: " + ", ".join(odd))


def prepare(config, batch, device, experts, compiled):
    torch.manual_seed(1)
    model = Decoder(config, EXPERTS[experts] if experts in EXPERTS else None).to(device)
    step = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, (0.9, 0.95), weight_decay=0.1, fused=True)
    L = config["model"]["sequence"]
    data = torch.randint(0, 256, (8, batch, L + 1), device=device)
    cast = partial(torch.autocast, device, torch.bfloat16, enabled=device == "cuda")

    def once(turn):
        ids = data[turn % len(data)]
        with cast():
            loss = step(ids[:, :-1], ids[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return once


def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument("--config", required=True, help="a configuration of agon with token_choice, or a dense one")
    a.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    a.add_argument("--batch", type=int, default=0, help="sequences per step; 0: train.batch")
    a.add_argument("--layers", type=int, default=0, help="blocks, for a quick try; 0: model.layers")
    a.add_argument("--variants", default="grouped_mm,grouped_mm+compile,loop",
                   help="of grouped_mm, loop, each with +compile or without")
    a.add_argument("--seconds", type=float, default=0, help="of measuring per case; 0: 0.5 on a CPU, 2 on a GPU")
    a.add_argument("--json")
    a = a.parse_args()
    if a.device == "cuda" and not torch.cuda.is_available():
        print("moe_model: PyTorch sees no GPU here", file=sys.stderr)
        return 2
    with open(a.config, "rb") as f:
        config = tomllib.load(f)
    refuse_other(config)
    if a.layers:
        config["model"]["layers"] = a.layers
    if a.device == "cuda":
        torch.set_float32_matmul_precision("high")
    batch = a.batch or config["train"]["batch"]
    tokens = batch * config["model"]["sequence"]
    report = Report(a.device, a.seconds or (2 if a.device == "cuda" else 0.5), a.json, False)
    for variant in a.variants.split(",") if "moe" in config else ["dense", "dense+compile"]:
        experts, _, how = variant.partition("+")
        report.run("train", "torch " + variant, f"{a.config}, {batch} x {config['model']['sequence']}",
                   "bfloat16" if a.device == "cuda" else "float32", training_flops_per_token(config) * tokens, tokens,
                   lambda: prepare(config, batch, a.device, experts, how == "compile"))
        torch.compiler.reset()
    return 0 if report.table() else 1


if __name__ == "__main__":
    sys.exit(main())
