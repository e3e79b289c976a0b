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


def published(study: str, table: str, data: str | Path = DATA, kind: str = "published"):
    """`data/published/<study>/<table>.csv` in tidy form; kind "planned" for what a document only expects.

    FileNotFoundError when there is none, ValueError for a line whose value is no number.
    """
    path = Path(data) / "published" / study / f"{table}.csv"
    frame = table_damage.read(path)
    for line, row in enumerate(frame.to_dict("records"), start=2):
        try:
            convert(row, Stated)
        except Wrong as error:
            raise ValueError(f"{path}, line {line}, {error.field}: {error}") from error
    return stated(frame, kind)


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
    spread = f" ± {number.sd:,.{places}f}" if number.sd == number.sd else ""
    return f"{number.mean:,.{places}f}{spread}"


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
