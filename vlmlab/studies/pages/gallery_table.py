"""Tables of the gallery: a study's CSV as a paper prints it, methods below each other, base, new and HM side by side.

A CSV says which kind a number is by a column `kind` beside `mean`, `sd`, `n` and `note` (the tidy form of
tables.py), or by the name of its column (`measured_mean`, `measured_sd`, `n`, `published_average`). Every other
column says what the row is about: method, task, split. Measured, published and planned numbers never share a column.
"""

import math
import re
from collections.abc import Sequence

from .number_texts import Line, minus, raw, shown, to_float, whole

KINDS = ("measured", "published", "planned")
WIDE = re.compile(rf"({'|'.join(KINDS)})(?:_(\w+))?")
FIELDS = {"mean": "value", "value": "value", "sd": "spread", "n": "n", "note": "note"}
FIELDS |= {name: name for name in ("median", "q1", "q3")}
ACROSS = ("split", "metric", "parameter", "shots")  # what stands side by side, the first of these that varies
SCORES = ("split", "task", "shots")  # across these, more is better
LAST = ("hm", "average")  # the column that sums up, if there is one
OTHER_MEAN = "mean_of_hm"  # a second way to average, which no paper prints: left to the CSV


def comparison(rows: list[dict[str, str]], reference: Sequence[str] = (), same: bool = False) -> list[dict]:
    """What the page shows of a CSV (column -> text per row), as tables; none for an empty one.

    A table has `title`, `kinds`, `columns` [(kind, name)], `rows` [{name, cells}], `same` [(column, value)],
    `gain` (the method that others are compared with, and in which column), `notes`, `without` (a column that is left
    out) and `folded`. Cells are None or have value, spread, n, mark (the number of their note), best. reference: methods to compare with, the first that there is. same: measured and published are
    of the same models and data, so that their difference says something.
    """
    if not rows:
        return []
    lines = merged(rows) if "kind" in rows[0] else [wide(row) for row in rows]
    if not any(numbers for _, numbers in lines):
        return [listing(rows)]
    across, down, rest = layout(lines)
    shown(lines, across)
    groups: dict[tuple, list[Line]] = {}
    for keys, numbers in lines:
        groups.setdefault(tuple(whole(keys[c]) for c in rest), []).append((keys, numbers))
    parts = [
        (" ".join(k), part)
        for k, group in groups.items()
        for part in by_setting(group, across, down)
        if part  # some rows may have no number at all
    ]
    parts.sort(key=lambda p: (not p[0].endswith("average"), "measured" not in kinds_of(p[1])))
    tables = [table(title, part, across, down, reference, same) for title, part in parts]
    front = parts[0][0]
    for found, (title, _) in zip(tables, parts):
        found["folded"] = title != front
    return tables


def wide(row: dict[str, str]) -> Line:
    """One line of a CSV whose columns name the kind."""
    keys, numbers = {}, {}
    for column, text in row.items():
        if match := WIDE.fullmatch(column):
            numbers.setdefault(match[1], {}).setdefault(FIELDS.get(match[2], "value"), text)
        elif column == "n":
            numbers.setdefault("measured", {})["n"] = text
        else:
            keys[column] = text
    return keys, {kind: found for kind, found in numbers.items() if found.get("value")}


def merged(rows: list[dict[str, str]]) -> list[Line]:
    """Lines of a tidy CSV, numbers about the same thing side by side.

    What somebody else states may leave out columns that runs have, as the number of shots: it stands with
    the measured number that agrees in all others, when there is one alone.
    """
    lines: list[Line] = []
    for row in sorted(rows, key=lambda row: row["kind"] != "measured"):
        keys = {c: text for c, text in row.items() if c not in FIELDS and c != "kind"}
        numbers = {FIELDS[c]: text for c, text in row.items() if c in FIELDS and text}
        found = row["kind"] != "measured" and [n for k, n in lines if row["kind"] not in n and agree(keys, k)]
        if not found or len(found) > 1:
            found = [{}]
            lines.append((keys, found[0]))
        if "value" in numbers:
            found[0][row["kind"]] = numbers
    return lines


