"""Numbers of the gallery's tables as texts: digits by their size, a real minus sign, what papers print."""

import math
import re

Line = tuple[dict[str, str], dict[str, dict[str, str]]]  # what it is about, numbers by kind


def shown(lines: list[Line], across: str | None) -> None:
    """Texts of all numbers: measured ones with digits by the size of their column, others as they are stated."""
    columns: dict[str, list[dict]] = {}
    for keys, numbers in lines:
        columns.setdefault(keys.get(across, ""), []).append(numbers)
    for found in columns.values():
        places = decimals(found)
        for numbers in found:
            for kind, number in numbers.items():
                quartiles = [number.pop(q) for q in ("q1", "q3") if q in number]
                if "median" in number:  # a spread around the mean does not go with it
                    number["value"], _ = number.pop("median"), number.pop("spread", None)
                    number |= {"range": quartiles} if len(quartiles) == 2 else {}
                number["raw"], number["sd"] = number["value"], number.get("spread")
                number |= stated(number, places) if kind != "measured" else measured(number, places)


def measured(number: dict, places: int) -> dict:
    texts = {
        f: rounded(number[f], 0 if f == "n" else places) for f in ("value", "spread", "n") if f in number
    }
    if "range" in number:
        texts["spread"] = " to ".join(rounded(v, places) for v in number.pop("range"))
        texts["ranged"] = True
    return texts


def stated(number: dict, places: int) -> dict:
    """As papers print percentages; a CSV drops the last zero, and what was computed from printed ones has too many."""
    value = number["value"]
    if places == 2:
        value = re.sub(r"^-?\d+\.\d$", r"\g<0>0", value)
    return {"value": minus(f"{float(value):.2f}" if re.search(r"\.\d{7}", value) else value)}


def decimals(numbers: list[dict]) -> int:
    """Digits after the point for measured numbers: percentages two, norms three, small numbers four."""
    values = [abs(v) for n in numbers if (v := to_float(n.get("measured", {}).get("value"))) is not None]
    top = max(values, default=0)
    return 2 if top >= 10 else 3 if top >= 1 else 4


def raw(cell: dict | None) -> float | None:
    return None if cell is None else to_float(cell["raw"])


def whole(text: str) -> str:
    """'16' for '16.0': where some rows have no number of shots, a CSV gives the others a fraction."""
    return text.removesuffix(".0") if to_float(text) is not None else text


def rounded(text: str, places: int) -> str:
    value = to_float(text)
    return text if value is None else minus(f"{value:.{places}f}")


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
