"""What every layer reads as, and what contrasting the last one with it does: of words that a language model is about to
write, and of candidates of a dual tower. The right word or candidates are known at every position.

Arrays have the dims (layer, position); layers count from 0, what enters block 1.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from ... import decode
from ...models.huggingface import LanguageModel, side_by_side
from ...tasks.captions import Captions
from ...tasks.shapes.composition import COLOURS, SHAPES, SIZES
from ...tasks.shapes.texts import NUMBERS
from .pair import OBJECTS, Pair, Scenes, candidates

KINDS = {
    "colour": COLOURS,
    "shape": SHAPES,
    "number": NUMBERS,
    "size": SIZES,
}  # of a word, first letters suffice
Right = Callable[[Tensor], Tensor]  # (..., position) chosen words -> whether each is right


def numbers(logits: Tensor, right: Right, alpha: float = 0.1) -> xr.Dataset:
    """Of (layer, position, word) logits, the last layer being the final one, for each layer below it:

    read: whether its likeliest word is right; contrasted: the same of its contrast with the final layer; changed:
    whether that differs from the final choice; entropy: of its distribution, nats; divergence: Jensen-Shannon, from the final
    one, nats. Without layer: final, whether the final choice is right; final_entropy; kept: how many words APC leaves.
    """
    final = logits[-1]
    log_p = decode.contrast(final, logits[:-1], alpha)
    choice, own = log_p.argmax(-1), final.argmax(-1)
    layered = {
        "read": right(logits[:-1].argmax(-1)),
        "contrasted": right(choice),
        "changed": choice != own,
        "entropy": entropy(logits[:-1]),
        "divergence": decode.jensen_shannon(final, logits[:-1]),
    }
    flat = {
        "final": right(own),
        "final_entropy": entropy(final),
        "kept": decode.plausible(final, alpha).sum(-1),
    }
    to = lambda x: x.double().cpu().numpy()
    return xr.Dataset(
        {k: (("layer", "position"), to(v)) for k, v in layered.items()}
        | {k: (("position",), to(v)) for k, v in flat.items()},
        {"layer": np.arange(len(logits) - 1)},
    )


def entropy(logits: Tensor) -> Tensor:
    """(...,) of the softmax over words, nats."""
    log_p = logits.float().log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


def strengths(logits: Tensor, right: Right, alphas: Sequence[float]) -> xr.DataArray:
    """(alpha, layer): share of positions at which the contrast of the final layer with each earlier one is right, percent."""
    ratio = decode.contrast(logits[-1], logits[:-1], 0)  # up to a constant, which chooses nothing
    cut = [~decode.plausible(logits[-1], a) for a in alphas]
    rows = [right(ratio.masked_fill(c, -torch.inf).argmax(-1)).double().mean(-1) for c in cut]
    shares = 100 * torch.stack(rows).cpu().numpy()
    return xr.DataArray(
        shares, {"alpha": list(alphas), "layer": np.arange(len(logits) - 1)}, ("alpha", "layer")
    )


# ----------------------------------------------------------------------------- positions


def captions(
    pair: Pair, found: Captions, images: Sequence, readout: str = "normed", size: int = 16
) -> Iterable[tuple]:
    """(logits (layer, position, word), about) for every `size` scenes: the model reads image, question and the true caption,
    and about has a row for each of its words: concept (the scene), step, id, word, kind (colour, shape, number, size, other).
    """
    layers = range(pair.depths[0] + 1)
    for start in range(0, len(images), size):
        at = range(start, min(start + size, len(images)))
        before = [{k: v for k, v in pair.inputs([images[i]]).items()} for i in at]
        own = [pair.model.words(found.texts[i]) for i in at]
        batch = side_by_side(before, own)
        logits = decode.layer_logits(pair.model, batch, layers, readout, last=False)
        begins = before[0]["input_ids"].shape[1]
        if logits.shape[2] != batch["input_ids"].shape[1]:
            raise ValueError(
                f"{pair.model.name} reads {logits.shape[2]} positions of {batch['input_ids'].shape[1]} tokens; its image "
                "has no tokens of its own in input_ids, and where a caption begins cannot be told"
            )
        rows, kept = [], []
        for row, ids in enumerate(own):
            kept.append(logits[:, row, begins - 1 : begins - 1 + len(ids)])
            words = pair.model.tokenizer.batch_decode(ids[:, None])
            rows += [(found.ids[at[row]], step, int(i), w) for step, (i, w) in enumerate(zip(ids, words))]
        about = pd.DataFrame(rows, columns=["concept", "step", "id", "word"])
        yield torch.cat(kept, dim=1), about.assign(kind=[kind(w) for w in about["word"]])


def kind(word: str) -> str:
    """What a token of a caption begins to say."""
    word = word.strip().lower()
    return next((k for k, names in KINDS.items() if word.rstrip("s") in names or word in names), "other")


def prompts(
    model: LanguageModel, table: pd.DataFrame, readout: str = "normed", size: int = 8
) -> Iterable[tuple]:
    """(logits (layer, position, word), about) for every `size` prompts of a table (prompt, answer, kind), a position each:
    what stands behind the prompt. about has its rows with concept, the prompt, id, the first token of the answer behind a
    space, and step, 0.

    Prompts run side by side with others of as many tokens, so that none is padded.
    """
    tokenizer = model.tokenizer
    ids = [tokenizer(text)["input_ids"] for text in table["prompt"]]
    answers = [tokenizer(f" {text}", add_special_tokens=False)["input_ids"][0] for text in table["answer"]]
    table = table.assign(id=answers, length=[len(x) for x in ids], ids=ids, concept=table["prompt"], step=0)
    for _, group in table.groupby("length", sort=True):
        for start in range(0, len(group), size):
            some = group.iloc[start : start + size]
            tokens = torch.tensor(some["ids"].tolist(), device=model.device)
            batch = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
            layers = range(len(model.language) + 1)
            logits = decode.layer_logits(model, batch, layers, readout)
            yield logits, some.drop(columns=["ids", "length"]).reset_index(drop=True)


def of_words(batches: Iterable[tuple], alpha: float = 0.1) -> xr.Dataset:
    """`numbers` of batches of (logits, about), one position after the other, with about's columns as coordinates."""
    parts = []
    for logits, about in batches:
        part = numbers(logits, is_id(about, logits), alpha)
        parts.append(part.assign_coords({c: ("position", about[c].to_numpy()) for c in about}))
    return xr.concat(parts, "position")


