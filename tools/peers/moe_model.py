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
from moe_layer import EXPERTS, STACKED, select, swiglu

BYTES = 257  # and the end of a document


def rope(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def feed_forward_width(model):
    wanted = 4 * model["width"] if model.get("activation") == "gelu" else 8 * model["width"] // 3
    return model.get("feed_forward") or (wanted + 7) // 8 * 8


def norm(model):
    if model.get("norm") == "layer":
        return nn.LayerNorm(model["width"], bias=model.get("bias", False))
    return nn.RMSNorm(model["width"], 1e-5)


class Experts(nn.Module):
    """Token choice over experts whose weights lie as the variant wants them: stacked, or one matrix each."""

    def __init__(self, width, moe, experts):
        super().__init__()
        E, H = moe["experts"], moe["expert_width"]
        self.choices, self.experts = int(moe["router"].get("k", 2)), EXPERTS[experts]
        self.gate = nn.Parameter(0.02 * torch.randn(E, width))
        shapes = (2 * H, width), (width, H)
        if experts in STACKED:
            self.gate_up, self.down = (nn.Parameter(0.02 * torch.randn(E, *s)) for s in shapes)
        else:
            self.gate_up, self.down = (nn.ParameterList(0.02 * torch.randn(s) for _ in range(E)) for s in shapes)

    def forward(self, x):
        rows = x.flatten(0, 1)
        with torch.autocast(x.device.type, enabled=False):
            expert, weight, balance = select(rows, self.gate, self.choices)
        dtype = torch.bfloat16 if torch.is_autocast_enabled(x.device.type) else torch.float32
        cast = [[w.to(dtype) for w in p] if isinstance(p, nn.ParameterList) else p.to(dtype) for p in (self.gate_up, self.down)]
        return self.experts(rows.to(dtype), expert, weight, *cast).view_as(x), balance


class FeedForward(nn.Module):
    def __init__(self, model):
        super().__init__()
        D, H, bias = model["width"], feed_forward_width(model), model.get("bias", False)
        self.activation = F.gelu if model.get("activation") == "gelu" else swiglu
        self.up = nn.Linear(D, H if self.activation is F.gelu else 2 * H, bias=bias)
        self.down = nn.Linear(H, D, bias=bias)

    def forward(self, x):
        return self.down(self.activation(self.up(x))), x.new_zeros((), dtype=torch.float32)


class Block(nn.Module):
    """Pre-norm: attention, then experts or a dense feed-forward. Queries, keys and values are one product."""

    def __init__(self, model, moe, experts):
        super().__init__()
        D, self.heads, bias = model["width"], model["heads"], model.get("bias", False)
        self.norm1, self.norm2 = norm(model), norm(model)
        self.qkv, self.out = nn.Linear(D, 3 * D, bias=bias), nn.Linear(D, D, bias=bias)
        self.feed_forward = Experts(D, moe, experts) if moe else FeedForward(model)

    def forward(self, x, rotation):
        B, L, D = x.shape
        q, k, v = (p.view(B, L, self.heads, -1).transpose(1, 2) for p in self.qkv(self.norm1(x)).split(D, -1))
        if rotation is not None:
            q, k = (rope(p, *rotation).to(v.dtype) for p in (q, k))
        h = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(h.transpose(1, 2).reshape(B, L, D))
        y, balance = self.feed_forward(self.norm2(x))
        return x + y, balance


class Decoder(nn.Module):
    """With gelu, layer norm, learned positions and a tied head this is nanoGPT's model."""

    def __init__(self, config, experts, vocabulary):
        super().__init__()
        model, moe = config["model"], config.get("moe")
        D, L = model["width"], model["sequence"]
        self.embedding = nn.Embedding(vocabulary, D)
        nn.init.normal_(self.embedding.weight, std=0.02)
        first_dense = moe.get("first_dense", 0) if moe else 0
        self.blocks = nn.ModuleList(Block(model, None if i < first_dense else moe, experts) for i in range(model["layers"]))
        self.norm = norm(model)
        self.head = None if model.get("tied") else nn.Linear(D, vocabulary, bias=False)
        self.position = None
        if model.get("position") == "learned":
            self.position = nn.Parameter(0.02 * torch.randn(L, D))
            return
        d = D // model["heads"]
        angle = torch.arange(L)[:, None] / 10000 ** (torch.arange(0, d, 2) / d)
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())

    def forward(self, token, target):
        x, balance = self.embedding(token), 0.0
        rotation = None
        if self.position is None:
            rotation = self.cos, self.sin
        else:
            x = x + self.position
        for block in self.blocks:
            x, b = block(x, rotation)
            balance = balance + b
        logits = F.linear(self.norm(x), self.embedding.weight if self.head is None else self.head.weight)
        return F.cross_entropy(logits.float().flatten(0, 1), target.flatten()) + 0.01 * balance / len(self.blocks)


