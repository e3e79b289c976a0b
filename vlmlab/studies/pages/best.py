"""Which numbers of a table are best and second best, where the runs can tell.

Within one row of methods, the best is marked when its 95 % interval over seeds of the difference to every other measured
method, paired by seed, lies on the better side of 0. The second is marked when the best is and the same holds for it and
all below, among three methods or more. One seed tells nothing, and neither do published and planned numbers, which have
no seeds.
"""

from collections.abc import Iterable

from ..resampling import named
from .intervals import over_seeds


def marks(tidy, each, rows: list[str], columns: list[str], lower: Iterable[str] = ()) -> list[str]:
    """'best', 'second' or '' for each line of a tidy table.

    each: the numbers one by one, as `by_seed.per_seed` has them; methods that are not there are not compared. rows,
    columns: what tells the cells of the printed table apart. lower: values of a row or column for which less is better.
    """
    found = dict.fromkeys(tidy.index, "")
    if each is None:
        return list(found.values())
    within = [c for c in [*rows, *columns] if c not in ("method", "kind")]
    tidy, each = named(tidy, within), named(each, within)
    here, lower = tidy[(tidy["kind"] == "measured") & tidy["mean"].notna()], set(lower)
    by_cell = {key(k): g for k, g in each.groupby(within, dropna=False)} if within else {(): each}
    for cell, group in here.groupby(within, sort=False, dropna=False) if within else [((), here)]:
        if (seeds := by_cell.get(key(cell))) is None:
            continue
        wide = seeds.pivot(index="seed", columns="method", values="value")
        wide = -wide if lower & set(key(cell)) else wide
        order = wide[[m for m in group["method"] if m in wide]].mean().sort_values(ascending=False).index
        line = dict(zip(group["method"], group.index))
        for place, mark in enumerate(("best", "second")):
            rest = order[place + 1 :]
            if not len(rest) or not all(apart(wide[order[place]] - wide[other]) for other in rest):
                break
            found[line[order[place]]] = mark
    return list(found.values())


def key(cell: object) -> tuple:
    return cell if isinstance(cell, tuple) else (cell,)


def apart(differences) -> bool:
    """Whether paired differences are above 0 beyond their error over seeds."""
    if differences.count() < 2:
        return False
    low = over_seeds(differences.round(9)).low  # below that it is rounding
    return low > 0
