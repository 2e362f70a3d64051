"""The fixtures by name: what each is about, its [moe] and [moe.router], and what its inputs must bring about."""
from dataclasses import dataclass, field
from typing import Callable

CASES = []


@dataclass
class Case:
    name: str
    about: str
    router: dict
    mode: str = "train"
    moe: dict = field(default_factory=dict)
    lengths: tuple = (5, 1, 3, 4)  # of the sequences
    width: int = 6
    matter: tuple = ()  # keys of the router without which the selection would be another one
    want: Callable = None  # (experts of each token [T], tokens of each expert [E], forward's values) -> bool


def case(name, about, router, experts=5, expert_width=4, moe=None, **others):
    moe = {"experts": experts, "expert_width": expert_width, **(moe or {})}
    CASES.append(Case(name, about, router, moe=moe, **others))


def lonely(experts_of_token, tokens_of_expert, _):
    """A token without an expert, and one with three or more."""
    return experts_of_token.min() == 0 and experts_of_token.max() >= 3


def unchosen(_, tokens_of_expert, __):
    return tokens_of_expert.min() == 0


# ---------------------------------------------------------------------------------------------- token choice

TOKEN = {"strategy": "token_choice"}
OFF = {"balance_coefficient": 0}
for score in ("softmax", "sigmoid"):
    for norm in ("none", "topk"):
        case(f"token_choice.{score}.{norm}", f"{score} scores, norm = {norm}, the default balance loss",
             TOKEN | {"score": score, "norm": norm, "k": 2})
    case(f"token_choice.{score}.bias", "a balancing bias that changes the selection and not the weights' formula",
         TOKEN | {"score": score, "norm": "topk", "k": 2, "bias_rate": 0.001}, matter=("bias_rate",))
    case(f"token_choice.{score}.all_losses", "balance, z and entropy at once",
         TOKEN | {"score": score, "k": 2, "balance_coefficient": 0.3, "z_coefficient": 0.2, "entropy_coefficient": 0.1})
case("token_choice.defaults", "no key but the strategy", TOKEN)
case("token_choice.softmax.scale", "scale multiplies softmax weights too",
     TOKEN | {"k": 3, "scale": 2.5} | OFF, experts=6)
case("token_choice.softmax.topk.scale", "scale after renormalising",
     TOKEN | {"norm": "topk", "k": 2, "scale": 1.5} | OFF)
case("token_choice.sigmoid.topk.scale", "DeepSeek-V3's weights",
     TOKEN | {"score": "sigmoid", "norm": "topk", "k": 3, "scale": 2.5} | OFF, experts=6)
case("token_choice.k1", "Switch: one expert per token, an expert that nobody chose",
     TOKEN | {"k": 1, "balance_coefficient": 0.01}, want=unchosen)
case("token_choice.k_all", "k = E: the dense mixture", TOKEN | {"k": 4, "norm": "none"}, experts=4)
case("token_choice.one_token", "T = 1", TOKEN | {"k": 2}, experts=4, lengths=(1,))
case("token_choice.one_expert", "E = 1", TOKEN | {"k": 1}, experts=1, lengths=(3, 2))
for group_score in ("max", "top2"):
    score = {"max": "softmax", "top2": "sigmoid"}[group_score]
    case(f"token_choice.groups.{group_score}", f"group-limited choice, a group's score its {group_score}",
         TOKEN | {"score": score, "k": 3, "groups": 4, "groups_kept": 2, "group_score": group_score},
         experts=8, matter=("groups_kept", "group_score") if group_score == "top2" else ("groups_kept",))
case("token_choice.groups.top2.bias", "DeepSeek-V3: groups by the two best biased scores",
     TOKEN | {"score": "sigmoid", "norm": "topk", "scale": 2.5, "k": 2, "groups": 2, "groups_kept": 1,
              "group_score": "top2", "bias_rate": 0.001}, experts=6, matter=("groups_kept", "bias_rate", "group_score"))
for drop in ("position", "score"):
    for group in (0, 1):
        case(f"token_choice.capacity.{drop}.group{group}", f"capacity by {drop}, over "
             + ("each sequence" if group else "all tokens") + "; balance counts before dropping",
             TOKEN | {"k": 2, "capacity_factor": 0.75, "drop": drop, "group": group, "balance_coefficient": 0.1},
             matter=("capacity_factor",) + ("drop",) * (drop == "score") + ("group",) * group)
