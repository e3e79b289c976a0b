"""Tables from one source: tidy numbers in, the printed table as CSV, LaTeX and HTML out.

A tidy table has one line per number: `method`, `task` and whatever else says what it is about (`split`,
`shots`, ...), then `kind`, `mean`, `sd`, `n` and `note`. The kind keeps numbers apart that must not be
mixed: `measured` (from runs: mean and sample standard deviation over n seeds), `published` (as a paper
prints it) and `planned` (a document's expectation, which nobody measured).

Best and second best are marked only where the runs tell them apart: see best.py.
"""

import html
import re
from collections.abc import Iterable
from pathlib import Path

from ...files import write
from ...paths import data_dir
from ...schema import Finite, Record, Wrong, convert
from . import table_damage
from .best import marks
from .provenance import plain_index, record, save_csv

DATA = data_dir()
KINDS = ("measured", "published", "planned")
ABOUT = ["method", "task", "protocol", "split", "shots", "seed"]  # columns of a number by seed
ELSEWHERE = ("cross_dataset", "domain_shift")  # protocols that test other data than they train on
NUMBERS = ("kind", "mean", "sd", "n", "note")
DIGITS = {"measured": 1, "published": 2, "planned": 1}
LOOK = {"best": "font-weight: bold", "second": "font-style: italic", "": ""}
LEGEND = (
    "Mean ± standard deviation over seeds. Bold: above every other measured method, by the 95 % interval over seeds of "
    "the paired difference; italic: the same among the rest."
)
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="vlmlab" content="{note}">
<title>{title}</title>
<style>
body {{ font: 14px/1.4 system-ui, sans-serif; margin: 1.5em; color: #111; background: #fff; }}
table {{ border-collapse: collapse; border-top: 2px solid; border-bottom: 2px solid; }}
th, td {{ padding: .2em .7em; text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }}
th {{ font-weight: 600; }}
tbody th {{ text-align: left; vertical-align: top; font-weight: normal; }}
thead th[colspan] {{ text-align: center; border-bottom: 1px solid #aaa; }}
thead tr:last-child > * {{ border-bottom: 1px solid; }}
tbody tr:has(th[rowspan]) > * {{ padding-top: .7em; }}
p {{ max-width: 60em; color: #444; }}
</style>
</head>
<body>
{table}<p>{legend}</p>
</body>
</html>
"""


class Stated(Record):
    """One line of a published table."""

    value: Finite


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


def stated(rows, kind: str):
    """Tidy numbers that somebody else states: kind is published or planned; they have no spread here.

    rows: columns method, task (or dataset), value and others; `note` where there is something to remark.
    """
    if kind not in KINDS[1:]:
        raise ValueError(f"kind must be published or planned, got {kind!r}; measured numbers come from runs")
    rows = rows.rename(columns={"dataset": "task", "value": "mean"})
    keys = [c for c in rows if c not in NUMBERS]
    notes = rows["note"].astype(object).fillna("") if "note" in rows else ""
    return rows.assign(kind=kind, sd=float("nan"), n=float("nan"), note=notes)[[*keys, *NUMBERS]]


def published(study: str, table: str, data: str | Path = DATA):
    """`data/published/<study>/<table>.csv` in tidy form.

    FileNotFoundError when there is none, ValueError for a line whose value is no number.
    """
    path = Path(data) / "published" / study / f"{table}.csv"
    frame = table_damage.read(path)
    for line, row in enumerate(frame.to_dict("records"), start=2):
        try:
            convert(row, Stated)
        except Wrong as error:
            raise ValueError(f"{path}, line {line}, {error.field}: {error}") from error
    return stated(frame, "published")


def together(*parts):
    """Tidy tables one below the other. ValueError for a kind that there is not, or other columns."""
    import pandas as pd

    for part in parts:
        if list(part) != list(parts[0]) or not set(part["kind"]) <= set(KINDS):
            raise ValueError(
                f"tidy tables have the same columns, ending with {', '.join(NUMBERS)}, and one "
                f"kind of {', '.join(KINDS)} a line; got {', '.join(parts[0])} and "
                f"{', '.join(part)}"
            )
    return pd.concat(parts, ignore_index=True).astype({"mean": float, "sd": float, "n": "Int64"})


def printed(
    tidy,
    rows: Iterable[str],
    columns: Iterable[str],
    *,
    names: dict[str, str] | None = None,
    digits: dict[str, int] = DIGITS,
    each=None,
    lower: Iterable[str] = (),
):
    """(texts, marks): two DataFrames, the cells of the printed table and '', 'best' or 'second' for each.

    rows, columns: tidy columns that index them; `kind` must be among them. names: printed names of values;
    these come first, in this order, others as they appear. each: the numbers by seed, without which nothing is marked.
    lower: values of a row or column (a metric) for
    which less is better. ValueError when two numbers would fall into one cell.
    """
    import pandas as pd

    rows, columns, names = list(rows), list(columns), names or {}
    if "kind" not in rows + columns:
        raise ValueError("the kind must be one of the rows or columns: measured and published never mix")
    if len(twice := tidy[tidy.duplicated([*rows, *columns])]):
        raise ValueError(f"two numbers for {twice.iloc[0][[*rows, *columns]].tolist()}; name more columns")
    tidy = tidy.reset_index(drop=True)
    tidy["text"] = [text(n, digits) for n in tidy.itertuples()]
    tidy["mark"] = marks(tidy, each, rows, columns, lower)

    def axis(keys: list[str]) -> tuple[list, pd.Index]:
        """The keys in order, as they are and as they are printed."""
        ranks = [{v: i for i, v in enumerate(dict.fromkeys([*names, *tidy[c]]))} for c in keys]
        found = sorted(set(zip(*(tidy[c] for c in keys))), key=lambda k: [r[v] for r, v in zip(ranks, k)])
        shown = [tuple(names.get(v, v) for v in key) for key in found]
        return found, pd.MultiIndex.from_tuples(shown) if len(keys) > 1 else pd.Index([k for (k,) in shown])

    (down, left), (across, top) = axis(rows), axis(columns)

    def grid(column: str) -> pd.DataFrame:
        cell = dict(zip(zip(*(tidy[c] for c in [*rows, *columns])), tidy[column]))
        return pd.DataFrame([[cell.get((*r, *c), "") for c in across] for r in down], left, top)

    return grid("text"), grid("mark")


def text(number, digits: dict[str, int]) -> str:
    """'59.1 ± 0.9', without a spread where there is none."""
    places = digits[number.kind]
    if number.mean != number.mean:  # not a number
        return ""
    spread = f" ± {number.sd:.{places}f}" if number.sd == number.sd else ""
    return f"{number.mean:.{places}f}{spread}"


def save_table(
    frame,
    out: str | Path,
    artefact: str,
    *,
    study: str,
    profile: str,
    trained=None,
    run_keys: Iterable[str] = (),
    seeds: Iterable[int] = (),
    data=None,
    each=None,
    marks=None,
    legend: str = "",
    digits: int = 2,
) -> list[Path]:
    """Write `<out>/<artefact>.csv`, `.tex` (booktabs) and `.html`; returns their paths.

    frame: DataFrame as it is printed, numbers with `digits`. data: what the CSV holds instead of `frame`,
    usually the tidy table. each: the numbers behind its means one by one, a row per seed, written beside it as
    `<artefact>.each.csv`, which claims read. trained, run_keys, seeds: as for `save_figure`. marks: 'best', 'second' or '' for
    every cell, as from `printed`. legend: a sentence below the table; with marks their rule. An empty `out`
    writes nothing.

    The record of provenance stands in the .tex and the .html; the CSV holds numbers alone, so that every
    program reads it, and `read_provenance` finds its record in the files beside it.
    """
    if not out:
        return []
    note = record(
        study=study, artefact=artefact, profile=profile, trained=trained, run_keys=run_keys, seeds=seeds
    )
    legend = legend or (LEGEND if marks is not None else "")
    content = {
        "tex": latex(frame, marks, digits, f"% {note}\n" + (f"% {legend}\n" if legend else "")),
        "html": page(frame, marks, digits, artefact, f"{study} {artefact}", note, legend),
    }
    written = [save_csv(frame if data is None else data, Path(out) / f"{artefact}.csv")]
    written += [] if each is None else [save_csv(each, Path(out) / f"{artefact}.each.csv")]
    for kind, whole in content.items():
        path = Path(out) / f"{artefact}.{kind}"
        write(path, lambda t: t.write_text(whole, encoding="utf-8", newline="\n"))  # noqa: B023
        written.append(path)
    return written


def styled(frame, marks, digits: int, escape: str):
    """A pandas Styler with the marks, everything escaped for the language."""
    style = frame.style.format(precision=digits, na_rep="--", escape=escape)
    style = style.format_index(escape=escape, axis=0).format_index(escape=escape, axis=1)
    if marks is not None:
        style = style.apply(lambda _: marks.replace(LOOK), axis=None)
    return style.hide(axis="index") if plain_index(frame) else style


def latex(frame, marks, digits: int, head: str) -> str:
    """A tabular with booktabs rules; bold and italics by \\bfseries and \\itshape."""
    levels = 0 if plain_index(frame) else frame.index.nlevels
    body = styled(frame, marks, digits, "latex").to_latex(
        hrules=True,
        convert_css=True,
        column_format="l" * levels + "r" * frame.shape[1],
        multicol_align="c",
        multirow_align="naive",
    )
    if levels > 1:  # air above each row that starts a group
        body = re.sub(r"(?<=\\\\\n)(?=[^ \\])", r"\\addlinespace\n", body)
    return head + body


def page(frame, marks, digits: int, artefact: str, title: str, note: str, legend: str) -> str:
    """The table as a page of its own."""
    body = styled(frame, marks, digits, "html").to_html(table_uuid=artefact)
    words = {"note": note, "title": title, "legend": legend}
    return PAGE.format(table=body, **{name: html.escape(word) for name, word in words.items()})
