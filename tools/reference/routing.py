"""The mathematics of one MoE layer, for every routing strategy: the forward pass as formulas over whole matrices, in
f64, with gradients by autograd. Nothing is sparse and nothing is fast: all experts answer all tokens, and a pair
that is not selected has weight 0. Sections are those of ROUTING.md of the project's documents.

Letters: T tokens, E experts, k experts per token, D width, F expert width.
x [T,D]; z [T,E] router logits; p = softmax_E(z); o [T,E,D] the experts' answers; S [T,E] the score that selection goes
by; I (here `selected`) [T,E] the selected pairs; w [T,E] weights; a [T,E] how strongly an expert answers ("affinity").
"""
import math
from itertools import accumulate

import torch
from torch.nn.functional import gelu, one_hot, relu, silu, softplus

TINY = 1e-20

ANSWERS = {  # o [T,E,D] -> a [T,E]
    "softplus_mean": lambda o: softplus(o, threshold=1000).mean(-1),
    "l2_norm": lambda o: o.norm(dim=-1).clamp_min(1e-12),
    "silu_mean": lambda o: silu(o).mean(-1),
    "relu_mean": lambda o: relu(o).mean(-1),
}
RENORMALISED = {"none": "raw", "topk": "over_selected", "row_selected": "over_selected", "row_all": "over_all"}
DEFAULTS = dict(
    k=2, group=0, scope="batch", scale=1, capacity_factor=0, drop="position", groups_kept=0, group_score="max",
    alpha=0.5, expert_score="sigmoid", temperature=1, theta=0.2, loser_gradient=False, balance_scope="batch",
    z_coefficient=0, entropy_coefficient=0, router_coefficient=0.01, diversity_coefficient=0.005,
    normal_balance_coefficient=0.01)


def options(router):
    """[moe.router] with every default, and the three axes: score, selection, weight."""
    score, selection = {
        "token_choice": ("softmax", "per_token"), "expert_choice": ("softmax", "per_expert"),
        "unified": ("unified", "global"), "competition": ("softplus_mean", "per_token"), None: ("softmax", "per_token"),
    }[router.get("strategy")]
    weight = "over_selected" if router.get("strategy") == "competition" else RENORMALISED[router.get("norm", "none")]
    r = {**DEFAULTS, "score": score, "selection": selection, "weight": weight, **router}
    r.setdefault("balance_coefficient", 0.01 if router.get("strategy") == "token_choice" else
                 0.005 if r["score"] in ANSWERS else 0)
    return r


class Held:
    """What carries no gradient: choices, frequencies, stopped values. A replay returns what the first pass noted, so a
    finite difference sees the function that the gradient belongs to. `margin` is the narrowest decision of the first
    pass: the distance between the last score taken and the first one left, or between a score and a threshold."""

    def __init__(self):
        self.values, self.position, self.margin = [], None, math.inf

    def __call__(self, value):
        if self.position is None:
            self.values.append(value.detach())
            return self.values[-1]
        self.position += 1
        return self.values[self.position - 1]

    def replay(self):
        self.position = 0

    def decided(self, distances):
        if self.position is None and distances.numel():
            self.margin = min(self.margin, distances.min().item())


# ---------------------------------------------------------------------------------------------- experts


def feed_forward(x, up, down, activation, up_bias=0, down_bias=0):
    """x [T,D]; up [2F,D] (gate rows first) for swiglu, else [F,D]; down [D,F]."""
    h = x @ up.T + up_bias
    if activation == "swiglu":
        gate, value = h.chunk(2, -1)
        h = silu(gate) * value
    else:
        h = {"gelu": gelu, "relu": relu}[activation](h)  # gelu: x Phi(x), not the tanh approximation
    return h @ down.T + down_bias


def expert_answers(moe, t):
    activation = moe.get("activation", "swiglu")
    up = t["experts.gate_up" if activation == "swiglu" else "experts.up"]
    biases = [(t["experts.up_bias"][e], t["experts.down_bias"][e]) if moe.get("bias") else () for e in range(len(up))]
    return torch.stack([feed_forward(t["x"], up[e], t["experts.down"][e], activation, *biases[e])
                        for e in range(len(up))], 1)


def shared_expert(moe, t):
    if not moe.get("shared_experts"):
        return 0
    activation = moe.get("activation", "swiglu")
    up = t["shared.gate_up" if activation == "swiglu" else "shared.up"]
    y = feed_forward(t["x"], up, t["shared.down"], activation)
    return torch.sigmoid(t["x"] @ t["shared_gate"].T) * y if moe.get("shared_gate") else y


# ---------------------------------------------------------------------------------------------- scopes (section 1)


def routing_groups(lengths, group):
    """Lists of `group` consecutive sequences (0: all); a sequence is the indices of its tokens."""
    sequences = torch.arange(sum(lengths)).split(lengths)
    size = group or len(sequences)
    return [sequences[i:i + size] for i in range(0, len(sequences), size)]


