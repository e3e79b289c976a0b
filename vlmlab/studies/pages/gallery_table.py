"""Tables of the gallery: a study's CSV as rows that keep measured, published and planned numbers apart.

A CSV says which kind a number is by a column `kind` beside `mean`, `sd`, `n` and `note` (the tidy form of
tables.py), or by the name of its column (`measured_mean`, `measured_sd`, `n`, `published_average`). Every
other column says what the row is about: method, task, split.
"""

import math
import re

KINDS = ("measured", "published", "planned")
WIDE = re.compile(rf"({'|'.join(KINDS)})(?:_(\w+))?")
FIELDS = {"mean": "value", "value": "value", "sd": "spread", "n": "n", "note": "note"}


def comparison(rows: list[dict[str, str]]) -> list[dict]:
    """What the page shows of a CSV (column -> text per row), as blocks of lines; none for an empty one.

    The first block has the lines with something to compare, the next those with measured numbers alone, the
    last those without. In a line `numbers` maps a kind, or `difference` (measured minus published), to
    texts: value, spread, n, note.
    """
    lines = merged(rows) if rows and "kind" in rows[0] else [wide(row) for row in rows]
    places = decimals(lines)
    for _, numbers in lines:
        pair = [to_float(numbers.get(kind, {}).get("value")) for kind in ("measured", "published")]
        if None not in pair:
            numbers["difference"] = {"value": minus(f"{pair[0] - pair[1]:+.{places}f}")}
        if "measured" in numbers:
            numbers["measured"] = {k: shown(k, v, places) for k, v in numbers["measured"].items()}
        if "published" in numbers and places == 2:  # as papers print percentages; a CSV drops the last zero
            numbers["published"]["value"] = re.sub(r"^-?\d+\.\d$", r"\g<0>0", numbers["published"]["value"])
        if re.search(r"\.\d{7}", numbers.get("published", {}).get("value", "")):  # computed from printed ones
            numbers["published"]["value"] = f"{pair[1]:.2f}"
    parts = [[], [], []]
    for line in lines:
        known = [kind for kind in KINDS if kind in line[1]]
        parts[0 if len(known) > 1 else 1 if known == ["measured"] else 2].append(line)
    return [block(part) for part in parts if part]


def wide(row: dict[str, str]) -> tuple[dict, dict]:
    """One line of a CSV whose columns name the kind: ({column: text}, {kind: {value, spread, n, note}})."""
    keys, numbers = {}, {}
    for column, text in row.items():
        if match := WIDE.fullmatch(column):
            numbers.setdefault(match[1], {}).setdefault(FIELDS.get(match[2], "value"), text)
        elif column == "n":
            numbers.setdefault("measured", {})["n"] = text
        else:
            keys[column] = text
    return keys, {kind: found for kind, found in numbers.items() if found.get("value")}


def merged(rows: list[dict[str, str]]) -> list[tuple[dict, dict]]:
    """Lines of a tidy CSV, numbers about the same thing side by side.

    What somebody else states may leave out columns that runs have, as the number of shots: it stands with
    the measured number that agrees in all others, when there is one alone.
    """
    lines: list[tuple[dict, dict]] = []
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


def block(lines: list[tuple[dict, dict]]) -> dict:
    """Lines with the columns that vary, in groups of the first of these when it repeats.

    What is the same in all lines is said once (`same`). `kinds`: those that occur, in fixed order.
    """
    values = {c: list(dict.fromkeys(keys[c] for keys, _ in lines)) for c in lines[0][0]}
    varies = [c for c, found in values.items() if len(found) > 1] or list(values)[:1]
    grouped = len(varies) > 1 and len(values[varies[0]]) < len(lines)
    groups = {}
    for keys, numbers in lines:
        line = {
            "cells": [whole(keys[c]) for c in varies[grouped:]],
            "numbers": numbers,
            "method": keys.get("method", ""),
        }
        groups.setdefault(keys[varies[0]] if grouped else "", []).append(line)
    kinds = [kind for kind in KINDS if any(kind in numbers for _, numbers in lines)]
    counted = any(numbers.get("measured", {}).get("n") for _, numbers in lines)
    difference = any("difference" in numbers for _, numbers in lines)
    same = [(c, whole(found[0])) for c, found in values.items() if c not in varies and found[0]]
    same += [(kind, note) for kind in kinds if (note := common_note(kind, lines))]
    return {
        "columns": varies[grouped:],
        "groups": list(groups.items()),
        "count": len(lines),
        "kinds": kinds,
        "counted": counted,
        "difference": difference,
        "width": len(varies) - grouped + len(kinds) + counted + difference,
        "same": same,
    }


def common_note(kind: str, lines: list[tuple[dict, dict]]) -> str:
    """The note that all numbers of a kind share, which is taken from them, or ""."""
    found = [numbers[kind] for _, numbers in lines if kind in numbers]
    notes = {number.get("note", "") for number in found}
    if len(found) < 2 or len(notes) > 1:
        return ""
    for number in found:
        number.pop("note", None)
    return notes.pop()


def whole(text: str) -> str:
    """'16' for '16.0': where some rows have no number of shots, a CSV gives the others a fraction."""
    return text.removesuffix(".0") if to_float(text) is not None else text


def decimals(lines: list[tuple[dict, dict]]) -> int:
    """Digits after the point for measured numbers: percentages two, norms three, small numbers four."""
    values = [abs(v) for _, n in lines if (v := to_float(n.get("measured", {}).get("value"))) is not None]
    top = max(values, default=0)
    return 2 if top >= 10 else 3 if top >= 1 else 4


def shown(field: str, text: str, places: int) -> str:
    """A measured number with these digits, a count with none."""
    value = to_float(text) if field != "note" else None
    return text if value is None else minus(f"{value:.{0 if field == 'n' else places}f}")


def minus(text: str) -> str:
    """With the mathematical sign, which is as wide as a plus."""
    return text.replace("-", "−")


def to_float(text: str | None) -> float | None:
    """The finite number in a text, or None."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None
