"""Labelled images (`Split`) and what a task is made from (`Dataset`)."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Images with labels among `classnames`.

    ids: one string per image, which together with `read` determines it; repeated where few-shot
    sampling repeats an image. labels: int64 (n,). template: text with one {} for the class name.
    read: (id, rng or None) -> RGB image. content: id -> bytes that change when the image does.
    distributions: float32 (n, class) soft labels with rows that sum to 1, or None.
    flip: whether training may mirror the images. provenance: where the list of images comes from, for
    the real data sets "published", "changed" or "regenerated" (see coop_lists), else "".
    """

    ids: list[str]
    labels: np.ndarray
    classnames: tuple[str, ...]
    template: str
    read: Callable[[str, np.random.Generator | None], Image.Image] = dataclasses.field(repr=False)
    content: Callable[[str], bytes] = dataclasses.field(repr=False)
    distributions: np.ndarray | None = None
    flip: bool = True
    provenance: str = ""

    def __post_init__(self):
        labels = np.array(self.labels, dtype=np.int64)
        labels.setflags(write=False)
        object.__setattr__(self, "labels", labels)
        if len(self.ids) != len(labels):
            raise ValueError(f"a split has a label per image, got {len(self.ids)} ids, {len(labels)} labels")
        last = len(self.classnames) - 1
        if len(labels) and not 0 <= labels.min() <= labels.max() <= last:
            raise ValueError(f"labels must be 0 to {last}, got {labels.min()} to {labels.max()}")

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"Split({len(self)} images, {len(self.classnames)} classes, {self.template!r})"

    @property
    def prompts(self) -> list[str]:
        """One text per class; underscores in class names become spaces."""
        return [self.template.format(name.replace("_", " ")) for name in self.classnames]

    def image(self, i: int, rng: np.random.Generator | None = None) -> Image.Image:
        """Image number i as PIL RGB: always the same without `rng`, training variety with it."""
        return self.read(self.ids[i], rng)

    def about(self, i, rng=None):
        return {"label": int(self.labels[i])}

    def counts(self) -> np.ndarray:
        """Images per class, (class,)."""
        return np.bincount(self.labels, minlength=len(self.classnames))

    def select(self, positions: Sequence[int]) -> "Split":
        """The images at these positions, in this order; positions may repeat."""
        positions = np.asarray(positions, dtype=np.int64)
        soft = None if self.distributions is None else self.distributions[positions]
        return dataclasses.replace(
            self, ids=[self.ids[i] for i in positions], labels=self.labels[positions], distributions=soft
        )

    def restrict(self, classes: Sequence[int]) -> "Split":
        """Only the images of these classes, relabelled 0, 1, ... in the order given."""
        new = {c: i for i, c in enumerate(classes)}
        kept = self.select([i for i, label in enumerate(self.labels) if int(label) in new])
        return dataclasses.replace(
            kept,
            labels=np.array([new[int(x)] for x in kept.labels], dtype=np.int64),
            classnames=tuple(self.classnames[c] for c in classes),
            distributions=None,
        )

    def fingerprint(self) -> str:
        """sha256 hex over ids, labels, class names, template, provenance, soft labels and image contents."""
        head = [self.ids, self.labels.tolist(), self.classnames, self.template]
        head += [self.provenance] if self.provenance else []
        digest = hashlib.sha256(json.dumps(head).encode())
        if self.distributions is not None:
            digest.update(np.ascontiguousarray(self.distributions, dtype="<f4").tobytes())
        for id in self.ids:
            digest.update(hashlib.sha256(self.content(id)).digest())
        return digest.hexdigest()


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """All images of one data set, before a protocol chooses among them.

    train, val, test share one list of classes. whole: what zero-shot may be tested on in place of
    `test`, since it trains on nothing. shifts: name -> the same question in another look, possibly
    with class names of its own. others: id -> function that gives the test split of another data
    set, for cross-dataset transfer. repeat: few-shot sampling may repeat images (see sampling).
    """

    id: str
    train: Split
    test: Split
    val: Split | None = None
    whole: Split | None = None
    shifts: dict[str, Split] = dataclasses.field(default_factory=dict)
    others: dict[str, Callable[[], Split]] = dataclasses.field(default_factory=dict)
    protocols: tuple[str, ...] = ()
    repeat: bool = False

    def __post_init__(self):
        for part in ("train", "test"):
            split = getattr(self, part)
            for name, n in zip(split.classnames, split.counts(), strict=True):
                if n == 0:
                    raise ValueError(
                        f"class {name!r} of {self.id} has no {part} image; remove the class or add images"
                    )
        for name, split in self.shifts.items():
            if not len(split):
                raise ValueError(f"the shift {name!r} of {self.id} has no image; is data/emoji complete?")