def agree(keys: dict[str, str], others: dict[str, str]) -> bool:
    """Whether two rows say the same where both say something."""
    return all(text == others[c] for c, text in keys.items() if text and others[c])


def layout(lines: list[Line]) -> tuple[str | None, str, list[str]]:
    """(across, down, rest): the column whose values stand side by side, that whose values are rows, and the others
    that vary, which tell tables apart."""
    values = {c: list(dict.fromkeys(keys[c] for keys, _ in lines)) for c in lines[0][0]}
    varies = [c for c, found in values.items() if len(found) > 1] or list(values)[:1]
    across = next(
        (c for c in ACROSS if c in varies), next((c for c in ACROSS if any(values.get(c, ()))), None)
    )
    if across == "split" and "task" in varies:
        splits = {(keys["task"], keys["split"]) for keys, _ in lines}
        if len({task for task, _ in splits}) == len(
            splits
        ):  # each task is source or target: tasks side by side
            across, varies = "task", [c for c in varies if c != "split"]
    others = [c for c in varies if c != across]
    down = "method" if "method" in varies else (others or varies)[0]
    return across, down, [c for c in others if c != down]


def by_setting(lines: list[Line], across: str | None, down: str) -> list[list[Line]]:
    """The kinds that have rows and columns in common with the first together, each other one by itself."""

    def names(kind: str, column: str | None) -> set[str]:
        return {keys.get(column, "") for keys, numbers in lines if kind in numbers}

    first, *others = kinds_of(lines) or [""]
    beside = [
        k for k in others if names(k, across) <= names(first, across) and names(k, down) & names(first, down)
    ]
    parts = [[first, *beside], *([k] for k in others if k not in beside)]
    return [
        [(keys, {k: n[k] for k in part if k in n}) for keys, n in lines if {*part} & {*n}] for part in parts
    ]


def kinds_of(lines: list[Line]) -> list[str]:
    return [kind for kind in KINDS if any(kind in numbers for _, numbers in lines)]


def table(
    title: str, lines: list[Line], across: str | None, down: str, reference: Sequence[str], same: bool
) -> dict:
    """One table. Columns are those of each kind, one after the other; then what is gained over the reference."""
    kinds = kinds_of(lines)
    cells: dict[str, dict[tuple, dict]] = {}
    columns: dict[tuple[str, str], None] = {}
    for kind in kinds:
        for keys, numbers in lines:
            if kind in numbers and (across is None or keys[across] != OTHER_MEAN):
                column = (kind, whole(keys[across]) if across else "")
                columns.setdefault(column)
                cells.setdefault(keys[down], {})[column] = numbers[kind]
    columns = dict.fromkeys(sorted(columns, key=lambda c: (KINDS.index(c[0]), c[1] == "average")))
    counts = {cell.get("n", "") for row in cells.values() for (k, _), cell in row.items() if k == "measured"}
    found = {
        "title": title,
        "kinds": {kind: sum(k == kind for k, _ in columns) for kind in kinds},
        "columns": list(columns),
        "down": down,
        "same": constant(lines, across, down) + [("seeds", n) for n in counts if len(counts) == 1 and n],
        "gain": None,
        "without": OTHER_MEAN if any(keys.get(across) == OTHER_MEAN for keys, _ in lines) else "",
    }
    found["notes"] = marked_notes(cells)
    if down == "method" and across in SCORES:
        mark_best(cells, [c for c in columns if c[0] == "measured"])
        found["gain"] = gains(cells, list(columns), reference, same)
    extra = [(k, "") for k in found["gain"]["kinds"]] if found["gain"] else []
    found["rows"] = [
        {
            "name": name,
            "cells": [(kind, row.get((kind, c))) for kind, c in columns]
            + [(kind, row.get((kind, "gain"))) for kind, _ in extra],
        }
        for name, row in cells.items()
    ]
    return found