case("token_choice.capacity.topk", "weights are not renormalised after dropping",
     TOKEN | {"norm": "topk", "k": 2, "capacity_factor": 1.0}, matter=("capacity_factor",),
     want=lambda n, _, __: n.min() == 0)
case("token_choice.capacity.eval", "evaluation drops nothing",
     TOKEN | {"k": 2, "capacity_factor": 0.5} | OFF, mode="eval")
for scope in ("batch", "sequence", "global"):
    case(f"token_choice.balance.{scope}", f"balance loss by {scope}, routing groups of two sequences",
         TOKEN | {"norm": "topk", "k": 2, "group": 2, "balance_coefficient": 0.5, "balance_scope": scope})
case("token_choice.sigmoid.balance.sequence", "balance of s / sum s by sequence",
     TOKEN | {"score": "sigmoid", "k": 2, "balance_coefficient": 0.5, "balance_scope": "sequence"})
case("token_choice.z", "the z-loss alone", TOKEN | {"k": 2, "z_coefficient": 0.1} | OFF)
case("token_choice.entropy", "the entropy loss alone, over groups of two sequences",
     TOKEN | {"k": 2, "entropy_coefficient": 0.1, "group": 2} | OFF)
case("token_choice.shared", "two shared experts", TOKEN | {"k": 2}, moe={"shared_experts": 2})
case("token_choice.shared.gated", "a shared expert behind a gate", TOKEN | {"k": 2},
     moe={"shared_experts": 1, "shared_gate": True})
case("token_choice.shared.gelu", "a shared expert without a gate projection", TOKEN | {"k": 2},
     moe={"shared_experts": 1, "activation": "gelu"})
for activation in ("swiglu", "gelu", "relu"):
    if activation != "swiglu":
        case(f"token_choice.{activation}", f"{activation} experts", TOKEN | {"norm": "topk", "k": 2},
             moe={"activation": activation})
    case(f"token_choice.{activation}.bias", f"{activation} experts with biases", TOKEN | {"norm": "topk", "k": 2},
         moe={"activation": activation, "bias": True}, width=8, expert_width=5)

# ---------------------------------------------------------------------------------------------- expert choice

EXPERT = {"strategy": "expert_choice"}
EQUAL = (4, 4, 4, 4)
for scope in ("batch", "sequence", "time_step"):
    for group in (0, 1, 2):
        if (scope, group) != ("time_step", 1):  # one token in a scope: all experts or none
            case(f"expert_choice.{scope}.group{group}", f"scope {scope}, group = {group}",
                 EXPERT | {"k": 2, "scope": scope, "group": group},
                 matter=("scope",) * (scope != "batch" and group != 1) + ("group",) * (group > 0),
                 want=lonely)
case("expert_choice.time_step.equal", "time steps of sequences of one length", EXPERT | {"k": 2, "scope": "time_step"},
     lengths=EQUAL, matter=("scope",))
case("expert_choice.fractional", "k = 1.7: budgets differ from scope to scope",
     EXPERT | {"k": 1.7, "scope": "sequence"}, matter=("scope",))
case("expert_choice.below_one", "k = 0.6: scopes of which an expert takes nothing",
     EXPERT | {"k": 0.6, "scope": "sequence"}, matter=("scope",))
case("expert_choice.k_all", "k = E: the dense mixture", EXPERT | {"k": 4}, experts=4)
case("expert_choice.losses", "balance, z and entropy switched on",
     EXPERT | {"k": 2, "group": 2, "balance_coefficient": 0.3, "z_coefficient": 0.2, "entropy_coefficient": 0.1})
case("expert_choice.eval", "causal: a threshold per expert", EXPERT | {"k": 2}, mode="eval", want=lonely)
case("expert_choice.eval_noncausal", "evaluation that selects within each sequence",
     EXPERT | {"k": 1.5, "scope": "sequence"}, mode="eval_noncausal", matter=("scope",))

# ---------------------------------------------------------------------------------------------- unified

UNIFIED = {"strategy": "unified"}
for expert_score, alpha in (("sigmoid", 0), ("sigmoid", 0.3), ("sigmoid", 1), ("softmax", 0.3), ("softmax", 1)):
    case(f"unified.{expert_score}.alpha{alpha}", f"{expert_score} expert scores, alpha = {alpha}",
         UNIFIED | {"k": 2, "alpha": alpha, "expert_score": expert_score}, want=lonely if alpha == 1 else None)
