"""Section 7 of ROUTING.md, the gradients written out: dL/dz and dL/do of a layer from its values, without autograd."""
import torch
from routing import ANSWERS, TINY, options, routing_groups, scopes_of


def smb(p, d, dim=1):
    """d(loss)/dz from d = d(loss)/dp of p = softmax(z)."""
    return p * (d - (p * d).sum(dim, keepdim=True))


def score_gradient(r, S, w, I, r_te, compete):
    """dL/dS [T,E] of the task, through the weights: rules 1, 2, 3, 5, the first lines of 6 and 7."""
    if compete and r["score"] == "silu_mean":
        return w * (r_te - (w * r_te).sum(1, keepdim=True))
    if r["weight"] == "raw":
        return r["scale"] * r_te * I
    counted = I if r["weight"] == "over_selected" else torch.ones_like(I)
    A = (S * counted).sum(1, keepdim=True) + TINY
    reached = I if compete else counted  # an answer that lost gets no task gradient
    return (r["scale"] * r_te - (w * r_te).sum(1, keepdim=True)) / A * reached


def logit_gradient(r, z, dS, groups):
    """dL/dz from dL/dS: rules 1, 3 and 6."""
    p, s, E = z.softmax(1), z.sigmoid(), z.shape[1]
    if r["score"] == "sigmoid":
        return dS * s * (1 - s)
    if r["score"] != "unified":
        return smb(p, dS)
    if r["expert_score"] == "sigmoid":
        return (1 - r["alpha"]) * smb(p, dS) + r["alpha"] * 2 / E * s * (1 - s) * dS
    dz = (1 - r["alpha"]) * smb(p, dS)
    for group in groups:
        for tokens in scopes_of(group, r["scope"]):
            dz[tokens] += r["alpha"] * len(tokens) / E * smb(z[tokens].softmax(0), dS[tokens], 0)
    return dz


def probability_gradient(r, z, dP):
    """dL/dz from dL/dP of the probabilities in the losses (rule 4): softmax(z), or s / sum s."""
    if r["score"] != "sigmoid":
        return smb(z.softmax(1), dP)
    s = z.sigmoid()
    A = s.sum(1, keepdim=True)
    return (dP - (s * dP).sum(1, keepdim=True) / A) / A * s * (1 - s)


def answer_slope(kind, o):
    """da/do [T,E,D]."""
    s, D = o.sigmoid(), o.shape[2]
    return {"softplus_mean": s / D, "l2_norm": o / o.norm(dim=2, keepdim=True), "relu_mean": (o > 0).double() / D,
            "silu_mean": s * (1 + o * (1 - s)) / D}[kind]


def balance_slope(counted, scopes):
    """d(balance)/dP [T,E]: E f / T, f that of the token's scope (rule 4)."""
    T, E = counted.shape
    slope = torch.zeros(T, E, dtype=torch.float64)
    for tokens in scopes:
        f = counted[tokens].double().sum(0)
        slope[tokens] = E * f / f.sum() / T
    return slope


def gradients(layer, out, dy, lengths):
    """(dL/dz [T,E], dL/do [T,E,D]) of L = <dy, y> + sum coefficient * loss, from forward()'s values."""
    r = options(layer["moe"]["router"])
    z, o, S, I, kept = (out[name].detach() for name in ("z", "o", "scores", "chosen", "selected"))
    (T, E), I = S.shape, I.double()
    groups = routing_groups(lengths, r["group"])
    compete = layer["mode"] == "compete"
    on = {name: coefficient for name, (coefficient, _) in out["losses"].items()}
    p = z.softmax(1)

    r_te = torch.einsum("td,ted->te", dy, o) * kept
    # Weights before a capacity dropped pairs: what was dropped still stands in the denominators.
    w = out["weights"].detach()
    if r["weight"] == "over_selected" and not (compete and r["score"] == "silu_mean"):
        w = r["scale"] * S * I / ((S * I).sum(1, keepdim=True) + TINY)
    do = (w * kept)[:, :, None] * dy[:, None, :]
    dS = score_gradient(r, S, w, I, r_te, compete)
    dz = torch.zeros_like(z) if compete else logit_gradient(r, z, dS, groups)

    dP = torch.zeros_like(z)
    if "balance" in on:
        counted = I
        if r["score"] in ANSWERS:
            counted = torch.nn.functional.one_hot((S * I - 1e9 * (1 - I)).argmax(1), E) * I
        slope = on["balance"] * balance_slope(counted, {
            "batch": [torch.cat(group) for group in groups], "sequence": [s for group in groups for s in group],
            "global": [torch.arange(T)]}[r["balance_scope"]])
        if compete:
            reached = 1 if r["loser_gradient"] else I
            dS = dS + reached * smb((S / r["temperature"]).softmax(1), slope) / r["temperature"]
        else:
            dP += slope
    if "entropy" in on:
        P = S / (S.sum(1, keepdim=True) + TINY) if r["score"] == "sigmoid" else p
        for group in groups:
            tokens = torch.cat(group)
            dP[tokens] += on["entropy"] * (P[tokens].mean(0).log() + 1) / T
    dz += probability_gradient(r, z, dP)
    if "z" in on:
        dz += on["z"] * 2 * z.logsumexp(1, keepdim=True) * p / T
    if "router" in on:
        error = p - (S / r["temperature"]).softmax(1)
        dz += on["router"] * smb(p, 2 * error / (T * E) + r["theta"] * I * 2 * error / I.sum())
    if compete:
        do += dS[:, :, None] * answer_slope(r["score"], o)
    if "diversity" in on:
        n = I.sum(1)
        norm = o.norm(dim=2, keepdim=True)
        u = o / norm * I[:, :, None]
        G = 2 / ((n > 1).sum() * n * (n - 1)).clamp_min(1)[:, None, None] * (u.sum(1, keepdim=True) - u)
        do += on["diversity"] * I[:, :, None] * (n > 1)[:, None, None] * (G - u * (u * G).sum(2, keepdim=True)) / norm
    return dz, do
