"""What the embedded models are pretrained on: drawings of the pretraining styles, augmented, with captions."""

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from . import augment, captions
from . import data as emoji

# how often a concept is drawn, beside 1 for an emoji and 2.5 for a face: flags and things are many
WEIGHTS = {"flags": 0.4, "things": 0.25}


class Sampler:
    """Batches as a function of (recipe, seed, step): pictures, captions and which of them match.

    recipe: with samples and batch, and the shares ramp, scenes and mono (see mini/clip.py).
    """

    def __init__(self, recipe, seed: int):
        self.recipe, self.seed, self.table = recipe, seed, captions.pretraining_concepts()
        self.matrix = torch.from_numpy(captions.attributes()[0])
        self.art = {s: emoji.art(s) for s in emoji.PRETRAIN_STYLES}
        drawn = [[s for s, (_, rows) in self.art.items() if h in rows.index] for h in self.table["hexcode"]]
        self.mono = [[s for s in styles if s in emoji.MONO_STYLES] for styles in drawn]
        self.colour = [[s for s in styles if s not in emoji.MONO_STYLES] for styles in drawn]
        faces = self.table["subgroup"].isin(emoji.FACES)
        weight = self.table["group"].map(WEIGHTS).fillna(1.0).where(~faces, 2.5).to_numpy() * [
            bool(s) for s in drawn
        ]
        self.weight = weight / weight.sum()
        # mirroring would change the meaning of these
        fixed = self.table["group"].isin(["symbols", "flags"]) | self.table["name"].str.contains(
            "left|right|clock|hand|o'clock"
        )
        self.flip = torch.from_numpy(~fixed.to_numpy())

    def picture(self, rng: np.random.Generator, concept: int) -> tuple[str, Tensor]:
        mono, colour = self.mono[concept], self.colour[concept]
        sketch = mono and (not colour or rng.random() < self.recipe.mono)
        style = str(rng.choice(mono if sketch else colour))
        stack, row = self.art[style]
        return style, torch.from_numpy(stack[row[self.table["hexcode"][concept]]])

    def feed(self, first: int, lines: float = 0.0) -> Iterator[dict]:
        """Batches from step `first` on; lines: see `batch`."""
        return (self.batch(step, lines) for step in itertools.count(first))

    def batch(self, step: int, lines: float = 0.0) -> dict:
        """image (batch, 3, 64, 64) in [0, 1]; text; match (text, image) bool.

        lines: share of single drawings that are reduced to their lines.
        """
        r, at = self.recipe, step * self.recipe.batch / self.recipe.samples
        rng, g = (
            np.random.default_rng([self.seed, step]),
            torch.Generator().manual_seed(self.seed * 10**6 + step),
        )
        scenes = r.batch // 6 if at >= r.scenes else 0
        chosen = rng.choice(len(self.table), r.batch + scenes, replace=False, p=self.weight)
        singles, left, right = (
            chosen[: r.batch - scenes],
            chosen[r.batch - scenes : r.batch],
            chosen[r.batch :],
        )
        strength = min(1.0, at / r.ramp)
        drawn = [self.picture(rng, c) for c in singles]
        texts, wants = zip(
            *(captions.caption(rng, c, s) for c, (s, _) in zip(singles, drawn, strict=True)), strict=True
        )
        pictures = torch.stack([p for _, p in drawn])
        if lines:
            chosen = torch.rand(len(pictures), generator=g) < lines
            pictures[chosen] = augment.line_art(g, pictures[chosen])
        images = augment.compose(g, pictures, self.flip[singles], strength)
        texts, name = list(texts), self.table["name"]
        match = torch.eye(r.batch, dtype=torch.bool)
        for i, columns in enumerate(wants):
            if columns:
                match[i, : len(singles)] |= self.matrix[singles][:, columns].all(1)
        if scenes:
            pair = [torch.stack([self.picture(rng, c)[1] for c in side]) for side in (left, right)]
            images = torch.cat([images, augment.side_by_side(g, *pair, strength)])
            order = rng.random(scenes) < 0.5
            texts += [
                captions.SCENE.format(*((name[a], name[b]) if o else (name[b], name[a])))
                for a, b, o in zip(left, right, order, strict=True)
            ]
        return {"image": images, "text": texts, "match": match}