def gains(cells: dict, columns: list, reference: Sequence[str], same: bool) -> dict | None:
    """Add to each row what it gains over the reference in the column that sums up; None where nothing is there to
    compare."""
    against = next((method for method in reference if method in cells), None)
    names = [name for _, name in columns]
    column = next((name for name in LAST if name in names), names[-1])
    kinds = [k for k in KINDS if against and (k, column) in cells[against]] if len(cells) > 1 else []
    for row in cells.values():
        values = {k: raw(row.get((k, column))) for k in KINDS}
        for kind in kinds:
            base = raw(cells[against][kind, column])
            if (
                None not in (values[kind], base)
                and row is not cells[against]
                and row is not cells.get("delta")
            ):
                row[kind, "gain"] = {"value": minus(f"{values[kind] - base:+.2f}")}
        if same and None not in (values["measured"], values["published"]):
            row["difference", "gain"] = {"value": minus(f"{values['measured'] - values['published']:+.2f}")}
    found = kinds + ["difference"] * any(("difference", "gain") in row for row in cells.values())
    return {"over": against, "column": column, "kinds": found} if found else None


def marked_notes(cells: dict) -> list[str]:
    """The notes of a table's numbers, each of which then has the number of its note."""
    notes: dict[str, int] = {}
    for row in cells.values():
        for cell in row.values():
            if note := cell.get("note"):
                cell["mark"] = notes.setdefault(note, len(notes) + 1)
    return list(notes)


def mark_best(cells: dict, columns: list[tuple[str, str]]) -> None:
    """Mark the best of each measured column where it is above every other by more than the pooled spread (tables.py)."""
    for column in columns:
        found = [row[column] for method, row in cells.items() if column in row and method != "delta"]
        values = [
            (raw(cell), to_float(cell.get("sd")) or 0.0, to_float(cell.get("n")) or 0) for cell in found
        ]
        known = sorted((v, i) for i, (v, _, _) in enumerate(values) if v is not None)
        if len(known) > 1 and all(apart(values[known[-1][1]], values[i]) for _, i in known[:-1]):
            found[known[-1][1]]["best"] = True


def apart(a: tuple, b: tuple) -> bool:
    """Whether the first of two (mean, sd, n) is above the other by more than their pooled standard deviation."""
    (mean_a, sd_a, n_a), (mean_b, sd_b, n_b) = a, b
    if min(n_a, n_b) < 2:
        return False
    pooled = math.sqrt(((n_a - 1) * sd_a**2 + (n_b - 1) * sd_b**2) / (n_a + n_b - 2))
    return mean_a - mean_b > pooled


def constant(lines: list[Line], across: str | None, down: str) -> list[tuple[str, str]]:
    """What is the same in all lines, and the note that all numbers of a kind share, which is taken from them."""
    values = {c: {keys[c] for keys, _ in lines} for c in lines[0][0] if c not in (across, down)}
    found = [(c, whole(next(iter(v)))) for c, v in values.items() if len(v) == 1 and any(v)]
    for kind in kinds_of(lines):
        numbers = [n[kind] for _, n in lines if kind in n]
        notes = {number.get("note", "") for number in numbers}
        if len(numbers) > 1 and len(notes) == 1 and any(notes):
            found.append((kind, notes.pop()))
            for number in numbers:
                number.pop("note")
    return found


def listing(rows: list[dict[str, str]]) -> dict:
    """A CSV without kinds of numbers, as it stands; what differs is in the CSV."""
    columns = [("", column) for column in rows[0]]
    body = [
        {
            "name": next(iter(row.values())),
            "cells": [("", {"value": whole(v)}) for v in list(row.values())[1:]],
        }
        for row in rows
    ]
    about = {"title": "", "kinds": {}, "down": columns[0][1], "same": [], "gain": None, "folded": False}
    about |= {"notes": [], "without": ""}
    return {**about, "columns": columns[1:], "rows": body}
