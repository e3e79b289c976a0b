"""What must be so of contrast and fusion, and what the plan of dola_static says must be so, measured on one model: a number
each, 0 where a way back leads to the very same.

`CHECKS` says in words what each number is.
"""

import torch
from torch import Tensor

from ... import decode
from ...decode.fusion import Fusion, joint
from ...decode.language import module_of
from .pair import OBJECTS, Pair, Scenes, candidates, new_tokens

CHECKS = {
    "uniform_early": "largest difference of log p from the model's own, with q_J uniform and alpha = 0",
    "uniform_early_greedy": "tokens that differ from the model's own greedy ones, with q_J uniform and alpha = 0.1",
    "own_early": "largest difference of p from the model's own, with q_J := q_N and alpha = 0 (the plan's way back)",
    "switched_off": "tokens that differ with both switches off",
    "strength_zero": "log p that differ from those of the language contrast, at lambda = 0 with the lift",
    "literal_zero_strength_zero": "words of which log p is no number at lambda = 0, unhit words 0 (the plan's)",
    "literal_minus_inf_strength_zero": "words of which log p is no number at lambda = 0, unhit words -inf (the plan's)",
    "literal_zero_raised": "share of the candidates' start words, percent, that the plan's fusion with unhit words 0 raises",
    "lift_raised": "the same for the lift, of candidates with more than their prior",
    "uncached": "tokens that differ from those without a KV cache",
    "top_k_one": "tokens of sampling among the best one that differ from greedy ones",
    "beam_scores": "largest sum of exp log p at one step, less 1: what beams add up are probabilities",
    "unnormalised": "mean of log sum exp F over the words that APC leaves, nats: what beams would add up of F itself",
    "pooling_heads": "pooling heads and text towers for images in the model that writes",
    "not_finite": "numbers of log p that are NaN over all layers, thresholds and strengths",
}

ROUNDING = 1e-5  # nats: log of a mass that is 1 up to float32
SAME = (
    "uniform_early_greedy",
    "switched_off",
    "strength_zero",
    "uncached",
    "top_k_one",
    "not_finite",
)  # must be 0


def measured(pair: Pair, of: Scenes, dola: decode.Dola, count: int = 8) -> dict[str, float]:
    """`CHECKS` on `count` scenes of one kind, with the settings of both towers."""
    some = slice(0, count)
    inputs, seen = pair.inputs(of.images[some]), of.seen[:, some]
    logits = decode.layer_logits(pair.model, inputs, range(pair.depths[0] + 1))
    found = distributions(logits, dola)
    found |= fused(pair, logits, candidates(seen, dola), dola)
    return found | generated(pair, inputs, seen, dola) | structure(pair, logits, seen)


def distributions(logits: Tensor, dola: decode.Dola) -> dict[str, float]:
    final = logits[-1]
    own = final.log_softmax(-1)
    early = logits[dola.language_layers(len(logits) - 1)[0]]
    uniform = decode.contrast(final, torch.zeros_like(final), 0)
    same = decode.contrast(final, final, 0)
    log_p = decode.contrast(final, early, dola.apc_threshold)
    ratio = (own - early.log_softmax(-1)).masked_fill(
        ~decode.plausible(final, dola.apc_threshold), -torch.inf
    )
    return {
        "uniform_early": float((uniform - own).abs().max()),
        "own_early": float((same.exp() - own.exp()).abs().max()),
        "beam_scores": float((log_p.exp().sum(-1) - 1).abs().max()),
        "unnormalised": float(ratio.logsumexp(-1).mean()),
    }


def fused(pair: Pair, logits: Tensor, found: decode.Candidates, dola: decode.Dola) -> dict[str, float]:
    """The fusion at the first word, lambda = 0 and as it is."""
    final, width = logits[-1], logits.shape[-1]
    log_p = decode.contrast(final, logits[dola.language_layers(len(logits) - 1)[0]], 0)
    tokens, p = decode.candidate_tokens(pair.model.tokenizer, found.names), found.log_p.exp()
    empty = torch.zeros(len(p), 0, dtype=torch.long)
    made = {rule: Fusion(tokens, p, 0.0, rule) for rule in ("lift", "literal_zero", "literal_minus_inf")}
    bias = {rule: fusion.bias(empty, width, final.device) for rule, fusion in made.items()}
    zero = {rule: fusion.fuse(log_p, bias[rule]) for rule, fusion in made.items()}
    starts = tokens.starts.ids
    mass, prior = p.cpu() @ tokens.starts.members.T, tokens.starts.members.sum(1) / p.shape[1]
    more = mass > prior
    moved = lambda rule: joint(log_p, bias[rule].clamp_min(-1e3), 0.7)[:, starts] > log_p[:, starts]
    return {
        "strength_zero": int((zero["lift"] != log_p).sum()),
        "literal_zero_strength_zero": int(zero["literal_zero"].isnan().sum()),
        "literal_minus_inf_strength_zero": int(zero["literal_minus_inf"].isnan().sum()),
        "literal_zero_raised": 100 * float((bias["literal_zero"][:, starts] > ROUNDING).double().mean()),
        "lift_raised": 100 * float(moved("lift").cpu()[more].double().mean()),
    }


def generated(pair: Pair, inputs: dict, seen: Tensor, dola: decode.Dola) -> dict[str, float]:
    """Tokens that differ between two ways to generate that must agree."""

    def tokens(dola, found=None, **options) -> Tensor:
        return new_tokens(decode.generate(pair.model, inputs, dola, found, **pair.ends | options), inputs)

    plain = new_tokens(module_of(pair.model).generate(**inputs, **pair.ends), inputs)
    off = decode.Dola(language=False, image=False, fusion_strength=0)
    uniform = decode.Dola(readout="uniform", fusion_strength=0)
    found = candidates(seen, dola)
    contrasted = tokens(dola, found)
    return {
        "switched_off": differ(plain, tokens(off)),
        "uniform_early_greedy": differ(plain, tokens(uniform)),
        "uncached": differ(contrasted, tokens(dola, found, use_cache=False)),
        "top_k_one": differ(contrasted, tokens(dola, found, do_sample=True, top_k=1)),
    }


def differ(a: Tensor, b: Tensor) -> int:
    """How many tokens of two texts of the same rows are not the same, missing ones included."""
    length = max(a.shape[1], b.shape[1])
    wide = [torch.nn.functional.pad(x, (0, length - x.shape[1]), value=-1) for x in (a, b)]
    return int((wide[0] != wide[1]).sum())


def structure(pair: Pair, logits: Tensor, seen: Tensor) -> dict[str, float]:
    module = module_of(pair.model)
    kinds = [type(m).__name__ for m in module.modules()]
    heads = sum("PoolingHead" in kind or "TextTransformer" in kind for kind in kinds)
    nan = 0
    for alpha in (0.0, 0.05, 0.1, 0.2, 1.0):
        log_p = decode.contrast(logits[-1], logits[:-1], alpha)
        nan += int(log_p.isnan().sum()) + int(decode.contrast(seen[-1], seen[:-1], alpha).isnan().sum())
        for strength in (0.0, 0.35, 0.7, 1.0):
            found = candidates(seen, decode.Dola(image_apc_threshold=alpha))
            tokens = decode.candidate_tokens(pair.model.tokenizer, OBJECTS)
            fusion = Fusion(tokens, found.log_p.exp(), strength)
            bias = fusion.bias(
                torch.zeros(seen.shape[1], 0, dtype=torch.long), logits.shape[-1], logits.device
            )
            nan += int(fusion.fuse(log_p, bias).isnan().sum())
    return {"pooling_heads": heads, "not_finite": nan}
