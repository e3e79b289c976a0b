"""CapFilt (Li et al. 2022, BLIP, section 3.3): a captioner writes a caption for each image, a filter drops what does not
belong to it, be it written or found; the rest is what a new model is trained on."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from .. import feeds
from ..tasks import Captions
from .blip import Blip

BATCH = 64


def bootstrapped(
    captioner: Blip, judge: Blip, found: Captions, seed: int = 0, p: float = 0.9
) -> tuple[Captions, pd.DataFrame]:
    """The images of which a text is kept, with these texts; and a row per text judged: image (its id), source (found or
    written), text, score (the filter's logit), kept, and for found ones `flaw` where the data tells.

    Each image gets one caption by nucleus sampling with p; a text is kept where the filter says that it matches.

    >>> clean, table = capfilt.bootstrapped(captioner.model, judge.model, task.train)
    >>> run = vlmlab.fit("blip", {}, dataclasses.replace(task, train=clean))
    """
    with torch.inference_mode(), torch.random.fork_rng():
        torch.manual_seed(seed)
        batches = [b["image"] for b in feeds.in_order(found.bare(range(len(found))), captioner, BATCH)]
        written = [text for images in batches for text in captions(captioner, images, p)]
        pixels = torch.cat(batches)
        rows = rows_of(found, written)
        rows["score"] = scores(judge, pixels, rows["position"].to_numpy(copy=True), list(rows["text"]))
    rows["kept"] = rows["score"] > 0
    return kept(found, rows), rows.drop(columns="position")


def captions(captioner: Blip, images: Tensor, p: float) -> list[str]:
    captioner.eval()
    return captioner.generate(images.to(captioner.device), [""] * len(images), how="nucleus", p=p)


def scores(judge: Blip, pixels: Tensor, image_of: np.ndarray, texts: Sequence[str]) -> np.ndarray:
    """(text,) logits of whether each text belongs to its image."""
    judge.eval()
    parts = (slice(at, at + BATCH) for at in range(0, len(texts), BATCH))
    found = [judge.match(pixels[image_of[part]].to(judge.device), list(texts[part])) for part in parts]
    return torch.cat(found).double().cpu().numpy()


def rows_of(found: Captions, written: Sequence[str]) -> pd.DataFrame:
    """All texts: those found, then those written."""
    flaws = found.flaws or [None] * len(found.texts)
    first = {"position": found.image_of, "source": "found", "text": found.texts, "flaw": flaws}
    second = {"position": np.arange(len(found)), "source": "written", "text": list(written), "flaw": None}
    rows = pd.concat([pd.DataFrame(first), pd.DataFrame(second)], ignore_index=True)
    rows.insert(0, "image", [found.ids[i] for i in rows["position"]])
    return rows


def kept(found: Captions, rows: pd.DataFrame) -> Captions:
    """The images that have a text left, with what is left. ValueError where nothing is."""
    left = rows[rows["kept"]].sort_values("position", kind="stable")
    if not len(left):
        raise ValueError(f"the filter dropped all {len(rows)} texts; train it longer")
    images = np.unique(left["position"])
    fields = {f.name: getattr(found, f.name) for f in dataclasses.fields(found)}
    fields |= {"ids": [found.ids[i] for i in images], "texts": tuple(left["text"]), "flaws": None}
    fields |= {"image_of": np.searchsorted(images, left["position"])}
    fields["shows"] = None if found.shows is None else tuple(found.shows[i] for i in images)
    return Captions(**fields)