case("unified.defaults", "no key but the strategy", UNIFIED)
for norm in ("row_all", "row_selected"):
    case(f"unified.{norm}", f"norm = {norm}, all losses", UNIFIED | {
        "k": 2, "norm": norm, "balance_coefficient": 0.3, "z_coefficient": 0.2, "entropy_coefficient": 0.1},
        want=lambda n, _, __: n.max() >= 3 and n.min() <= 1)
case("unified.softmax.row_all", "expert scores over each sequence, row_all",
     UNIFIED | {"k": 2, "norm": "row_all", "expert_score": "softmax", "scope": "sequence"}, matter=("scope",))
case("unified.sequence", "scope sequence", UNIFIED | {"k": 2, "scope": "sequence"}, matter=("scope",), want=lonely)
case("unified.softmax.time_step", "scope time_step, groups of two sequences, expert scores over the scope",
     UNIFIED | {"k": 2, "scope": "time_step", "group": 2, "expert_score": "softmax"}, matter=("scope", "group"))
case("unified.time_step.equal", "time steps of sequences of one length", UNIFIED | {"k": 2, "scope": "time_step"},
     lengths=EQUAL, matter=("scope",))
case("unified.group1", "scope batch, every sequence a group", UNIFIED | {"k": 2, "group": 1}, matter=("group",))
case("unified.fractional", "k = 1.3 over sequences", UNIFIED | {"k": 1.3, "scope": "sequence"}, matter=("scope",))
case("unified.below_one", "k = 0.6 over time steps, groups of two sequences",
     UNIFIED | {"k": 0.6, "scope": "time_step", "group": 2}, matter=("scope", "group"))
case("unified.k_all", "alpha = 0 and N = T E: the dense mixture", UNIFIED | {"k": 4, "alpha": 0}, experts=4)
case("unified.eval", "causal: one threshold", UNIFIED | {"k": 2, "norm": "row_all"}, mode="eval", want=lonely)
case("unified.eval_noncausal", "evaluation that selects within each sequence",
     UNIFIED | {"k": 1.5, "scope": "sequence"}, mode="eval_noncausal", matter=("scope",))
case("unified.shared", "with a shared expert: a token without routed experts still has an answer",
     UNIFIED | {"k": 1}, moe={"shared_experts": 1}, want=lambda n, _, __: n.min() == 0)

# ---------------------------------------------------------------------------------------------- competition

COMPETITION = {"strategy": "competition"}
SMALL = {"experts": 4, "lengths": (4, 1, 5, 2)}  # many gradients are kept of these
NO_LOSS = {"router_coefficient": 0, "diversity_coefficient": 0, "balance_coefficient": 0}
case("competition.train", "a normal step: the router decides, f of balance counts first choices",
     COMPETITION | {"k": 2, "normal_balance_coefficient": 0.3})
case("competition.train.losses", "a normal step with z and entropy losses, balance by sequence",
     COMPETITION | {"k": 3, "z_coefficient": 0.2, "entropy_coefficient": 0.1, "balance_scope": "sequence", "group": 2})
case("competition.eval", "evaluation: the router decides", COMPETITION | {"k": 2}, mode="eval")
for score in ("softplus_mean", "l2_norm", "silu_mean", "relu_mean"):
    case(f"competition.{score}", f"a competition step, {score}, all losses at their defaults",
         COMPETITION | {"k": 2, "score": score}, mode="compete", **SMALL)


def step(name, about, router, **others):
    case(f"competition.{name}", about, COMPETITION | {"k": 2} | NO_LOSS | router, mode="compete", **SMALL | others)


step("no_losses", "the task alone: exactly no gradient to the router or to losers", {})
step("router_loss", "the distillation alone: exactly no gradient to the experts", {"router_coefficient": 0.5})
step("router_loss.theta", "theta = 2, temperature = 0.1", {"router_coefficient": 0.5, "theta": 2.0, "temperature": 0.1})
step("diversity", "the diversity loss alone, k = 3", {"diversity_coefficient": 0.5, "k": 3})
step("balance", "the balance loss alone, to winners only", {"balance_coefficient": 0.5})
step("balance.losers", "the balance loss alone, to all experts", {"balance_coefficient": 0.5, "loser_gradient": True})
step("balance.sequence", "balance by sequence, temperature 0.1, to all experts",
     {"balance_coefficient": 0.5, "loser_gradient": True, "balance_scope": "sequence", "temperature": 0.1})
step("z_entropy", "z and entropy losses stay those of the router's logits",
     {"z_coefficient": 0.2, "entropy_coefficient": 0.1, "group": 2})