def training_flops_per_token(config, vocabulary=BYTES):
    """As `agon info` counts: 2 per multiply-add parameter used, attention 4 D L/2 a block, backward twice the forward."""
    m, moe = config["model"], config.get("moe")
    D, L, layers = m["width"], m["sequence"], m["layers"]
    dense = (2 if m.get("activation") == "gelu" else 3) * D * feed_forward_width(m)
    first_dense = moe.get("first_dense", 0) if moe else layers
    sparse = 3 * D * moe["expert_width"] * float(moe["router"].get("k", 2)) + moe["experts"] * D if moe else 0
    used = layers * 4 * D * D + first_dense * dense + (layers - first_dense) * sparse + vocabulary * D
    return 3 * (2 * used + layers * 4 * D * L / 2)


BUILT = {  # what this program builds of each key that it does not read as a number; True: anything
    "model": {"layers": True, "width": True, "heads": True, "sequence": True, "feed_forward": True, "tied": True, "bias": True,
              "activation": ("swiglu", "gelu"), "norm": ("rms", "layer"), "position": ("rope", "learned"), "dropout": (0,)},
    "moe": {"experts": True, "expert_width": True, "first_dense": True, "router": True},
    "moe.router": {"strategy": ("token_choice",), "k": True},
}


def refuse_other(config):
    """What this program does not build is refused, not ignored."""
    odd = []
    for section, built in BUILT.items():
        found = config
        for name in section.split("."):
            found = found.get(name, {})
        odd += [f"{section}.{k}" for k, v in found.items() if built.get(k) is not True and v not in built.get(k, ())]
    if odd:
        sys.exit("moe_model: the configuration sets what this program does not have: " + ", ".join(odd))


def optimizer_of(model, config):
    """Matrices decay and vectors do not, as in agon and in nanoGPT."""
    o = config.get("optimizer", {})
    groups = [{"params": [p for p in model.parameters() if (p.dim() > 1) == decays], "weight_decay": decay}
              for decays, decay in ((True, o.get("weight_decay", 0.1)), (False, 0.0))]
    return torch.optim.AdamW(groups, 1e-3, (o.get("beta1", 0.9), o.get("beta2", 0.95)), fused=True)


def prepare(config, batch, device, variant, vocabulary=BYTES):
    """variant: one of EXPERTS or "dense", with "+compile" or without. Returns a step: once(turn)."""
    experts, _, how = variant.partition("+")
    torch.manual_seed(1)
    model = Decoder(config, experts, vocabulary).to(device)
    step = torch.compile(model) if how == "compile" else model
    optimizer = optimizer_of(model, config)
    clip = config.get("optimizer", {}).get("clip", 1.0)
    L = config["model"]["sequence"]
    data = torch.randint(0, vocabulary, (8, batch, L + 1), device=device)
    cast = partial(torch.autocast, device, torch.bfloat16, enabled=device == "cuda")

    def once(turn):
        ids = data[turn % len(data)]
        with cast():
            loss = step(ids[:, :-1], ids[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    once.parameters = sum(p.numel() for p in model.parameters())
    return once


def variants_of(config, device):
    """Those worth a time where nobody asks for others."""
    if "moe" not in config:
        return ["dense", "dense+compile"]
    fast = ["grouped_mm", "grouped_mm+compile"]
    return fast + (["loop"] if device == "cuda" else ["sorted_loop", "sorted_loop+compile"])


def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument("--config", required=True, help="a configuration of agon with token_choice, or a dense one")
    a.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    a.add_argument("--batch", type=int, default=0, help="sequences per step; 0: train.batch")
    a.add_argument("--layers", type=int, default=0, help="blocks, for a quick try; 0: model.layers")
    a.add_argument("--vocabulary", type=int, default=BYTES, help=f"{BYTES} unless given: bytes")
    a.add_argument("--threads", type=int, default=0, help="of the CPU; 0: one per core")
    a.add_argument("--variants", default="",
                   help=f"of {', '.join(EXPERTS)}, or dense, each with +compile or without; some of them unless given")
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
    if a.threads:
        torch.set_num_threads(a.threads)
    if a.device == "cuda":
        torch.set_float32_matmul_precision("high")
    batch = a.batch or config["train"]["batch"]
    tokens = batch * config["model"]["sequence"]
    report = Report(a.device, a.seconds or (2 if a.device == "cuda" else 0.5), a.json, False)
    for variant in a.variants.split(",") if a.variants else variants_of(config, a.device):
        report.run("train", "torch " + variant, f"{a.config}, {batch} x {config['model']['sequence']}",
                   "bfloat16" if a.device == "cuda" else "float32",
                   training_flops_per_token(config, a.vocabulary) * tokens, tokens,
                   lambda: prepare(config, batch, a.device, variant, a.vocabulary))
        torch.compiler.reset()
    return 0 if report.table() else 1


if __name__ == "__main__":
    sys.exit(main())
