"""claims.toml: the sentences of a paper that can be tested.

One file per study, `notebooks/<study>/claims.toml`, one section per sentence:

    [[claim]]
    id = "new_above_unified"
    sentence = "AlignedNorm raises the accuracy on new classes."  # a paraphrase or a short quotation
    source = "Section 5.2, Table 1"                # where the paper says so
    holds = "its accuracy is above that of MMRL++" # what must be so, in words
    data = ["runs/main/balanced_accuracy", "table1"]  # the first of these that is there is read
    where = { task = "average", split = "new" }    # only these rows; a value or a list per column
    measurement = "difference"                     # see effects.py
    of = { method = "aligned_norm" }               # the rows that the sentence is about
    against = { method = "mmrlpp_unified" }        # those it compares with
    direction = "above"                            # above | below one number, within two
    threshold = 0

    value = "value"       # the column with the numbers (the default)
    over = ["task"]       # columns whose values, the units, are compared one by one, seed by seed (the default)
    units = "mean"        # what must hold: their mean (the default), or "all" of them
    magnitude = false     # true: without sign, as a root mean square over units
    gap = { split = ["new", "base"] }  # gap_change: the two selections whose difference is compared
    other_gap = { method = ["a", "b"] }  # gap_change: those within `against`, where they are not the same
    to = { method = "zero_shot" }      # closer: the rows that of and against are compared with
    by = "column"         # correlation: with what; quotient: in parts of what
    unit = "points"
    exact = false         # true: no chance plays a part (a count, a bound): one violation is enough

`data` names runs of matrices and their metric (`runs/<matrix>/<metric>`, `runs/<one>+<other>/<metric>`), an artefact of
the same profile (its `.each.csv` with the numbers one by one, else its CSV), or `published/<table>`. Numbers are by
seed; a column `concept` says what an image shows, so that test concepts are drawn anew (see resampling.py). Rows without a
column `seed` are of models that no run made anew: their error is that over concepts. A claim read from published numbers asks whether the paper's own table
says what its text says; such verdicts have kind "published" and never mix with measured ones.
"""

from pathlib import Path
from typing import Literal

from ...schema import Name, Section, Strings, Text, TomlFile, Wrong, describe, described
from .. import manifest
from .effects import MEASURES

Value = str | bool | int | float
SELECTS = "a table of columns, each with a value or a list of values"
Where = described(dict[str, Value | list[Value]], SELECTS)
Selection = described(dict[str, Value | list[Value]], f"{SELECTS}, not empty", min_length=1)
Source = described(
    str,
    "the name of an artefact, published/<table> or runs/<matrix>/<metric>",
    # a metric may have a second word, as "t2i R@5"
    pattern=r"^((published/)?[A-Za-z0-9][A-Za-z0-9_-]{0,99}|runs/[A-Za-z0-9][A-Za-z0-9_+-]{0,99}/[A-Za-z0-9][A-Za-z0-9_-]{0,99}( [A-Za-z0-9@]{1,20})?)\Z",
)
Sources = described(tuple[Source, ...], f"a list, not empty; each is {describe(Source)}", min_length=1)
Pair = described(tuple[Value, Value], "two values")
Gap = described(
    dict[str, Pair], 'one column with two values, as { split = ["new", "base"] }', min_length=1, max_length=1
)
Bound = described(float | tuple[float, float], "a number, or two in rising order")
COUNTED = ("seed", "concept")  # columns that no unit is told by


FILE = "claims.toml"


class Claim(Section, kw_only=True):
    """One [[claim]]."""

    id: Name
    sentence: Text
    source: Text
    holds: Text
    data: Sources
    where: Where = {}
    measurement: Literal[tuple(MEASURES)]
    of: Where = {}
    against: Selection = {}
    gap: Gap = {}
    other_gap: Gap = {}
    to: Selection = {}
    by: Text = ""
    value: Text = "value"
    over: Strings = ("task",)
    units: Literal["mean", "all"] = "mean"
    magnitude: bool = False
    direction: Literal["above", "below", "within"]
    threshold: Bound
    unit: str = ""
    exact: bool = False

    def __post_init__(self):
        for field in MEASURES[self.measurement][0]:
            if not getattr(self, field) and not (self.other_gap and field in ("of", "against")):
                raise Wrong(field, f"is missing; the measurement {self.measurement} needs it")
        if isinstance(self.threshold, tuple) != (self.direction == "within"):
            wanted = "two numbers" if self.direction == "within" else "one number"
            raise Wrong("threshold", f"must be {wanted} for the direction {self.direction}")
        if self.direction == "within" and not self.threshold[0] <= self.threshold[1]:
            raise Wrong("threshold", f"must be two numbers in rising order; it is {list(self.threshold)}")
        wrong = [name for name in self.over if name in (*COUNTED, self.value, self.by)]
        if wrong or len(self.over) != len({*self.over}):
            why = f"{wrong[0]!r} is no such column" if wrong else "one is there twice"
            raise Wrong("over", f"must list columns that tell units apart, each once; {why}")


def load(study: str | Path, notebooks: str | Path = "notebooks") -> list[Claim]:
    """The claims of a study. FileNotFoundError when it has none, ValueError with file, line and field."""
    return read(manifest.load(study, notebooks).path.with_name(FILE))


def read(path: Path) -> list[Claim]:
    """Those of one claims.toml."""
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no {path}; vlmlab/studies/claims/claim.py shows how one is written"
        )
    file = TomlFile(path)
    for section in file.raw:
        if section != "claim":
            file.fail(section, 0, "", "unknown; legal is [[claim]]")
    if not isinstance(file.raw.get("claim"), list):
        file.fail("claim", 0, "", "needs at least one [[claim]]")
    found = {}
    for nth, raw in enumerate(file.raw["claim"]):
        claim = file.section(Claim, "claim", nth, raw)
        if claim.id in found:
            file.fail("claim", nth, "id", f"{claim.id!r} is there twice")
        found[claim.id] = claim
    return list(found.values())
