"""Images with texts (`Captions`), where known with what each image shows, and where."""

import dataclasses
import functools
import json

import numpy as np

from .images import Images, grouped, owners


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Captions(Images):
    """Images that each have one or several captions.

    texts: the captions; image_of: int64 (text,), the position of the image that each belongs to. shows: per
    image the names of what is in it, or None where nobody knows; masks are in its order. flaws: per text what is wrong
    with it, "" for a true one, or None where nobody knows.

    Raises ValueError when the lengths differ or an image has no caption.
    """

    texts: tuple[str, ...]
    image_of: np.ndarray
    shows: tuple[tuple[str, ...], ...] | None = None
    flaws: tuple[str, ...] | None = None

    def __post_init__(self):
        image_of = owners("caption", self.image_of, len(self.texts), len(self.ids))
        object.__setattr__(self, "image_of", image_of)
        without = np.setdiff1d(np.arange(len(self.ids)), image_of)
        if len(without):
            raise ValueError(f"image {self.ids[without[0]]!r} has no caption; leave it out or add one")
        if self.shows is not None and len(self.shows) != len(self.ids):
            raise ValueError(
                f"shows has an entry per image, got {len(self.shows)} for {len(self.ids)} images"
            )
        if self.flaws is not None and len(self.flaws) != len(self.texts):
            raise ValueError(
                f"flaws has an entry per text, got {len(self.flaws)} for {len(self.texts)} texts"
            )
        if self.mask_of is not None and self.shows is None:
            raise ValueError("masks need `shows`, the names of what they mask")

    def __repr__(self) -> str:
        return f"Captions({len(self)} images, {len(self.texts)} texts)"

    @functools.cached_property
    def texts_of(self) -> list[np.ndarray]:
        """Per image the positions of its captions in `texts`."""
        return grouped(self.image_of, len(self))

    def about(self, i: int, rng: np.random.Generator | None = None) -> dict[str, object]:
        """{"text": str}: the first caption of the image, or one drawn by `rng`."""
        mine = self.texts_of[i]
        return {"text": self.texts[mine[0] if rng is None else rng.choice(mine)]}

    def _fields_of(self, positions: np.ndarray) -> dict[str, object]:
        kept = [self.texts_of[i] for i in positions]
        order = [j for mine in kept for j in mine]
        return {
            "texts": tuple(self.texts[j] for j in order),
            "flaws": None if self.flaws is None else tuple(self.flaws[j] for j in order),
            "image_of": np.repeat(np.arange(len(kept)), [len(mine) for mine in kept]),
            "shows": None if self.shows is None else tuple(self.shows[i] for i in positions),
        }

    def _described(self) -> bytes:
        record = [self.texts, self.image_of.tolist(), self.shows]
        record += [] if self.flaws is None else [self.flaws]
        return super()._described() + json.dumps(record).encode()
