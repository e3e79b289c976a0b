"""What an object looks like at the end of a cell: a line in a terminal, a small table in a notebook.

A class says its facts in a `Panel`; `Shown` prints it. The HTML holds no style sheet and no script, so that it
survives Jupyter's cleaning of notebooks that are not trusted, and takes its colours from the page around it.
"""

import base64
import dataclasses
import html
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

LEFT = "text-align:left;vertical-align:top"
RIGHT = "text-align:right;vertical-align:top"
FAINT = "opacity:.7;font-size:.85em"
ACCENT = "var(--jp-brand-color1,#0072b2)"
THUMBNAIL = 96  # pixels of the longer side
POINTS = 200  # of a curve
LONG = 400  # characters of a fact


@dataclasses.dataclass(frozen=True)
class Panel:
    """kind: the class, for people. line: what a terminal shows in brackets behind it. facts: name -> value, plain
    texts. parts: gives finished HTML below the facts, from the functions of this file; only a notebook asks for it."""

    kind: str
    line: str
    facts: Mapping[str, object] = dataclasses.field(default_factory=dict)
    parts: Callable[[], Sequence[str]] = tuple

    def text(self) -> str:
        return f"{self.kind}({self.line})"

    def html(self) -> str:
        rows = "".join(
            f'<tr><td style="{LEFT};{FAINT}">{escaped(name)}</td><td style="{LEFT}">{escaped(value)}</td></tr>'
            for name, value in self.facts.items()
            if value not in (None, "")
        )
        head = f"<div><strong>{escaped(self.kind)}</strong> {escaped(self.line)}</div>"
        return f"<div>{head}{f'<table><tbody>{rows}</tbody></table>' if rows else ''}{''.join(self.parts())}</div>"


class Shown:
    """Mixin: prints what `panel()` says."""

    def panel(self) -> Panel:
        raise NotImplementedError

    def __repr__(self) -> str:
        return self.panel().text()

    def _repr_html_(self) -> str:
        return self.panel().html()


def escaped(value: object) -> str:
    """Text for HTML. Two dollar signs are no formula: an element around each keeps them apart."""
    return html.escape(short(str(value))).replace("$", "<span>&#36;</span>")


def short(text: str, most: int = LONG) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def some(names: Iterable[object], most: int = 8) -> str:
    """'cat, dog, fox and 997 more'."""
    names = [str(name) for name in names]
    rest = len(names) - most
    return ", ".join(names if rest <= 0 else names[:most]) + (f" and {rest:,} more" if rest > 0 else "")


def million(n: int) -> str:
    """'1,234' or '5.31 M'."""
    return f"{n:,}" if n < 1_000_000 else f"{n / 1e6:,.2f} M"


def size(n: int) -> str:
    """Bytes as '12.3 kB' or '4.5 MB'."""
    return f"{n / 1e6:,.1f} MB" if n >= 1e6 else f"{n / 1e3:,.1f} kB"


def settings(values: Mapping[str, object]) -> str:
    """'epochs=3, lr=0.001'."""
    return ", ".join(f"{name}={value}" for name, value in values.items())


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows of values, numbers to the right, without columns in which nothing stands."""
    rows = [list(row) for row in rows]
    kept = [i for i in range(len(columns)) if not rows or any(row[i] is not None for row in rows)]
    columns, rows = [columns[i] for i in kept], [[row[i] for i in kept] for row in rows]
    sides = [RIGHT if any(is_number(row[i]) for row in rows) else LEFT for i in range(len(columns))]
    head = "".join(f'<th style="{side}">{escaped(c)}</th>' for side, c in zip(sides, columns))
    body = "".join(
        "<tr>" + "".join(f'<td style="{side}">{cell(v)}</td>' for side, v in zip(sides, row)) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def cell(value: object) -> str:
    if value is None or value != value:
        return "–"
    return (
        f"{value:,.2f}" if isinstance(value, float) else escaped(f"{value:,}" if is_number(value) else value)
    )


def curve(values: Sequence[float], title: str) -> str:
    """A line over steps 1, 2, ... as inline SVG, with the first, the lowest and the last value in words; "" below two."""
    values = [float(v) for v in values]
    finite = [v for v in values if math.isfinite(v)]
    if len(values) < 2 or not finite:
        return ""
    low, high = min(finite), max(finite)
    step = max(1, math.ceil(len(values) / POINTS))
    kept = [(i, v) for i, v in enumerate(values) if i % step == 0 or i == len(values) - 1]
    points = " ".join(
        f"{300 * i / (len(values) - 1):.1f},{44 - 40 * (v - low) / ((high - low) or 1):.1f}"
        for i, v in kept
        if math.isfinite(v)
    )
    said = f"{title}: {values[0]:.4g} to {values[-1]:.4g} in {len(values):,} steps, lowest {low:.4g}"
    return (
        f'<svg width="304" height="48" viewBox="-2 0 304 48" role="img" aria-label="{html.escape(said)}">'
        f'<polyline points="{points}" fill="none" stroke="{ACCENT}" stroke-width="1.5"/></svg>'
        f'<div style="{FAINT}">{escaped(said)}</div>'
    )


def pictures(images: Iterable[tuple]) -> str:
    """Thumbnails of (PIL image, text below it), side by side."""
    return "".join(
        f'<div style="display:inline-block;margin:4px 8px 0 0;text-align:center;max-width:{THUMBNAIL}px">'
        f'<img src="{data_uri(image)}" alt="{html.escape(str(text))}"><div style="{FAINT}">{escaped(text)}</div></div>'
        for image, text in images
    )


def data_uri(image) -> str:
    """A PIL image as a PNG of at most THUMBNAIL pixels, inside the page."""
    image = image.convert("RGB")
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    image.save(file, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