def scopes_of(sequences, scope):
    """The scopes of one routing group, each the indices of its tokens."""
    if scope == "batch":
        return [torch.cat(sequences)]
    if scope == "sequence":
        return sequences
    assert scope == "time_step"
    return [torch.stack([s[i] for s in sequences if i < len(s)]) for i in range(max(map(len, sequences)))]


def budgets(rate, scopes):
    """How many to take in each scope: rate * tokens, without loss over the scopes of a group."""
    assert all(math.floor(rate * n + 1e-9) == math.floor(rate * n) for n in range(sum(map(len, scopes)) + 1))
    so_far = [math.floor(rate * n) for n in accumulate(map(len, scopes), initial=0)]
    return [after - before for before, after in zip(so_far, so_far[1:])]


# ---------------------------------------------------------------------------------------------- scores


def scores(r, z, o, groups, compete):
    """S [T,E], what selection goes by, before any bias (sections 2-5)."""
    p, E = z.softmax(1), z.shape[1]
    if r["score"] in ANSWERS:
        return ANSWERS[r["score"]](o) if compete else p
    if r["score"] == "softmax":
        return p
    if r["score"] == "sigmoid":
        return z.sigmoid()
    if r["expert_score"] == "sigmoid":
        g = 2 * z.sigmoid() / E
    else:
        g = torch.zeros_like(z)
        for group in groups:
            for tokens in scopes_of(group, r["scope"]):
                g = g.index_put((tokens,), z[tokens].softmax(0) * len(tokens) / E)
    return (1 - r["alpha"]) * p + r["alpha"] * g


# ---------------------------------------------------------------------------------------------- selection


def largest(values, n, held):
    """Mask of the n largest of a vector; of equal ones the first."""
    n = min(n, len(values))
    ordered, indices = values.sort(descending=True, stable=True)
    if 0 < n < len(values) and ordered[n - 1] > -math.inf:
        held.decided(ordered[n - 1] - ordered[n])
    return torch.zeros(len(values), dtype=torch.bool).index_fill(0, indices[:n], True)


def ranks(S):
    """[T,E]: 0 for a token's first choice, 1 for its second, ..."""
    return S.argsort(dim=1, descending=True, stable=True).argsort(1)


def top_k_of_rows(S, r, held):
    """Token choice (section 2) on S + b; the order of the k choices is decided as well, not only which they are."""
    if r["groups_kept"]:
        members = S.view(len(S), r["groups"], -1)
        value = members.amax(2) if r["group_score"] == "max" else members.topk(2).values.sum(2)
        kept = torch.stack([largest(row, r["groups_kept"], held) for row in value])
        S = S.masked_fill(~kept.repeat_interleave(members.shape[2], 1), -math.inf)
    ordered = S.sort(1, descending=True).values[:, :r["k"] + 1]
    held.decided(ordered[:, :-1] - ordered[:, 1:])
    return ranks(S) < r["k"]


def top_of_scopes(S, r, groups, held):
    """Expert choice (section 3): the C_i best tokens of each expert. Unified (section 4): the N_i best pairs."""
    selected, E = torch.zeros(S.shape, dtype=torch.bool), S.shape[1]
    for group in groups:
        scopes = scopes_of(group, r["scope"])
        for tokens, n in zip(scopes, budgets(r["k"] / E if r["selection"] == "per_expert" else r["k"], scopes)):
            if r["selection"] == "per_expert":
                selected[tokens] = torch.stack([largest(column, n, held) for column in S[tokens].T], 1)
            else:
                selected[tokens] = largest(S[tokens].flatten(), n, held).view(-1, E)
    return selected


def select(S, r, mode, t, groups, held):
    if r["selection"] == "per_token":
        return top_k_of_rows(S + t.get("router.bias", 0), r, held)
    if mode == "eval":  # causal: section 6
        held.decided((S - t["router.threshold"]).abs())
        return S >= t["router.threshold"]
    return top_of_scopes(S, r, groups, held)


def within_capacity(selected, S, r, groups, held):
    """Of an expert's tokens in a routing group the first C: by choice and then position, or by score (section 2)."""
    kept, (T, E) = torch.zeros_like(selected), S.shape
    best = S.masked_fill(~selected, -math.inf)
    order = best if r["drop"] == "score" else -(ranks(best) * T + torch.arange(T)[:, None]).double()
    order = order.masked_fill(~selected, -math.inf)
    for group in groups:
        tokens = torch.cat(group)
        C = math.ceil(r["capacity_factor"] * r["k"] * len(tokens) / E)
        kept[tokens] = torch.stack([largest(column, C, held) for column in order[tokens].T], 1)
    return kept & selected


# ---------------------------------------------------------------------------------------------- weights


