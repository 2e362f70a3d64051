#!/usr/bin/env python3
"""Writes or checks the golden routing layers: fixtures.py FOLDER [--check] [--only TEXT]. The cases are in cases.py,
the mathematics in routing.py; README.md describes the files.

Every case is checked as it is made: decisions at least MARGIN apart, autograd against central differences (the task and
each loss alone, everything that carries no gradient held fixed) and against the written-out gradients of section 7."""
import argparse
import math
import pathlib
import sys
import tomllib
import zlib

import numpy
import torch

import safetensors
from cases import CASES
from routing import Held, forward, options
from written import gradients

MARGIN = 1e-3
NOT_TRAINED = ("router.bias", "router.threshold", "dy", "sequence_lengths")


def toml(table, name=""):
    """A table as TOML text, its own keys first."""
    written = {str: lambda value: f'"{value}"', bool: lambda value: str(value).lower()}
    lines = [f"{key} = {written.get(type(value), repr)(value)}" for key, value in table.items()
             if type(value) is not dict]
    text = (f"\n[{name}]\n" if name else "") + "".join(line + "\n" for line in lines)
    return text + "".join(toml(value, f"{name}.{key}" if name else key) for key, value in table.items()
                          if type(value) is dict)


def draw(case, layer, attempt):
    """The inputs: uniform numbers from PCG64's raw stream, which numpy promises never to change."""
    bits = numpy.random.PCG64([zlib.crc32(case.name.encode()), attempt])

    def uniform(*shape, spread):
        """Mean 0, standard deviation `spread`."""
        unit = (bits.random_raw(math.prod(shape)) >> numpy.uint64(11)).astype(numpy.float64) / 2.0**53
        return torch.from_numpy((unit * 2 - 1).reshape(shape) * (spread * 3**0.5))

    moe, router = layer["moe"], layer["moe"]["router"]
    T, D, E, F = sum(case.lengths), layer["width"], moe["experts"], moe["expert_width"]
    swiglu = moe.get("activation", "swiglu") == "swiglu"
    up, H, Fs = "gate_up" if swiglu else "up", 2 * F if swiglu else F, F * moe.get("shared_experts", 0)
    t = {"x": uniform(T, D, spread=1), "router.weight": uniform(E, D, spread=1.5 / D**0.5)}
    if "bias_rate" in router:
        t["router.bias"] = uniform(E, spread=0.15)
    t[f"experts.{up}"] = uniform(E, H, D, spread=1.5 / D**0.5)
    t["experts.down"] = uniform(E, D, F, spread=2 / F**0.5)
    if moe.get("bias"):
        t["experts.up_bias"], t["experts.down_bias"] = uniform(E, H, spread=0.5), uniform(E, D, spread=0.5)
    if Fs:
        t[f"shared.{up}"] = uniform(Fs * H // F, D, spread=1.5 / D**0.5)
        t["shared.down"] = uniform(D, Fs, spread=2 / Fs**0.5)
    if moe.get("shared_gate"):
        t["shared_gate"] = uniform(1, D, spread=1 / D**0.5)
    t["dy"] = uniform(T, D, spread=1)
    t["sequence_lengths"] = torch.tensor(case.lengths, dtype=torch.int32)
    if layer["mode"] == "eval" and options(router)["selection"] != "per_token":
        t["router.threshold"] = thresholds(layer, t)
    return t


def thresholds(layer, t):
    """In the middle between the last score within the budget and the next one."""
    r = options(layer["moe"]["router"])
    t = {**t, "router.threshold": torch.zeros(1, dtype=torch.float64)}
    S = forward(layer, t, Held())["scores"].detach()
    columns = S.T if r["selection"] == "per_expert" else S.reshape(1, -1)
    last = int(r["k"] * S.numel() / S.shape[1] / len(columns)) - 1
    ordered = columns.sort(1, descending=True).values
    return (ordered[:, last] + ordered[:, last + 1]) / 2


def without(layer, key):
    """The layer as if `key` of [moe.router] had not been given."""
    router = {name: value for name, value in layer["moe"]["router"].items() if name != key}
    return {**layer, "moe": {**layer["moe"], "router": router}}


def matters(case, layer, t, out):
    """Whether each option that the case is about changes the selection, and whatever else the case wants."""
    for key in case.matter:
        if key == "bias_rate":
            other = forward(layer, {name: value for name, value in t.items() if name != "router.bias"}, Held())
        else:
            other = forward(without(layer, key), t, Held())
        if torch.equal(other["selected"], out["selected"]):
            return False
    return case.want is None or case.want(out["selected"].sum(1), out["selected"].sum(0), out)


def differentiate(layer, t):
    """Forward, and the gradients of the task, of each loss and of their sum, by input."""
    t = {name: value if name in NOT_TRAINED else value.clone().requires_grad_() for name, value in t.items()}
    inputs = {name: value for name, value in t.items() if value.requires_grad}
    held = Held()
    out = forward(layer, t, held)
    parts = {"task": (1, out["task"]), **out["losses"]}

    def gradient(part, targets):
        found = torch.autograd.grad(part, targets, retain_graph=True, allow_unused=True) if part.requires_grad else \
            [None] * len(targets)
        return [torch.zeros_like(target) if g is None else g for g, target in zip(found, targets)]

    by_part = {name: dict(zip(inputs, gradient(part, list(inputs.values())))) for name, (_, part) in parts.items()}
    total = {name: sum(c * by_part[part][name] for part, (c, _) in parts.items()) for name in inputs}
    dz, do = (sum(c * gradient(part, [at])[0] for c, part in parts.values()) for at in (out["z"], out["o"]))
    return out, held, by_part, total, dz, do


def check_differences(case, layer, t, held, by_part):
    """Each part's derivative along a random direction, against a central difference with everything held fixed."""
    random = numpy.random.Generator(numpy.random.PCG64(1))
    step = 1e-5
    direction = {name: torch.from_numpy(random.choice([-1.0, 1.0], tuple(t[name].shape))) for name in by_part["task"]}
    values = []
    for sign in (1, -1):
        held.replay()
        out = forward(layer, {n: v + sign * step * direction[n] if n in direction else v for n, v in t.items()}, held)
        values.append({"task": out["task"], **{name: loss for name, (_, loss) in out["losses"].items()}})
    for part, found in by_part.items():
        expected = ((values[0][part] - values[1][part]) / (2 * step)).item()
        slope = sum((found[name] * direction[name]).sum().item() for name in direction)
        size = max(abs(expected), math.sqrt(sum(g.square().sum().item() for g in found.values())))
        rounding = 1e-15 / step * max(1, abs(values[0][part].item()))
        if not abs(slope - expected) <= 1e-6 * size + rounding:
            raise AssertionError(f"{case.name}: d({part}) is {slope}, by central differences {expected}")


def check_written(case, layer, t, out, dz, do):
    for name, found, expected in zip(("z", "o"), gradients(layer, out, t["dy"], case.lengths), (dz, do)):
        error, size = (found - expected).abs().max(), expected.abs().max()
        if not error <= 1e-10 * size + 1e-14:
            raise AssertionError(f"{case.name}: the written-out dL/d{name} is off by {error:.1e} of {size:.1e}")


def check_zeros(case, layer, by_part):
    """The paths of a competition step along which nothing may flow: bitwise 0."""
    if layer["mode"] == "compete":
        zero = [by_part["task"]["router.weight"]]
        zero += [by_part[part][name] for part in ("router", "z", "entropy") if part in by_part
                 for name in by_part[part] if name.startswith("experts.")]
        assert not any(gradient.any() for gradient in zero), case.name


def make(case):
    """(tensors, metadata) of one case."""
    text = toml({"width": case.width, "dtype": "f64", "mode": case.mode, "moe": {**case.moe, "router": case.router}})
    layer = tomllib.loads(text)
    for attempt in range(5000):
        t, held = draw(case, layer, attempt), Held()
        with torch.no_grad():
            out = forward(layer, t, held)
        if held.margin >= MARGIN and matters(case, layer, t, out):
            break
    else:
        raise AssertionError(f"{case.name}: no inputs found with decisions {MARGIN} apart and options that matter")

    out, held, by_part, total, dz, do = differentiate(layer, t)
    assert held.margin >= MARGIN, case.name
    check_differences(case, layer, t, held, by_part)
    check_written(case, layer, t, out, dz, do)
    check_zeros(case, layer, by_part)

    found = dict(t)
    found["out.logits"] = out["z"]
    found |= {f"out.{name}": out[name].double() for name in ("scores", "selected", "weights", "y")}
    found |= {f"out.loss.{name}": loss.reshape(1) for name, (_, loss) in out["losses"].items()}
    found |= {f"out.grad.{name}": gradient for name, gradient in total.items()}
    if layer["mode"] == "compete":
        found["out.affinity"] = out["scores"]
        for part, gradients_ in by_part.items():
            prefix = "task" if part == "task" else f"loss.{part}"
            found |= {f"out.grad.{prefix}.{name}": gradient for name, gradient in gradients_.items()}
    return {name: value.detach().numpy() for name, value in found.items()}, {
        "about": case.about, "layer": text, "margin": f"{held.margin:.2e}"}


def differences(made, stored):
    """What is wrong with a stored fixture, as lines."""
    (tensors, metadata), (old, old_metadata) = made, stored
    lines = [f"metadata {key}" for key in sorted(metadata.keys() | old_metadata.keys())
             if metadata.get(key) != old_metadata.get(key)]
    for name in sorted(tensors.keys() | old.keys()):
        if name not in tensors or name not in old or tensors[name].shape != old[name].shape:
            lines.append(f"{name}: missing, superfluous or of another shape")
        elif name in ("out.selected", "sequence_lengths"):
            if not numpy.array_equal(tensors[name], old[name]):
                lines.append(f"{name} differs")
        elif not numpy.allclose(tensors[name], old[name], rtol=1e-12, atol=1e-12):
            lines.append(f"{name} differs by {numpy.abs(tensors[name] - old[name]).max():.1e}")
    return lines


def main():
    parser = argparse.ArgumentParser(description="Writes the golden routing layers, or checks stored ones.")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--check", action="store_true", help="compare instead of writing; exit code 1 on differences")
    parser.add_argument("--only", default="", help="cases whose name contains this text")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    wrong = 0
    if not arguments.only:
        for path in arguments.folder.glob("*.safetensors"):
            if path.stem not in {case.name for case in CASES}:
                print(f"{path}: no such case")
                wrong += 1
    for case in (case for case in CASES if arguments.only in case.name):
        made, path = make(case), arguments.folder / f"{case.name}.safetensors"
        if not arguments.check:
            safetensors.write(path, *made)
            print(f"{case.name}: {path.stat().st_size} bytes, margin {made[1]['margin']}")
            continue
        lines = differences(made, safetensors.read(path)) if path.exists() else ["no such file"]
        wrong += bool(lines)
        for line in lines:
            print(f"{path}: {line}")
    if wrong:
        sys.exit(1)


if __name__ == "__main__":
    main()
