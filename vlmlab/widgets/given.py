"""What a user may hand an explorer, as methods and splits, with the code that makes each of them again."""

import contextlib
import dataclasses
import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from .. import image_files
from ..methods.method import Method
from ..methods.zero_shot import ZeroShot
from ..models.vlm import VLM
from ..tasks.split import Split
from ..tasks.task import Task
from ..train.run import Run, open_run

TEMPLATE = "a photo of a {}."
DEFAULTS = {"protocol": "zero_shot", "shots": None, "seed": 1, "backgrounds": 2, "root": None}
DEFAULTS |= {"make_split": False, "template": None}


@dataclasses.dataclass(frozen=True)
class Given:
    """A thing with the expression that gives it in a cell. trained: (key, seed) of the run that it is of."""

    value: object
    code: str
    trained: tuple[tuple[str, int], ...] = ()


def named(thing: object, otherwise: str) -> str:
    """The variable of the notebook that holds a thing, or another expression."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if hasattr(ipython, "get_ipython") else None
    names = [n for n, v in getattr(shell, "user_ns", {}).items() if v is thing and not n.startswith("_")]
    return names[0] if names else otherwise


def models_of(models, test: Split) -> dict[str, Given]:
    """Name -> method, of one model or at most two by name; a frozen model classifies by its texts (zero-shot).

    ValueError for anything else.
    """
    several = isinstance(models, Mapping)
    if several and not 1 <= len(models) <= 2:
        raise ValueError(
            f"an explorer shows one model or two side by side, got {len(models)}: {list(models)}"
        )
    found = {}
    for name, model in (models if several else {None: models}).items():
        given = method_of(model, test)
        if given.value.vlm.image.depth < 1 or not isinstance(given.value.vlm, VLM):
            raise ValueError(f"{name or type(model).__name__} has no image tower of blocks")
        found[str(name) if name is not None else title(given.value)] = given
    return found


def title(method: Method) -> str:
    from .. import registry
    from ..names_and_colours import label

    return label(registry.name_of(method))


def method_of(model, test: Split) -> Given:
    """A Method from a VLM, a Method, a Run or the path of a run's folder."""
    if isinstance(model, str | os.PathLike):
        model = open_run(model)
    if isinstance(model, Run):
        if model._model is None:
            model = open_run(model.path)
        return Given(model.model, f"vlmlab.open_run({str(model.path)!r}).model", trained_of(model))
    if isinstance(model, VLM):
        source = {
            k: v for k, v in (model.source or {}).items() if v is not None and (k, v) != ("precision", "fp32")
        }
        loads = ", ".join(f"{k}={v!r}" if k != "name" else repr(v) for k, v in source.items())
        code = f"vlmlab.load({loads})" if source else named(model, "vlm")
        return Given(zero_shot(model, test), f"widgets.zero_shot({code}, next(iter(tests.values())))")
    if isinstance(model, Method):
        return Given(model, named(model, "model"))
    raise ValueError(
        f"an explorer looks into a vision-language model (vlmlab.load), a method or a run (vlmlab.fit), got "
        f"{type(model).__name__}"
    )


def trained_of(run: Run) -> tuple[tuple[str, int], ...]:
    """Its (key, seed); () where its folder is gone and only what it trained is in memory."""
    try:
        info = run.info
    except (OSError, ValueError):
        return ()
    return ((info["key"], info["labels"]["seed"]),)


def zero_shot(vlm: VLM, test: Split) -> Method:
    """A frozen model as a classifier of the classes of a test."""
    return ZeroShot(vlm, list(test.classnames), test.template, ZeroShot.Config()).eval()


def tests_of(task, samples: int) -> dict[str, Given]:
    """Name -> some images of each labelled test, of a Task or a Split. ValueError where there are none."""
    some = f"widgets.some({{}}, {samples})"
    if isinstance(task, Split):
        return {"test": Given(task, f'{{"test": {some.format(named(task, "split"))}}}')}
    if not isinstance(task, Task):
        raise ValueError(f"task is a {type(task).__name__}; expected is what vlmlab.task gives, or a Split")
    tests = {name: test for name, test in task.tests.items() if isinstance(test, Split) and len(test)}
    if not tests:
        raise ValueError(f"{task.id} under {task.protocol} has no test with class labels to look at")
    arguments = {k: v for k, v in (task.arguments or {}).items() if k != "id" and DEFAULTS.get(k) != v}
    settings = "".join(f", {k}={v!r}" for k, v in arguments.items())
    source = f"vlmlab.task({task.id!r}{settings})" if task.arguments else named(task, "task")
    each = f"{{name: {some.format('test')} for name, test in {source}.tests.items()}}"
    return {name: Given(test, each) for name, test in tests.items()}


def own_images(
    pictures: str | os.PathLike | Image.Image | Sequence, names: Sequence[str], template: str = TEMPLATE
) -> Split:
    """Pictures of one's own beside class names: files, folders of them, PIL images, one or several.

        own = widgets.own_images("~/holiday", ["a beach", "a mountain", "a dog"])
        vlmlab.explore(vlmlab.load("tiny"), own)

    What class they are of is not known; each stands under the first. Raises ValueError for no pictures or no names,
    FileNotFoundError for a path that does not exist; a damaged file says so when it is read.
    """
    names = [name.strip() for name in names if name.strip()]
    if not names:
        raise ValueError("no class names were given; type at least one, or several with commas between")
    given = [pictures] if isinstance(pictures, (str, os.PathLike, Image.Image)) else list(pictures)
    held: dict[str, Path | Image.Image] = {}
    for thing in given:
        if isinstance(thing, Image.Image):
            held[getattr(thing, "filename", "") or f"picture {len(held) + 1}"] = thing
        else:
            held |= {str(path): path for path in files(Path(thing).expanduser())}
    if not held:
        raise ValueError(f"no picture was found in {', '.join(map(str, given)) or 'nothing'}")

    def read(id, rng=None):
        thing = held[id]
        return image_files.rgb(thing) if isinstance(thing, Image.Image) else image_files.read(thing)

    def content(id):
        thing = held[id]
        return hashlib.sha256(
            thing.tobytes() if isinstance(thing, Image.Image) else thing.read_bytes()
        ).digest()

    labels = np.zeros(len(held), np.int64)
    return Split(list(held), labels, tuple(names), template, read=read, content=content, provenance=OWN)


OWN = "own"  # the provenance of pictures whose class nobody said


def files(path: Path) -> list[Path]:
    """A picture file, or those in a folder in the order of their names."""
    if not path.exists():
        raise FileNotFoundError(f"there is no file or folder {path}")
    if path.is_file():
        return [path]
    return sorted(p for p in path.iterdir() if p.is_file() and image_files.is_picture(p.name))


def uploaded(value: Sequence[Mapping]) -> list[Image.Image]:
    """The pictures of an ipywidgets.FileUpload. ValueError names the file that is none."""
    import io

    found = []
    for file in value:
        try:
            picture = image_files.read(io.BytesIO(bytes(file["content"])))
        except image_files.Unreadable as e:
            raise ValueError(f"{file['name']} is not a readable picture ({e.__cause__})") from None
        with contextlib.suppress(AttributeError):
            picture.filename = file["name"]
        found.append(picture)
    return found