step("all", "every loss at once, temperature 0.1, two routing groups, gelu experts with biases",
     {"router_coefficient": 0.3, "diversity_coefficient": 0.2, "balance_coefficient": 0.1, "z_coefficient": 0.05,
      "entropy_coefficient": 0.04, "temperature": 0.1, "theta": 0.5, "group": 2},
     moe={"activation": "gelu", "bias": True})
step("all.losers", "every loss at once, to all experts, silu_mean, with a gated shared expert",
     {"score": "silu_mean", "router_coefficient": 0.3, "diversity_coefficient": 0.2, "balance_coefficient": 0.1,
      "z_coefficient": 0.05, "loser_gradient": True, "temperature": 0.5},
     moe={"shared_experts": 1, "shared_gate": True})
step("k1", "one winner: w = 1, no diversity, the router learns from its loss",
     {"k": 1, "router_coefficient": 0.5, "diversity_coefficient": 0.5, "balance_coefficient": 0.1}, want=unchosen)
step("k_all", "k = E: everybody wins",
     {"k": 4, "router_coefficient": 0.5, "diversity_coefficient": 0.5, "balance_coefficient": 0.1})

# ---------------------------------------------------------------------------------------------- free combinations


def free(score, selection, weight, router, about="", **others):
    mode = others.get("mode", "train")
    case(f"free.{score}.{selection}.{weight}" + (f".{mode}" if mode != "train" else ""),
         f"{score} scores, {selection}, {weight}" + about,
         {"score": score, "selection": selection, "weight": weight} | OFF | router, **others)


LOSSES = {"balance_coefficient": 0.3, "z_coefficient": 0.2, "entropy_coefficient": 0.1}
ANSWER_LOSSES = {"router_coefficient": 0.5, "theta": 0.5, "diversity_coefficient": 0.4}
free("softmax", "per_token", "over_all", {"k": 2} | LOSSES)
free("sigmoid", "per_token", "over_all", {"k": 2} | LOSSES)
free("sigmoid", "global", "over_selected", {"k": 2} | LOSSES, want=lonely)
free("softmax", "global", "raw", {"k": 1.5, "group": 2}, ", routing groups of two sequences", matter=("group",))
free("softmax", "per_expert", "over_all", {"k": 2} | LOSSES)
free("softmax", "per_expert", "over_selected", {"k": 2}, want=lonely)
free("sigmoid", "per_expert", "raw", {"k": 2}, ", thresholds", mode="eval", want=lonely)
free("sigmoid", "global", "over_all", {"k": 2}, ", a threshold", mode="eval", want=lonely)
free("sigmoid", "per_expert", "over_selected", {"k": 1.6, "scope": "sequence"}, ", by sequence", matter=("scope",))
free("unified", "per_token", "raw", {"k": 2, "alpha": 0.3} | LOSSES)
free("unified", "per_token", "over_selected", {"k": 2, "alpha": 0.7})
free("unified", "per_expert", "over_all", {"k": 2, "alpha": 0.7}, want=lonely)
free("unified", "per_expert", "raw", {"k": 1.5, "expert_score": "softmax", "scope": "sequence"}, ", by sequence",
     matter=("scope",))
free("softplus_mean", "per_token", "raw", {"k": 2, "balance_coefficient": 0.3} | ANSWER_LOSSES, mode="compete", **SMALL)
free("softplus_mean", "global", "over_selected", {"k": 2} | ANSWER_LOSSES, ", tokens without winners, no balance loss",
     mode="compete", want=lonely, **SMALL)
free("softplus_mean", "global", "over_all", {"k": 2, "balance_coefficient": 0.3} | ANSWER_LOSSES, mode="compete",
     want=lambda n, _, __: n.min() == 1 and n.max() >= 3, **SMALL)
free("l2_norm", "per_expert", "over_all", {"k": 2, "balance_coefficient": 0.3} | ANSWER_LOSSES, mode="compete",
     want=lambda n, _, __: n.min() == 1 and n.max() >= 3, **SMALL)
free("l2_norm", "per_expert", "raw", {"k": 1.5, "scope": "sequence", "loser_gradient": True} | ANSWER_LOSSES,
     ", by sequence, tokens without winners", mode="compete", want=lambda n, _, __: n.min() == 0, matter=("scope",),
     **SMALL)
free("softplus_mean", "global", "over_selected", {"k": 2, "normal_balance_coefficient": 0.3}, ", a normal step",
     want=lambda n, _, __: n.min() == 1 and n.max() >= 3)
free("relu_mean", "per_expert", "raw", {"k": 2, "normal_balance_coefficient": 0}, ", a normal step", want=lonely)
