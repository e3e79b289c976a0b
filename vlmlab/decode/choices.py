"""Which layers and strengths to decode with: tried on validation samples, kept by domain in a small file."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import pandas as pd

from ..files import read_json, write_json
from ..nearest import hint
from ..progress import bar
from ..schema import Count, Section, Text, Wrong, convert
from .settings import PLAN, Dola, scaled

Score = Callable[[Dola, object], float]


class Choices(Section):
    """The settings to decode each domain with. blocks: of the language model that they were chosen for."""

    blocks: Count
    domains: Annotated[
        dict[Text, Dola], msgspec.Meta(min_length=1, description="a table of settings, one a domain")
    ]

    def of(self, domain: str | None = None) -> Dola:
        """The settings of a domain; without a name, of the only one. ValueError lists the domains."""
        if domain is None and len(self.domains) == 1:
            return next(iter(self.domains.values()))
        if domain not in self.domains:
            said = (
                "no domain is named"
                if domain is None
                else f"there is no domain {domain!r}{hint(domain, self.domains)}"
            )
            raise ValueError(f"{said}; the choices are for {', '.join(self.domains)} (domain=)")
        return self.domains[domain]

    def check_depth(self, depth: int) -> None:
        """ValueError for a language model of another depth than the choices were made for."""
        if depth != self.blocks:
            raise ValueError(
                f"the choices were made for a model of {self.blocks} blocks, and this one has {depth}"
            )

    def save(self, path: str | Path) -> None:
        """Write them as JSON."""
        write_json(Path(path), msgspec.to_builtins(self))

    @classmethod
    def load(cls, path: str | Path) -> "Choices":
        """Read what `save` wrote. FileNotFoundError; ValueError names the file and the field."""
        path = Path(path).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"there is no file of choices {path}; decode.choose(...) makes one")
        try:
            return convert(read_json(path), cls)
        except Wrong as error:
            raise ValueError(f"{path}, {error.field or 'the whole'}: {error}") from error


def choose(
    score: Score,
    domains: Mapping[str, object],
    grid: Mapping[str, Sequence],
    blocks: int,
    base: Dola = PLAN,
) -> tuple[Choices, pd.DataFrame]:
    """Try all combinations of a grid on the validation samples of each domain; keep the best for each.

    score(dola, samples): how good the settings are, higher is better. domains: name -> samples, whatever `score` takes.
    grid: field of `Dola` -> values. blocks: depth of the language model. base: the other settings.
    Returns the choices and a table, one row for each domain and combination: domain, the fields, score, chosen. Of
    equal scores the first in the grid's order is kept. Raises ValueError for a field or value that is not legal,
    before anything is tried, and for a score that is not a finite number.

    >>> grid = {
    ...     "contrast_layer": [22, 24, 26],
    ...     "apc_threshold": [0.05, 0.1, 0.2],
    ...     "fusion_strength": [0, 0.7],
    ... }
    >>> chosen, table = decode.choose(score, {"animals": val}, grid, blocks=30)
    >>> chosen.save("choices.json")
    """
    tried = combinations(grid, blocks, base)
    if not domains:
        raise ValueError("no domain is given; domains is {name: validation samples}")
    rows = []
    for (name, samples), (fields, dola) in bar(
        list(itertools.product(domains.items(), tried)), desc="settings", delay=2.0
    ):
        value = float(score(dola, samples))
        if not math.isfinite(value):
            raise ValueError(
                f"the score of {fields} in {name!r} is {value}; every score must be a finite number"
            )
        rows.append({"domain": name, **fields, "score": value})
    table = pd.DataFrame(rows)
    best = table.groupby("domain", sort=False)["score"].idxmax()
    chosen = {name: tried[best[name] % len(tried)][1] for name in domains}
    return Choices(blocks=blocks, domains=chosen), table.assign(chosen=table.index.isin(best))


def usual_grid(blocks: int, image_blocks: int) -> dict[str, list]:
    """The plan's own grid for `choose`: layers 22, 24, 26 of 30 and 16, 18, 20, 22 of 24 at the same share of other
    depths, its thresholds of the language tower, and strengths from 0 to 1."""
    return {
        "contrast_layer": sorted({scaled(layer, 30, blocks) for layer in (22, 24, 26)}),
        "image_contrast_layer": sorted({scaled(layer, 24, image_blocks) for layer in (16, 18, 20, 22)}),
        "apc_threshold": [0.05, 0.1, 0.2],
        "fusion_strength": [0.0, 0.35, 0.7, 1.0],
    }


def combinations(grid: Mapping[str, Sequence], blocks: int, base: Dola) -> list[tuple[dict, Dola]]:
    """(fields, settings) of all combinations. ValueError for an unknown field, no values, or a value that is not legal."""
    legal = [field.name for field in msgspec.structs.fields(Dola)]
    if unknown := [name for name in grid if name not in legal]:
        raise ValueError(
            f"the grid names {unknown[0]!r}{hint(unknown[0], legal)}; fields are {', '.join(legal)}"
        )
    if empty := [name for name, values in grid.items() if not len(values)]:
        raise ValueError(f"the grid has no values for {empty[0]!r}")
    found = [dict(zip(grid, values)) for values in itertools.product(*grid.values())]
    tried = [(fields, Dola(**msgspec.structs.asdict(base) | fields)) for fields in found]  # checked anew
    for _, dola in tried:
        dola.language_layers(blocks)
    return tried