def weigh(S, selected, r, compete, held):
    if compete and r["score"] == "silu_mean":  # may be negative
        assert r["weight"] == "over_selected"
        return S.masked_fill(~selected, -math.inf).softmax(1)
    taken = S * selected
    if r["weight"] == "over_selected":
        taken = taken / (taken.sum(1, keepdim=True) + TINY)
    if r["weight"] == "over_all":
        counted = torch.where(selected, S, held(S)) if compete else S  # no task gradient to the losers' experts
        taken = taken / (counted.sum(1, keepdim=True) + TINY)
    return taken * r["scale"]


# ---------------------------------------------------------------------------------------------- losses


def balance_loss(P, counted, scopes, held):
    """Mean over tokens' scopes of E sum_e f_e P_e, f the share of the counted pairs [T,E] that are expert e's."""
    T, E = P.shape
    loss = 0
    for tokens in scopes:
        f = counted[tokens].double().sum(0)
        loss = loss + len(tokens) / T * E * (held(f / f.sum()) * P[tokens].mean(0)).sum()
    return loss


def z_loss(z):
    return z.logsumexp(1).square().mean()


def entropy_loss(P, groups):
    means = [(len(torch.cat(group)) / len(P), P[torch.cat(group)].mean(0)) for group in groups]
    return sum(share * (m * m.log()).sum() for share, m in means)


def router_loss(q, P, selected, theta, held):
    """Distillation of what the experts answered, P, into the router, q (section 5)."""
    error = (q - held(P)).square()
    return error.mean() + theta * (error * selected).sum() / selected.sum()


def diversity_loss(o, selected):
    """Mean cosine between the answers of a token's winners, over tokens with at least two."""
    u = o / o.norm(dim=2, keepdim=True).clamp_min(1e-12)
    E = o.shape[1]
    pairs = selected[:, :, None] & selected[:, None, :] & ~torch.eye(E, dtype=torch.bool)
    n = pairs.sum((1, 2))
    cosines = ((u @ u.transpose(1, 2)) * pairs).sum((1, 2))
    return cosines[n > 0].div(n[n > 0]).mean() if n.any() else 0 * cosines.sum()


def first_choices(S, selected, held):
    """Mask of every token's winner of largest score."""
    best = S.masked_fill(~selected, -math.inf).topk(min(2, S.shape[1]))
    held.decided((best.values[:, 0] - best.values[:, -1])[selected.sum(1) > 1])
    return one_hot(best.indices[:, 0], S.shape[1]) * selected


def losses(r, z, o, S, selected, groups, compete, held):
    """name -> (coefficient, loss), of the losses that are switched on."""
    p = z.softmax(1)
    P = S / (S.sum(1, keepdim=True) + TINY) if r["score"] == "sigmoid" else p
    counted, prefix = selected, ""
    if r["score"] in ANSWERS:  # f counts first choices
        counted, prefix = first_choices(S, selected, held), "" if compete else "normal_"
    scopes = {"batch": [torch.cat(group) for group in groups], "sequence": [s for group in groups for s in group],
              "global": [torch.arange(len(z))]}[r["balance_scope"]]

    found = {}

    def loss(name, function, coefficient=None):
        if r[coefficient or name + "_coefficient"]:
            found[name] = (r[coefficient or name + "_coefficient"], function())

    def balance():
        if not compete:
            return balance_loss(P, counted, scopes, held)
        a = S if r["loser_gradient"] else torch.where(selected, S, held(S))
        return balance_loss((a / r["temperature"]).softmax(1), counted, scopes, held)

    loss("balance", balance, prefix + "balance_coefficient")
    loss("z", lambda: z_loss(z))
    loss("entropy", lambda: entropy_loss(P, groups))
    if compete:
        loss("router", lambda: router_loss(p, (S / r["temperature"]).softmax(1), selected, r["theta"], held))
        loss("diversity", lambda: diversity_loss(o, selected))
    return found


# ---------------------------------------------------------------------------------------------- the layer


def forward(layer, t, held):
    """One layer on the tensors t, with layer = {mode, moe}. Returns what a fixture's outputs are made of."""
    moe, mode = layer["moe"], layer["mode"]
    r = options(moe["router"])
    compete = mode == "compete"
    assert not compete or r["score"] in ANSWERS
    groups = routing_groups(t["sequence_lengths"].tolist(), r["group"])

    z = t["x"] @ t["router.weight"].T
    o = expert_answers(moe, t)
    S = scores(r, z, o, groups, compete)
    chosen = held(select(S, r, mode, t, groups, held))
    w, selected = weigh(S, chosen, r, compete, held), chosen
    if r["capacity_factor"] and mode == "train":
        selected = held(within_capacity(chosen, S, r, groups, held))
        w = w * selected
    y = (w[:, :, None] * o).sum(1) + shared_expert(moe, t)
    return {"z": z, "o": o, "scores": S, "chosen": chosen, "selected": selected, "weights": w, "y": y,
            "task": (t["dy"] * y).sum(), "losses": losses(r, z, o, S, chosen, groups, compete, held)}
