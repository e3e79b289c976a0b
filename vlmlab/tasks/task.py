"""`task(id, protocol=...)`: data ready to train and test on."""

import dataclasses
import hashlib
import json
import operator
import os
from pathlib import Path

from ..display import Panel, Shown, pictures, some, table
from ..nearest import near
from .captioned import tasks as captioned
from .coop import tasks as coop
from .emoji import paired, stamps
from .emoji import tasks as emoji
from .faces import tasks as faces
from .images import Images
from .own import tasks as own
from .protocols import PROTOCOLS, SUMMARIES
from .shapes import tasks as shapes
from .split import Classes, Split


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Task(Shown):
    """What a protocol made of a data set.

    train: what may be learnt from (empty for zero_shot), of any kind: `Split`, `Captions`, `Questions`, or `Images`
    without labels; val: None where the data has none; tests: name -> images of any kind, where a split's class
    names may be its own. arguments: keywords of `task` that make it again, None for a task made by hand. All
    embedded tasks have unequal classes: report balanced accuracy next to accuracy.
    """

    id: str
    protocol: str
    shots: int | None
    seed: int
    template: str
    train: Images
    val: Images | None
    tests: dict[str, Images]
    arguments: dict[str, object] | None = None

    def panel(self) -> Panel:
        parts = {"train": self.train, "val": self.val, **self.tests}
        there = {name: part for name, part in parts.items() if part is not None and len(part)}
        facts = {
            "template": self.template,
            "classes": f"{len(self.classes):,}: {some(self.classes.names)}" if self.classes else "none",
            "lists": ", ".join(f"{name} {kind}" for name, kind in self.provenance.items()),
        }
        shots = f", shots {self.shots}" if self.shots else ""
        sizes = ", ".join(f"{name} {len(part):,}" for name, part in there.items())
        line = f"{self.id}, {self.protocol}{shots}, seed {self.seed}: {sizes}"
        return Panel("Task", line, facts, lambda: self.looked_at(there))

    def looked_at(self, parts: dict[str, Images]) -> tuple[str, str]:
        """A table of the splits and four images of the first, as HTML."""
        columns = ("split", "kind", "images", "classes", "fewest of a class", "most")
        rows = [(name, *part.counted()) for name, part in parts.items()]
        first = next(iter(parts.values()), self.train)
        return table(columns, rows), pictures(first.examples())

    @property
    def classes(self) -> Classes | None:
        """The classes trained on; without training images those of the first test that has some, else None."""
        trained = self.train if len(self.train) else None
        parts = (part for part in (trained, *self.tests.values()) if isinstance(part, Split))
        return next((Classes(tuple(part.classnames), self.template) for part in parts), None)

    @property
    def base(self) -> Images:
        """Test images of the base classes (protocol base_to_new)."""
        return self._test("base")

    @property
    def new(self) -> Images:
        """Test images of the new classes (protocol base_to_new)."""
        return self._test("new")

    def _test(self, name: str) -> Images:
        if name not in self.tests:
            raise AttributeError(
                f"{self.id} under {self.protocol} has no {name!r} test; its tests are {', '.join(self.tests)}"
            )
        return self.tests[name]

    @property
    def provenance(self) -> dict[str, str]:
        """Of train and each test that is not embedded: "published", "changed", "regenerated" or "drawn" lists."""
        parts = {"train": self.train, **self.tests}
        return {name: split.provenance for name, split in parts.items() if split.provenance}

    def fingerprint(self) -> str:
        """sha256 hex over everything that determines the data: settings, ids, labels, names, image bytes.

        Of images that are files, as in the real data sets, their sizes stand for the bytes.
        """
        parts = {"train": self.train, "val": self.val, **{f"tests.{k}": v for k, v in self.tests.items()}}
        record = {
            "id": self.id,
            "protocol": self.protocol,
            "shots": self.shots,
            "seed": self.seed,
            "template": self.template,
            "parts": {k: v.fingerprint() for k, v in parts.items() if v is not None},
        }
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()

    def training_fingerprint(self) -> str:
        """sha256 hex over what shapes weights: train and val, template and class names; not the tests."""
        classes = self.classes
        record = {
            "train": self.train.fingerprint(),
            "flip": self.train.flip,
            "val": None if self.val is None else self.val.fingerprint(),
            "template": self.template,
            "classes": None if classes is None else classes.names,
        }
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()

    def test_fingerprints(self) -> dict[str, str]:
        """Test -> sha256 hex over its data."""
        return {name: test.fingerprint() for name, test in self.tests.items()}

    def summary(self, rows: list[dict]) -> list[dict]:
        """Rows of what the protocol sums up, from the rows (split, metric, value, n) of its tests by one rule."""
        return [row for each in SUMMARIES.get(self.protocol, ()) for row in each.rows(rows)]


def names() -> list[str]:
    """Ids that `task` knows."""
    rooms = (emoji, faces, paired, shapes, coop, captioned)
    return [name for room in rooms for name in room.names()]


