"""Measured numbers one by one: a row per run, task and split, as a study's tables and claims read them; what they
come to over seeds, and what one method gains over another."""

from collections.abc import Iterable
from pathlib import Path

from . import table_damage
from .tables import DATA, NUMBERS

ABOUT = ["method", "task", "protocol", "split", "shots", "seed"]  # columns of a number by seed
ELSEWHERE = ("cross_dataset", "domain_shift")  # protocols that test other data than they train on


def per_seed(results, study: str, table: str = "methods", data: str | Path = DATA):
    """Measured numbers one by one: columns method, task, protocol, split, shots, seed, value.

    results: rows as `vlmlab.results` gives them, of one metric. A method is called as in the study's published
    `table` (or in any of them): a variant of its settings is `<method>_<variant>`; with a rule of its own it is
    `<method>_<rule>`, as `mmrlpp_unified`; tested with parameters set per target it is `<method>_per_target`. Where a protocol tests
    elsewhere than it trains, the task is what was tested, and the split says `source` or `target`. The task `average`
    is added: the mean over tasks, but of a source, and for the split `hm` the harmonic mean of the means, as papers
    print it. Wide rows, with columns 0, 1, ... in place of value, are averaged column by column.
    ValueError for several metrics, or a method that lacks a task that others have.
    """
    import pandas as pd

    if results["metric"].nunique() > 1:
        raise ValueError(f"a table holds one metric, got {', '.join(sorted(set(results['metric'])))}")
    path = Path(data) / "published" / study / f"{table}.csv"
    named = table_damage.read(path) if path.is_file() else {"id": ()}
    column = next((name for name in ("id", "method") if name in named), None)
    if column is None:
        raise ValueError(f"{path} has no column id or method, which names its methods")
    known = set(named[column])
    variants = results["variant"] if "variant" in results else [""] * len(results)
    methods = [f"{m}_{v}" if v else m for m, v in zip(results["method"], variants)]
    names = [with_rule(m, rule, known) for m, rule in zip(methods, results["rule"])]
    numbers = [c for c in results if isinstance(c, int)] or ["value"]
    rows = results.assign(method=names)[[*ABOUT, *numbers]].reset_index(drop=True)
    moved = rows["protocol"].isin(ELSEWHERE)
    role = (rows["split"] == rows["task"]).map({True: "source", False: "target"})
    rows["task"] = rows["task"].where(~moved, rows["split"])
    rows["split"] = rows["split"].where(~moved, role)
    return pd.concat([rows, averages(rows, numbers)[list(rows)]], ignore_index=True)


def with_rule(method: str, rule: str, known: set[str]) -> str:
    """The name of a method with a rule. The bare name is that of the unified rule, or of the other one where `known`
    names have a `<method>_unified`."""
    if f"{method}_{rule}" in known:
        return f"{method}_{rule}"
    own, _, parameters = rule.partition("+")
    named = own == "unified" or f"{method}_unified" in known
    return "_".join([method, *([] if named else [own]), *filter(None, [parameters])])


def averages(rows, numbers: list):
    """The rows of the task `average`; numbers: the columns that hold them."""
    import pandas as pd

    rows = rows[rows["split"] != "source"]
    by = [c for c in ABOUT if c != "task"]
    group = rows.groupby(by, sort=False, dropna=False)
    mean, count = group[numbers].mean(), group.size()
    complete = rows.groupby(["protocol", "split"])["task"].nunique()
    whole = pd.Series([complete[protocol, split] for _, protocol, split, *_ in count.index], count.index)
    if len(short := count[count < whole]):
        raise ValueError(
            f"{short.index[0][0]} has numbers for {short.iloc[0]} of {whole[short.index[0]]} tasks; an average needs all"
        )
    if {"base", "new", "hm"} <= set(rows["split"]):
        base, new = (mean.xs(split, level="split") for split in ("base", "new"))
        both = (2 * base * new / (base + new)).dropna(how="all").reset_index().assign(split="hm")
        mean = pd.concat([mean.drop("hm", level="split").reset_index(), both])
    else:
        mean = mean.reset_index()
    return mean.assign(task="average")


def measured(rows, by: Iterable[str] = ("method", "task", "split"), note: str = ""):
    """Tidy summaries of `per_seed` rows: mean, sample standard deviation and count over the seeds.

    by: what tells numbers apart. ValueError when a seed then has two values.
    """
    by = list(by)
    if len(twice := rows[rows.duplicated([*by, "seed"])]):
        raise ValueError(f"two values for {twice.iloc[0][[*by, 'seed']].tolist()}; `by` needs more columns")
    found = rows.groupby(by, sort=False, dropna=False)["value"].agg(mean="mean", sd="std", n="count")
    return found.reset_index().assign(kind="measured", note=note)[[*by, *NUMBERS]]


def mean_of_hm(rows):
    """The same rows and, for task `average`, a split `mean_of_hm`: the mean of the tasks' harmonic means.

    rows: of `per_seed` or tidy. The split `hm` of the average is another number, the harmonic mean of means.
    """
    import pandas as pd

    value = "value" if "value" in rows else "mean"
    each = rows[(rows["split"] == "hm") & (rows["task"] != "average")]
    same = [c for c in rows if c not in ("task", "note", value)]
    more = each.groupby(same, sort=False, dropna=False)[value].mean().reset_index()
    more = more.assign(task="average", split="mean_of_hm", note="mean of the harmonic means")
    return pd.concat([rows, more[list(rows)]], ignore_index=True)


def compared(rows, of: str, against: str) -> str:
    """What one method gains over another, in words: mean difference in points, intervals, and what they show.

    rows: of `per_seed`, of the splits and tasks that count (an average is no task of its own). Numbers of
    the same task, split, shots and seed are pairs. Intervals are 95 % t-intervals over the pairs and over the
    seeds' mean differences. Pairs of a seed share a training draw or a model and pairs of a task its test
    images, so that only the two together count as a gain or a loss. KeyError for an unknown method.
    """
    from .intervals import over_seeds

    units = [c for c in rows if c not in ("method", "value")]
    wide = rows.set_index(["method", *units])["value"].unstack("method")
    gain = (wide[of] - wide[against]).dropna().round(9)  # below that it is rounding
    pairs, seeds = over_seeds(gain), over_seeds(gain.groupby("seed").mean())
    head = f"{pairs.effect:+.1f} points over {pairs.n} pairs, above 0 in {(gain > 0).sum()}"
    if seeds.low is None:
        return f"{head}; one seed shows nothing"
    intervals = (f"{pairs.low:+.1f} to {pairs.high:+.1f}", f"{seeds.low:+.1f} to {seeds.high:+.1f}")
    if min(pairs.low, seeds.low) > 0:
        shown = "a gain"
    else:
        shown = "a loss" if max(pairs.high, seeds.high) < 0 else "neither gain nor loss shown"
    return f"{head}; 95 % intervals {intervals[0]} (pairs), {intervals[1]} ({seeds.n} seeds): {shown}"
