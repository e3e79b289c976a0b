"""What the survey's notebooks measure inside of trained systems, on scenes whose every object and pixel is known.

pixels (image, 3, height, width): the images of a test, preprocessed.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from ... import measures
from ...capturing.capture import capture
from ...scores import captions, pointing, retrieval
from ...systems import capfilt, layers
from ...systems.flamingo import gates
from ...systems.matching import reranked
from ...systems.words import UNK, split
from ...tasks.captions import Captions
from ...tasks.shapes.composition import COLOURS

WORDS = ("size", "colour", "shape")  # kinds of word, in the order of a name
DECODINGS = {"greedy": {}, "beam": {"beams": 3}, "nucleus": {"p": 0.9}}  # ways with their options


def pointed(model, test: Captions, pixels: Tensor) -> tuple[pd.DataFrame, dict[tuple[int, str], tuple]]:
    """The pointing game for single words of captions of two objects: a row per word and object, metric "colour on own" or
    "colour on other", value and chance in percent; and by object and kind of word the maps (image, rows, columns) and
    the words' places in the captions."""
    rows, shown = [], {}
    for thing in range(2):
        masks = {
            which: [test.masks(i)[at] for i in range(len(test))]
            for which, at in (("own", thing), ("other", 1 - thing))
        }
        for k, kind in enumerate(WORDS):
            at = [k + place(text, names[thing]) for text, names in zip(test.texts, test.shows)]
            heat = word_maps(model, pixels, test.texts, at)
            shown[thing, kind] = heat, at
            for which, of in masks.items():
                value, chance = 100 * pointing.hits(heat, of), [100 * m.mean() for m in of]
                about = {"metric": f"{kind} on {which}", "sample": np.arange(len(test))}
                rows.append(pd.DataFrame({**about, "value": value, "chance": chance}))
    return pd.concat(rows, ignore_index=True), shown


def place(text: str, name: str) -> int:
    """Where the words of a name begin in a text."""
    words, own = split(text), split(name)
    return next(i for i in range(len(words)) if words[i : i + len(own)] == own)


def word_maps(model, pixels: Tensor, texts: Sequence[str], places: Sequence[int]) -> np.ndarray:
    """float64 (text, rows, columns): where the word at a place of each text looks when it is asked whether they match."""
    side = model.config.image // model.config.patch
    asked = torch.zeros(model.ids(texts)[0].shape, dtype=torch.bool)
    asked[torch.arange(len(texts)), 1 + torch.tensor(places)] = True
    look = lambda: model.match(pixels.clone(), list(texts))
    return layers.relevance(model.looking(), look, asked, (side, side)).double().numpy()


@torch.inference_mode()
def rematched(model, test: Captions, pixels: Tensor, k: int = 10) -> pd.DataFrame:
    """Whether each image finds its caption first, by cosine, and when its k best are matched again; percent."""
    texts, same = list(test.texts), np.arange(len(test))
    similarity = (model.encode_image(pixels) @ model.encode_text(texts).T).numpy()

    def match(images: np.ndarray, words: np.ndarray) -> np.ndarray:
        return capfilt.scores(model, pixels, images, [texts[i] for i in words])

    both = {"R@1 by cosine": similarity, "R@1 matched again": reranked(similarity, match, k)}
    hits = {name: retrieval.recall_at(retrieval.places(s, same, same), 1) for name, s in both.items()}
    rows = pd.DataFrame({"sample": same, **{name: 100 * hit for name, hit in hits.items()}})
    return rows.melt("sample", var_name="metric").assign(chance=100 / len(test))


@torch.inference_mode()
def decodings(captioner, test: Captions, pixels: Tensor, draws: int) -> pd.DataFrame:
    """What captions say and how they differ by the way they are decoded, nucleus sampling `draws` times: decoding, draw,
    metric, value."""
    rows = []
    for how, options in DECODINGS.items():
        for draw in range(draws if how == "nucleus" else 1):
            torch.manual_seed(draw)
            texts = captioner.generate(pixels, [""] * len(test), how=how, **options)
            sums, counts = captioner.log_likelihood(pixels, texts)
            found = {r["metric"]: r["value"] for r in captions.rows("test", test, texts)}
            found |= {f"distinct_{n}": 100 * captions.distinct(texts, n) for n in (1, 2)}
            found |= {"different": 100 * len({*texts}) / len(texts), "log_p": float((sums / counts).mean())}
            rows += [{"decoding": how, "draw": draw, "metric": m, "value": v} for m, v in found.items()]
    return pd.DataFrame(rows)


@torch.inference_mode()
def closed_gates(flamingo, pixels: Tensor, texts: Sequence[str]) -> pd.DataFrame:
    """How much the loss a word of texts rises when one gate is closed: block, gate, tanh of it, size, value in nats."""

    def loss() -> float:
        sums, counts = flamingo.log_likelihood(pixels, list(texts))
        return float(-sums.sum() / counts.sum())

    rows, whole = [], loss()
    for i, block in enumerate(flamingo.gated, 1):
        for kind, gate in gates(block).items():
            kept = gate.detach().clone()
            gate.copy_(torch.zeros_like(kept))
            rise = loss() - whole
            gate.copy_(kept)
            tanh = kept.tanh().item()
            rows.append({"block": i, "gate": kind, "tanh": tanh, "size": abs(tanh), "value": rise})
    return pd.DataFrame(rows)


def colours_on_patches(llava, test: Captions, pixels: Tensor) -> tuple[pd.DataFrame, int]:
    """The logit lens on patches of which more than half lies on an object: by block the share, in percent, whose likeliest
    colour word, read by the model's own last norm and head, is that object's; layer, value. And how many colours there
    are to guess."""
    x = capture(llava.llava, llava.inputs(pixels, list(test.texts)), "text.resid.post", progress=False)
    x = x["text.resid.post"].isel(token=slice(llava.place, llava.place + llava.tokens))
    decoder, head = llava.llava.get_decoder(), llava.llava.get_output_embeddings().weight.detach().numpy()
    read = measures.readout(decoder.norm.weight.detach().numpy(), None, eps=decoder.norm.variance_epsilon)
    known = {c: llava.words.ids(f" {c}")[0] for c in COLOURS}
    own = np.array([c for c, id in known.items() if id != UNK])
    side, found = int(llava.tokens**0.5), []
    for i in range(len(test)):
        for mask, name in zip(test.masks(i), test.shows[i]):
            share = Image.fromarray(mask.astype(np.float32)).resize((side, side), Image.Resampling.BOX)
            at = x.isel(sample=i, token=np.flatnonzero(np.asarray(share).ravel() > 0.5))
            logits = read(at.transpose("layer", "token", ...).values) @ head[[known[c] for c in own]].T
            found.append((own[logits.argmax(-1)] == name.split()[1]).astype(float))
    shares = 100 * np.concatenate(found, axis=1).mean(1)
    return pd.DataFrame({"layer": x["layer"].values.astype(int), "value": shares}), len(own)
