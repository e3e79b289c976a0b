"""Tables of cost: times that are compared within rounds, sizes that are counted once, and how both are printed."""

from collections.abc import Mapping

from .tables import DIGITS, NUMBERS, text

BY = ["method", "metric"]
COLUMNS = [*BY, "median", "q1", "q3", *NUMBERS]  # of a tidy table of costs
QUARTILES = {"25%": "q1", "50%": "median", "75%": "q3"}


def in_rounds(times, metric: str, over: Mapping[str, str] = {}):
    """Rows method, metric, seed, value of what `measures.interleaved` gave: a method's time in a round, the seed.

    over: metric -> method; the time of every method over that one's in the same round comes as this metric, so that a
    machine which is slow in a round is slow for both. A method that was not timed gives no ratio.
    """
    import pandas as pd

    wide = times.to_pandas().rename_axis(index="seed", columns="method")
    shown = {metric: wide}
    shown |= {name: wide.div(wide[rival], axis=0) for name, rival in over.items() if rival in wide}
    rows = [one.stack().rename("value").reset_index().assign(metric=name) for name, one in shown.items()]
    return pd.concat(rows, ignore_index=True)[[*BY, "seed", "value"]]


def counted(sizes: Mapping[str, Mapping[str, float]]):
    """The same rows of numbers that have no spread: method -> metric -> value."""
    import pandas as pd

    rows = [(method, metric, 0, value) for method, of in sizes.items() for metric, value in of.items()]
    return pd.DataFrame(rows, columns=[*BY, "seed", "value"])


def spread(rows, about: Mapping):
    """Tidy medians, quartiles, means and standard deviations over the rounds of `in_rounds`; about: the
    `measures.circumstances`, which the note tells."""
    found = rows.groupby(BY, sort=False)["value"].describe(percentiles=[0.25, 0.5, 0.75]).reset_index()
    found = found.rename(columns=QUARTILES | {"std": "sd", "count": "n"})
    note = "{device}, {threads} threads, {dtype}, batch {batch}".format(**about)
    return found.assign(kind="measured", note=note)[COLUMNS]


def printed(tidy, heads: Mapping[str, tuple[str, int]], names: Mapping[str, str]):
    """The printed table, rows (kind, name): 'median [q1, q3]' of times, 'mean ± sd' or the number of what is counted.

    heads: metric -> head and decimal places, in the order of the columns; metrics without one are not shown.
    names: printed names of methods, in the order of the rows.
    """
    import pandas as pd

    cells = {}
    for r in tidy[tidy["metric"].isin(heads)].itertuples():
        head, places = heads[r.metric]
        timed = f"{r.median:,.{places}f} [{r.q1:,.{places}f}, {r.q3:,.{places}f}]"
        counted = text(r, DIGITS | {r.kind: places})
        cells[(r.kind, names.get(r.method, r.method)), head] = counted if pd.isna(r.median) else timed
    order = {name: i for i, name in enumerate(names.values())}
    rows = sorted({row for row, _ in cells}, key=lambda row: (row[0], order.get(row[1], len(order)), row[1]))
    columns = [head for head, _ in heads.values()]
    table = pd.DataFrame([[cells.get((row, head), "") for head in columns] for row in rows], columns=columns)
    table.index = pd.MultiIndex.from_tuples(rows)
    return table.loc[:, (table != "").any()]
