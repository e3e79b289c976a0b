"""gallery.toml: what the gallery says about a study before its figures.

One file per study, `notebooks/<study>/gallery.toml`; it, and each of its fields, may be left out:

    abstract = "What the paper claims, what was done here."   # Markdown
    reference = ["mmrlpp_unified", "zero_shot"]   # tables say what methods gain over the first of these they hold

    [words]                                       # what a reader must know; Markdown
    HM = "harmonic mean of base and new accuracy"

Names of methods that `names_and_colours.py` does not know are printed as `data/published/<study>/methods.csv` says.
"""

import csv
from pathlib import Path

from ...names_and_colours import label
from ...paths import data_dir
from ...schema import Section, Strings, TomlFile, described
from ..manifest import Study

PRINTED = {"mean_of_hm": "mean of HMs", "delta": "gain"}  # what tables call their rows and columns


class About(Section):
    """gallery.toml"""

    abstract: str = ""
    reference: Strings = ()
    words: described(dict[str, str], "a table of texts") = {}


def about(study: Study) -> About:
    """What a study's gallery.toml says; nothing where there is none. ValueError names a wrong field."""
    path = study.path.with_name("gallery.toml")
    if not path.is_file():
        return About()
    file = TomlFile(path)
    return file.section(About, "gallery", 0, file.raw)


class Names:
    """Printed names of one study: `names(id)`. legend: id -> what a short one stands for."""

    def __init__(self, study: str, data: Path | None = None):
        path = (data or data_dir()) / "published" / study / "methods.csv"
        stated = {}
        if path.is_file():
            with path.open(encoding="utf-8", newline="") as file:
                stated = {row["id"]: row["name"] for row in csv.DictReader(file)}
        self.own, self.legend = stated | PRINTED, {id: stated[id] for id in PRINTED if id in stated}

    def __call__(self, name: str) -> str:
        printed = label(name)
        return self.own.get(name, printed) if printed == name else printed
