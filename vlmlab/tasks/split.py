"""Labelled images (`Split`), their `Classes`, and what a task is made from (`Dataset`)."""

import dataclasses
import json
from collections.abc import Callable, Sequence

import numpy as np

from .images import Images


@dataclasses.dataclass(frozen=True)
class Classes:
    """What a classifier tells apart.

    names: one per class, underscores read as spaces; template: text with one {} for the name.
    """

    names: tuple[str, ...]
    template: str

    def __len__(self) -> int:
        return len(self.names)

    @property
    def prompts(self) -> list[str]:
        """One text per class."""
        return [self.template.format(name.replace("_", " ")) for name in self.names]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Split(Images):
    """Images with labels among `classnames`; an id is repeated where few-shot sampling repeats an image.

    labels: int64 (n,). template: text with one {} for the class name. distributions: float32 (n, class) soft
    labels with rows that sum to 1, or None. regions: what the masks of every image show, in their order.
    """

    labels: np.ndarray
    classnames: tuple[str, ...]
    template: str
    distributions: np.ndarray | None = None
    regions: tuple[str, ...] = dataclasses.field(default=(), kw_only=True)

    def __post_init__(self):
        labels = np.array(self.labels, dtype=np.int64)
        labels.setflags(write=False)
        object.__setattr__(self, "labels", labels)
        if len(self.ids) != len(labels):
            raise ValueError(f"a split has a label per image, got {len(self.ids)} ids, {len(labels)} labels")
        last = len(self.classnames) - 1
        if len(labels) and not 0 <= labels.min() <= labels.max() <= last:
            raise ValueError(f"labels must be 0 to {last}, got {labels.min()} to {labels.max()}")

    def __repr__(self) -> str:
        return f"Split({len(self)} images, {len(self.classnames)} classes, {self.template!r})"

    def counted(self) -> tuple:
        counts = self.counts()
        return (
            "Split",
            len(self),
            len(counts),
            int(counts.min(initial=len(self))),
            int(counts.max(initial=0)),
        )

    def caption(self, i: int) -> str:
        return self.classnames[self.labels[i]].replace("_", " ")

    @property
    def classes(self) -> Classes:
        return Classes(tuple(self.classnames), self.template)

    @property
    def prompts(self) -> list[str]:
        """One text per class; underscores in class names become spaces."""
        return self.classes.prompts

    def about(self, i: int, rng: np.random.Generator | None = None) -> dict[str, object]:
        """{"label": int} and, where there are soft labels, {"distribution": float32 (class,)}."""
        soft = {} if self.distributions is None else {"distribution": self.distributions[i].copy()}
        return {"label": int(self.labels[i]), **soft}

    def counts(self) -> np.ndarray:
        """Images per class, (class,)."""
        return np.bincount(self.labels, minlength=len(self.classnames))

    def shares(self) -> np.ndarray:
        """Images per class, (class,), where there are soft labels in shares."""
        return self.counts() if self.distributions is None else self.distributions.sum(axis=0)

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

    def _fields_of(self, positions: np.ndarray) -> dict[str, object]:
        soft = None if self.distributions is None else self.distributions[positions]
        return {"labels": self.labels[positions], "distributions": soft}

    def _described(self) -> bytes:
        head = [self.ids, self.labels.tolist(), self.classnames, self.template]
        head += [self.provenance] if self.provenance else []
        soft = self.distributions
        values = b"" if soft is None else np.ascontiguousarray(soft, dtype="<f4").tobytes()
        return json.dumps(head).encode() + values


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """All images of one data set, before a protocol chooses among them.

    train, val, test are of one kind; labelled ones share one list of classes. whole: what zero-shot may be
    tested on in place of `test`, since it trains on nothing. shifts: name -> the same question in another
    look, possibly with class names of its own. others: id -> function that gives the test split of another
    data set, for cross-dataset transfer. repeat: few-shot sampling may repeat images (see sampling).
    """

    id: str
    train: Images
    test: Images
    val: Images | None = None
    whole: Images | None = None
    shifts: dict[str, Images] = dataclasses.field(default_factory=dict)
    others: dict[str, Callable[[], Split]] = dataclasses.field(default_factory=dict)
    protocols: tuple[str, ...] = ()
    repeat: bool = False

    def __post_init__(self):
        for part in ("train", "test"):
            split = getattr(self, part)
            counted = zip(split.classnames, split.shares(), strict=True) if isinstance(split, Split) else ()
            for name, n in counted:
                if n == 0:
                    raise ValueError(
                        f"class {name!r} of {self.id} has no {part} image; remove the class or add images"
                    )
        for name, split in self.shifts.items():
            if not len(split):
                raise ValueError(f"the shift {name!r} of {self.id} has no image; is data/emoji complete?")

    def called(self, template: str) -> "Dataset":
        """The same images with another template, where they have labels; other data sets keep theirs."""

        def under(images: Images | None) -> Images | None:
            return dataclasses.replace(images, template=template) if isinstance(images, Split) else images

        parts = {name: under(getattr(self, name)) for name in ("train", "test", "val", "whole")}
        return dataclasses.replace(self, **parts, shifts={name: under(s) for name, s in self.shifts.items()})