def is_id(about: pd.DataFrame, logits: Tensor) -> Right:
    """Whether chosen words are the true ones, `id` of about."""
    ids = torch.tensor(about["id"].tolist(), device=logits.device)
    return lambda chosen: chosen == ids


def of_candidates(of: Scenes, alpha: float = 0.1) -> xr.Dataset:
    """`numbers` of the dual tower, a position a scene: an object is right when the scene has it."""
    shown = torch.tensor([[name in " ".join(names) for name in OBJECTS] for names in of.found.shows])
    shown = shown.to(of.seen.device)
    right = lambda chosen: shown.expand(*chosen.shape, -1).gather(-1, chosen[..., None])[..., 0]
    return numbers(of.seen, right, alpha).assign_coords(concept=("position", np.array(of.found.ids)))


def kept(batches: Iterable[tuple], alphas: Sequence[float]) -> pd.DataFrame:
    """How many words APC leaves at each position, by threshold: rows concept, step, kind, alpha, value."""
    rows = []
    for logits, about in batches:
        for alpha in alphas:
            left = decode.plausible(logits[-1], alpha).sum(-1).cpu().numpy()
            rows.append(about[["concept", "step", "kind"]].assign(alpha=alpha, value=left))
    return pd.concat(rows, ignore_index=True)


def biases(pair: Pair, of: Scenes, dola: decode.Dola, count: int) -> pd.DataFrame:
    """What the fusion adds, before lambda, to the words that begin a candidate, where the caption of each of `count` scenes
    names its first colour: rows concept, word, value (nats), kept (whether APC leaves the word)."""
    tokens = decode.candidate_tokens(pair.model.tokenizer, OBJECTS)
    found = candidates(of.seen[:, :count], dola)
    fusion = decode.Fusion(tokens, found.log_p.exp(), top=dola.top_candidates)
    some, rows = of.found.select(range(count)), []
    logits, about = next(iter(captions(pair, some, of.images[:count], size=count)))
    first = about[about["kind"] == "colour"].drop_duplicates("concept").index
    bias = fusion.bias(torch.zeros(count, 0, dtype=torch.long), logits.shape[-1])
    left = decode.plausible(logits[-1, first], dola.apc_threshold).cpu()
    for row in range(len(first)):
        for token in bias[row].nonzero()[:, 0].tolist():
            about_word = some.ids[row], pair.model.tokenizer.decode([token]).strip()
            rows.append((*about_word, float(bias[row, token]), bool(left[row, token])))
    return pd.DataFrame(rows, columns=["concept", "word", "value", "kept"])


def left_at(cosines: Tensor, scales: Sequence[float], alpha: float = 0.1) -> pd.DataFrame:
    """How many candidates APC leaves when cosines (image, candidate) are scaled by exp(t): rows scale, value (mean)."""
    left = [decode.plausible(scale * cosines, alpha).sum(-1).double().mean().item() for scale in scales]
    return pd.DataFrame({"scale": list(scales), "value": left})


def curves(found: xr.Dataset, tower: str, domain: str, names: Sequence[str]) -> pd.DataFrame:
    """Rows tower, task, layer, concept, metric, value: means over the positions of a concept, shares in percent."""
    parts = []
    for name in names:
        by = found[name].groupby("concept").mean()
        scale = 100 if name in ("read", "contrasted", "changed", "final") else 1
        frame = (scale * by).rename("value").to_dataframe().reset_index()
        frame = frame if "layer" in frame else frame.assign(layer=found.sizes["layer"])  # the last one
        parts.append(frame[["layer", "concept", "value"]].assign(metric=name, tower=tower, task=domain))
    return pd.concat(parts, ignore_index=True)