def task(
    id: str,
    *,
    protocol: str = "zero_shot",
    shots: int | None = None,
    seed: int = 1,
    backgrounds: int = 2,
    root: str | Path | None = None,
    make_split: bool = False,
    template: str | None = None,
) -> Task:
    """Build a task.

    >>> task("emoji/food", protocol="base_to_new", shots=16)
    >>> task("folder:~/trees", protocol="few_shot", shots=16, template="a photo of a {}, a type of tree.")
    >>> task("table:captions.csv", protocol="retrieval")

    id: one of `names()`, or data of your own. protocol: zero_shot, few_shot, base_to_new, cross_dataset, domain_shift,
    label_distribution, retrieval or vqa. shots: training images per class, None for all. seed chooses the shots.

    Embedded tasks (emoji/...): a class with fewer images than shots is filled up by repeating them, which
    differ by augmentation, as far as `sampling.few_shot` allows. backgrounds: how many fixed grounds each
    test image is shown on, the first white. Those of images and texts (emoji/captions, emoji/scenes) take neither:
    they have all pairs, each test image once; so have the generated ones (shapes/...).

    Generated faces (faces/emotions; -500 with fewer to test) have exact soft labels, and masks of their regions (`Split.masks`).

    Real data sets (caltech101, imagenet, ...): root is the folder that holds them as CoOp lays them out,
    $VLMLAB_DATASETS by default; a class with fewer images than shots gives all it has. make_split: where
    CoOp's split file is missing, draw a split by its rule; `Task.provenance` tells. Those of images and texts (coco,
    coco-1k, flickr30k, cc3m, vqav2) lie below the same root as they are downloaded (tasks/captioned).

    Your own images: "folder:PATH", a folder per class, also below train, val and test folders; "table:FILE", a CSV
    or parquet of path, label (or text, or a column of shares per class) and split, or a split file as CoOp's. Paths
    may begin with ~ or with `root` (the working folder). template: text with one {} for the class name, in place of
    the data's own. What is wrong with them is said here; `vlmlab data describe PATH` says all of it.

    Raises ValueError for an unknown id or protocol, one that the data cannot serve, or too many shots;
    FileNotFoundError when the data is missing.

    >>> task = vlmlab.task("emoji/animals", protocol="base_to_new", shots=16, seed=1)
    >>> task.new.classnames  # of the test images of new classes
    >>> vlmlab.task("dtd", protocol="few_shot", shots=4, root="/data")
    """
    if not own.is_own(id) and id not in names():
        raise ValueError(unknown(id))
    if protocol not in PROTOCOLS:
        raise ValueError(f"unknown protocol {protocol!r}; there are {', '.join(PROTOCOLS)}")
    seed, backgrounds = whole("seed", seed, 0), whole("backgrounds", backgrounds, 1)
    shots = None if shots is None else whole("shots", shots, 1)
    if template is not None:
        check_template(template)
    data = data_of(id, protocol, backgrounds, root, make_split)
    if protocol not in data.protocols:
        raise ValueError(f"{id} has no protocol {protocol}; it has {', '.join(data.protocols)}")
    if template is not None:
        data = data.called(template)
    train, val, tests = PROTOCOLS[protocol](data, shots, seed)
    arguments = {
        "id": id,
        "protocol": protocol,
        "shots": shots,
        "seed": seed,
        "backgrounds": backgrounds,
        "root": str(own.start(root)) if root is not None or own.is_own(id) else None,
        "make_split": make_split,
        "template": template,
    }
    template = train.template if isinstance(train, Split) else "{}"
    return Task(id, protocol, shots, seed, template, train, val, tests, arguments)


def data_of(id: str, protocol: str, backgrounds: int, root: str | Path | None, make_split: bool):
    """What the room of an id has; the arguments are those of `task`."""
    if own.is_own(id):
        return own.dataset(id, root, protocol)
    rooms = {
        coop: lambda: coop.dataset(id, coop.root_folder(root), protocol, make_split),
        paired: lambda: paired.dataset(id, protocol),
        faces: lambda: faces.dataset(id, backgrounds),
        captioned: lambda: captioned.dataset(id, coop.root_folder(root), protocol),
        shapes: lambda: shapes.dataset(id, protocol),
        emoji: lambda: emoji.dataset(id, backgrounds),
    }
    return next(made() for room, made in rooms.items() if id in room.names())


def unknown(id: object) -> str:
    """What to say of an id that is none: the nearest one, how to name data of one's own, and all there are."""
    text = str(id)
    if text in stamps.ALL:
        return stamps.missing(text)
    if text and os.path.exists(there := os.path.expanduser(text)):
        kind = "folder" if os.path.isdir(there) else "table"
        return f"unknown task {id!r}; to use your own images in it, write {kind}:{text}"
    world, _, wanted = text.rpartition("/")
    alike = [name for name in names() if name.rpartition("/")[0] == world] or names()
    # by the last part, since "emoji/" alone makes ids alike; of two the first
    known = {name.rpartition("/")[2]: name for name in reversed(alike)}
    found = near(wanted, known, alike=0.7)
    meant = f"; did you mean {known[found[0]]}?" if found else ""
    return f"unknown task {id!r}{meant}; there are {', '.join(names())}; your own images are folder:PATH or table:FILE"


def check_template(template: object) -> None:
    """ValueError unless a template is text with exactly one {}."""
    if (
        not isinstance(template, str)
        or template.count("{}") != 1
        or template.count("{") + template.count("}") != 2
    ):
        raise ValueError(
            f"template must be a text with exactly one {{}} for the class name, got {template!r}"
        )


def whole(name: str, value: object, least: int) -> int:
    """A whole number, also one of NumPy's; ValueError for anything else, booleans too."""
    try:
        found = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        found = least - 1
    if found < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return found
