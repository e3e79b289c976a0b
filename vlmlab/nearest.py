"""What somebody may have meant by a name that is not there."""

import difflib
from collections.abc import Iterable


def plain(name: object) -> str:
    """A name by its letters: case, hyphens and spaces tell nothing apart."""
    return str(name).strip().casefold().replace("-", "_").replace(" ", "_")


def near(name: object, there: Iterable[str], most: int = 3, alike: float = 0.6) -> list[str]:
    """The names most like one that is not there, nearest first; alike: from 0 (anything) to 1 (the same)."""
    names = {plain(x): x for x in there}
    return [names[x] for x in difflib.get_close_matches(plain(name), names, most, alike)]


def hint(name: object, there: Iterable[str], alike: float = 0.6) -> str:
    """ "; did you mean x?" of the nearest name, or ""."""
    return f"; did you mean {found[0]}?" if (found := near(name, there, 1, alike)) else ""
