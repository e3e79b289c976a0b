"""`Images`: what every kind of data is first of all. `Split`, `Captions` and `Questions` add what goes with them."""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
from PIL import Image


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
    """Images alone: enough to train on without labels.

    ids: one string per image, which together with `read` determines it; may repeat. read: (id, rng or None) ->
    RGB image. content: id -> bytes that change when the image does. concept: id -> what it shows, where several
    images show the same (a drawing on two grounds); by default each image its own. flip: whether training may mirror
    the images. provenance: where the list of images comes from, for the real data sets "published", "changed" or
    "regenerated" (see coop.lists), for your own "drawn" where nobody divided them, else "". mask_of: id -> bool
    (part, height, width) in the pixels of the image without training variety, or None; a kind that has masks says
    what they mask: the `shows` of Captions, the `regions` of a Split.
    """

    ids: list[str]
    read: Callable[[str, np.random.Generator | None], Image.Image] = dataclasses.field(
        kw_only=True, repr=False
    )
    content: Callable[[str], bytes] = dataclasses.field(kw_only=True, repr=False)
    concept: Callable[[str], str] = dataclasses.field(default=str, kw_only=True, repr=False)
    flip: bool = dataclasses.field(default=True, kw_only=True)
    provenance: str = dataclasses.field(default="", kw_only=True)
    mask_of: Callable[[str], np.ndarray] | None = dataclasses.field(default=None, kw_only=True, repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"Images({len(self)})"

    def image(self, i: int, rng: np.random.Generator | None = None) -> Image.Image:
        """Image number i as PIL RGB: always the same without `rng`, training variety with it."""
        return self.read(self.ids[i], rng)

    def masks(self, i: int) -> np.ndarray:
        """bool (part, height, width) of image i; ValueError where there are none."""
        if self.mask_of is None:
            raise ValueError(f"{self} has no masks")
        return self.mask_of(self.ids[i])

    def about(self, i: int, rng: np.random.Generator | None = None) -> dict[str, object]:
        """What goes with image i, by the names that batches use; of several texts `rng` draws one.

        Nothing here; {"label"} of a Split, {"text"} of Captions, {"question", "answer"} of Questions.
        """
        return {}

    def counted(self) -> tuple:
        """What a table of splits says of it: kind, images, classes, images of the smallest and largest class."""
        return (type(self).__name__, len(self), None, None, None)

    def caption(self, i: int) -> str:
        """What stands below image i where it is shown: the first text about it, or its id."""
        return next((x for x in self.about(i).values() if isinstance(x, str)), self.ids[i])

    def examples(self, count: int = 4) -> list[tuple]:
        """(PIL image, caption) of some images, spread evenly; without those that cannot be read."""
        found, count = [], min(count, len(self))
        for i in (round(k * (len(self) - 1) / max(1, count - 1)) for k in range(count)):
            with contextlib.suppress(OSError, ValueError):  # a table of a task shows what is there
                found.append((self.image(i), self.caption(i)))
        return found

    def select(self, positions: Sequence[int]) -> Self:
        """The images at these positions, in this order, with what goes with them; positions may repeat."""
        positions = np.asarray(positions, dtype=np.int64)
        return dataclasses.replace(self, ids=[self.ids[i] for i in positions], **self._fields_of(positions))

    def bare(self, positions: Sequence[int]) -> "Images":
        """The images at these positions alone, without what goes with them; positions may repeat."""
        about = {name: getattr(self, name) for name in ("read", "content", "concept", "flip", "provenance")}
        return Images([self.ids[i] for i in positions], **about)

    def fingerprint(self) -> str:
        """sha256 hex over ids, image contents and all that goes with the images."""
        digest = hashlib.sha256(self._described())
        for id in self.ids:
            digest.update(hashlib.sha256(self.content(id)).digest())
        return digest.hexdigest()

    def _fields_of(self, positions: np.ndarray) -> dict[str, object]:
        """Fields of a subclass for the images at these positions."""
        return {}

    def _described(self) -> bytes:
        """All that determines the data besides the contents of the images."""
        return json.dumps([type(self).__name__, self.ids, self.provenance]).encode()


def owners(kind: str, image_of: object, texts: int, images: int) -> np.ndarray:
    """A checked read-only int64 (text,): the position of the image that each text belongs to.

    ValueError unless there is one per text, each of them the position of an image.
    """
    image_of = np.array(image_of, dtype=np.int64)
    image_of.setflags(write=False)
    if image_of.shape != (texts,):
        raise ValueError(f"image_of has an image per {kind}, got {image_of.size} for {texts} of them")
    if texts and not 0 <= image_of.min() <= image_of.max() < images:
        raise ValueError(
            f"image_of must be 0 to {images - 1}, the positions of the images, got {image_of.min()} to "
            f"{image_of.max()}"
        )
    return image_of


def grouped(image_of: np.ndarray, images: int) -> list[np.ndarray]:
    """Per image the positions of its texts, in their order."""
    order = np.argsort(image_of, kind="stable")
    return np.split(order, np.searchsorted(image_of[order], np.arange(1, images)))
