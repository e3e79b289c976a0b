"""The audit of the survey: what of its sentences small trained models can answer. A check is a number and what it is of.

first: row name -> (run, task), attached, of each run's first seed.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from ... import registry
from ...capturing.capture import capture
from ...feeds import in_order
from ...systems import masking, matching, moco
from . import systems

Found = dict[str, tuple[float, str]]


def checks(first: Mapping[str, tuple]) -> Found:
    """All checks, by name, as data/published/survey/audit.csv calls them."""
    torch.manual_seed(0)
    parts: tuple[Callable[[Mapping], Found], ...] = (
        terms_of_losses,
        of_albef,
        of_blip,
        of_flamingo,
        of_llava,
    )
    found: Found = {}
    for part in parts:
        found |= part(first)
    return found


def two(first: Mapping[str, tuple], model) -> tuple[Tensor, list[str]]:
    """Two test images as a model takes them, and their texts."""
    test = next(iter(first["albef"][1].tests.values())).select(range(2))
    return next(iter(in_order(test, model, 2)))["image"], list(test.texts)


def terms_of_losses(first: Mapping[str, tuple]) -> Found:
    """What needs no trained model: who counts as a negative, what is masked, how hard targets are weighted."""
    unit = torch.nn.functional.normalize(torch.randn(3, 16, 8), dim=2)
    negatives = moco.info_nce_logits(*unit[:2], unit[2], 0.1).shape[1] - 1
    kind = masking.corrupted(torch.full((400, 100), 20), 30).kind
    logits = torch.randn(2000, 48)
    drawn = matching.hard_negatives(logits, torch.zeros_like(logits, dtype=torch.bool))
    labels, (ours, theirs) = torch.tensor([[1, 2]]), torch.randn(2, 1, 2, 5)
    mixed, hard, soft = (float(masking.masked_loss(ours, labels, theirs, a)) for a in (0.4, 0.0, 1.0))
    masked, hardest = (kind == 1).sum() / (kind > 0).sum(), (drawn == logits.argmax(1)).float().mean()
    return {
        "moco_batch_negatives": (negatives - len(unit[2]), "of 16 images in a batch"),
        "bert_masked_share": (100 * float(masked), "% of the selected words become [MASK]"),
        "itm_takes_hardest": (100 * float(hardest), "% of the negatives drawn are the hardest"),
        "hard_weight": ((mixed - soft) / (hard - soft), "is the weight of hard targets at alpha = 0.4"),
    }


def of_albef(first: Mapping[str, tuple]) -> Found:
    run = first["albef"][0]
    pixels, texts = two(first, run.model)
    names = next(iter(systems.terms(run).values()))
    terms = {}
    for alpha in (0.0, 0.4):
        torch.manual_seed(0)
        with torch.no_grad():
            terms[alpha] = run.model.losses({"image": pixels, "text": texts, "alpha": alpha})
    moved = {n: float(abs(terms[0.4][n] - terms[0.0][n])) for n in names}
    others = f"of contrast {moved['itc']:.2g}, of masked words {moved['mlm']:.2g}"
    return {
        "albef_terms": (len(names), f"terms in one stage: {', '.join(names)}"),
        "albef_queue": (len(run.model.text_queue), "earlier texts beside those of the batch"),
        "itm_distilled": (moved["itm"], f"is what alpha = 0.4 changes of matching; {others}"),
    }


def of_blip(first: Mapping[str, tuple]) -> Found:
    run = first["blip"][0]
    both = list(zip(run.model.online.text, run.model.decoder.blocks, strict=True))
    shared, mlps = (sum(getattr(a, n) is getattr(b, n) for a, b in both) for n in ("attn", "mlp"))
    told = f"of {len(both)} blocks share self-attention; {mlps} share the MLP"
    return {
        "blip_shared_attention": (shared, told),
        "blip_stages": (len(systems.terms(run)), "stage"),
    }


def of_flamingo(first: Mapping[str, tuple]) -> Found:
    """One as it is made, against its language model; and the keys of a trained one's resampler."""
    run = first["flamingo"][0]
    given = dict(zip(run.model.models_needed, run.model.loaded, strict=True))
    new = registry.build("flamingo", given, **run.info["config"])
    new.prepared = run.model.prepared
    pixels, texts = two(first, new)
    inputs = new.inputs(pixels, texts)
    with torch.no_grad():
        plain = given["language"].llama(inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
        difference = float((new(**inputs) - plain).abs().max())
    new.losses({"image": pixels, "text": texts})["lm"].backward()
    closed = {n: p.grad for n, p in new.trainable().items() if not n.endswith("_gate") and p.grad is not None}
    gradient = float(torch.stack([g.abs().max() for g in closed.values()]).max())
    site = "resampler.cross.probs"
    roles = capture(run.model, run.model.inputs(pixels, texts), f"{site}[-1]", progress=False)[site]["role"]
    surplus = sum(str(r) == "latent" for r in roles.values) - run.model.config.latents
    return {
        "flamingo_difference": (difference, "largest difference of logits at zero gates"),
        "flamingo_other_gradient": (gradient, "largest gradient outside of the gates before training"),
        "resampler_keys": (surplus, f"latents are missing among {len(roles)} keys"),
    }


def of_llava(first: Mapping[str, tuple]) -> Found:
    """Its tokens and what moves in its stages; and who looks at later words, CLIP or ALBEF."""
    run = first["llava_instruct"][0]
    model, albef = run.model, first["albef"][0].model
    own, before = model.own(), dict(model.language.llama.named_parameters())
    head = next(n for n in own if n.endswith("lm_head.weight"))
    log = run.metrics.query("stage == 'project'")["lm"]
    size = max(1, len(log) // 4)
    pixels, texts = two(first, albef)
    clip, fused = later(model.vision, texts), later(albef, albef.inputs(pixels, texts))
    tokens = f"tokens of an image of {model.vision.image_size} pixels, one a patch; no resampling"
    moves = float((own[head] - before["lm_head.weight"]).detach().abs().max())
    change = float(log.tail(size).mean() - log.head(size).mean())
    return {
        "llava_tokens": (model.tokens, tokens),
        "llava_language_moves": (moves, "largest change of the language model's head"),
        "llava_projector_moves": (change, "nats: change of the loss while the projector alone trains"),
        "clip_later_attention": (clip, f"attention to later words in CLIP; {fused:.2f} in ALBEF"),
    }


def later(model, inputs) -> float:
    """Attention to later words of the first text, summed, in the last block of texts; mean over heads."""
    probs = capture(model, inputs, "text.attn.probs[-1]", progress=False)["text.attn.probs"]
    first = probs.fillna(0).isel(layer=0, sample=0).mean("head")
    return float(np.triu(first.values, 1).sum())
