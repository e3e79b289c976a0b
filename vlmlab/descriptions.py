"""Sentences about classes, `{class name: [sentences]}`: the JSON layout of LaFTer, HiCroPL and CuPL.

Those that come with vlmlab are in `data/descriptions/`, one file for the classes of the embedded tasks of that name.
"""

import json
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from .files import nearby
from .nearest import hint, near
from .paths import data_dir, how_to_restore

SHOWN = 3  # names in an error


def read(source: str | Path, classnames: Sequence[str], *, others: bool = False) -> dict[str, list[str]]:
    """The sentences of these classes, by the class names as given, in their order.

    source: a JSON file `{class name: [sentences]}`, or a name of `names()`, also as the id of an embedded task
    ("emoji/animals"). others: the file may describe further classes, as a method needs that learns half of them;
    what comes with vlmlab always may. Underscores in names are read as spaces, as everywhere; nothing else is
    guessed: another spelling is an error that names both. A class name that stands for several classes, as two do in
    ImageNet, gives them the same sentences and a warning.

    Raises FileNotFoundError where nothing is, ValueError for another layout, for classes without sentences and for
    sentences of other classes.

    >>> read("emoji/emotions", ["happy", "sad"])["sad"]
    >>> read("descriptions/dtd.json", task.train.classnames)
    """
    path = find(source)
    table = sentences(path)
    wanted = {name: spaced(name) for name in classnames}
    spelt_twice(path, classnames)
    missing = [key for key in wanted.values() if key not in table]
    spare = [key for key in table if key not in set(wanted.values())]
    told = ""
    if missing:
        told = f"has no sentences for {counted(missing)}: {shown(missing, spare)}"
    elif spare and not others and path.parent != folder():
        told = f"describes {counted(spare)} more than those asked for: {shown(spare, ())}"
    if told:
        raise ValueError(f"{path} {told}; its keys are class names, rename them or leave them out")
    return {name: list(table[key]) for name, key in wanted.items()}


def names() -> list[str]:
    """The descriptions that come with vlmlab."""
    return sorted(path.stem for path in folder().glob("*.json"))


def find(source: str | Path) -> Path:
    """The file that a path or one of `names()` stands for; FileNotFoundError says what is nearly called so."""
    path = Path(source).expanduser()
    if path.is_file():
        return path
    if path.suffix == ".json":
        raise FileNotFoundError(f"there are no descriptions at {path}{nearby(path.absolute())}")
    known = names()
    if not known:
        raise FileNotFoundError(f"{folder()} has no descriptions; {how_to_restore()}")
    if path.name not in known:
        raise FileNotFoundError(
            f"there are no descriptions {str(source)!r}{hint(path.name, known)}; name a JSON file, or one of "
            f"{', '.join(known)}"
        )
    return folder() / f"{path.name}.json"


def folder() -> Path:
    return data_dir() / "descriptions"


def sentences(path: Path) -> dict[str, list[str]]:
    """All of a file, keys with underscores as spaces. ValueError for another layout, and for a key that occurs twice."""
    try:
        pairs = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=list)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON in UTF-8 ({error})") from error
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs) or not pairs:
        raise ValueError(f"{path} holds no {{class name: [sentences]}}; that is the layout of descriptions")
    for name, texts in pairs:
        listed = isinstance(texts, list) and texts and all(isinstance(t, str) and t.strip() for t in texts)
        if not listed:
            raise ValueError(
                f"{path} holds no list of sentences for {name!r}, but {str(texts)[:60]!r}; "
                "expected {class name: [sentences]}, each sentence a text that is not empty"
            )
    keys = Counter(spaced(name) for name, _ in pairs)
    if twice := [key for key, n in keys.items() if n > 1]:
        raise ValueError(f"{path} has {counted(twice)} twice: {shown(twice, ())}; join their sentences")
    return {spaced(name): [text.strip() for text in texts] for name, texts in pairs}


def spaced(name: str) -> str:
    return name.replace("_", " ").strip()


def spelt_twice(path: Path, classnames: Sequence[str]) -> None:
    """Warn of names that several classes share."""
    if shared := [name for name, n in Counter(map(spaced, classnames)).items() if n > 1]:
        warnings.warn(
            f"{path}: {counted(shared)} share a name ({shown(shared, ())}) and get the same sentences",
            stacklevel=3,
        )


def counted(names: Sequence[str]) -> str:
    return f"{len(names):,} class{'es' if len(names) > 1 else ''}"


def shown(names: Sequence[str], there: Iterable[str]) -> str:
    """The first of these names, each with the one that may be meant: the same words in another order, or nearly it."""
    there = list(there)
    words = {tuple(sorted(name.casefold().split())): name for name in there}
    said = []
    for name in names[:SHOWN]:
        meant = words.get(tuple(sorted(name.casefold().split()))) or next(
            iter(near(name, there, 1, 0.7)), None
        )
        said.append(f"{name!r}" + (f" (did you mean {meant!r}?)" if meant else ""))
    return ", ".join(said) + (" ..." if len(names) > SHOWN else "")
