"""Measured numbers as a terminal shows them: no column left out, what is the same in all rows said once above."""

from collections.abc import Iterable

import pandas as pd

WHO = ("study", "method", "variant", "task", "protocol", "shots", "seed")
HIDDEN = ("key", "test")  # of use to programs
MOST = 60  # lines that a session prints
WHAT = ("split", "rule", "metric", "value", "n")


def number(value: float) -> str:
    """Two decimals from 10 on, as papers print percent, else four digits."""
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.4g}"


def shown(value: object) -> str:
    if pd.isna(value):
        return ""
    return f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value)


def table(frame: pd.DataFrame, settings: Iterable[str] = ()) -> str:
    """Rows of results as text; settings: further columns. One row a split, rule and metric."""
    frame = frame.reset_index(drop=True)
    same = [name for name in WHO if name in frame and frame[name].nunique(dropna=False) == 1]
    above = [f"{name} {text}" for name in same if (text := shown(frame[name][0]))]
    columns = [name for name in (*WHO, *settings, *WHAT) if name in frame and name not in same]
    text = pd.DataFrame(
        {name: [number(x) if name == "value" else shown(x) for x in frame[name]] for name in columns}
    )
    return "\n".join([", ".join(above), text.to_string(index=False)]).strip("\n")


class Scores(pd.DataFrame):
    """Measured rows as a DataFrame, which a terminal shows without leaving out a column; what is made of it is an
    ordinary one."""

    @property
    def _constructor(self):
        return pd.DataFrame

    def __repr__(self) -> str:
        if self.empty or not {*WHAT} <= {*self.columns}:
            return super().__repr__()
        lines = table(self, [c for c in self.columns if c not in (*WHO, *WHAT, *HIDDEN)]).splitlines()
        return "\n".join(lines if len(lines) <= MOST else [*lines[: MOST // 2], "...", *lines[-MOST // 2 :]])


def records(frame: pd.DataFrame) -> list[dict]:
    """Rows as plain values for JSON; what is not there is None."""
    return [
        {
            k: None if pd.api.types.is_scalar(v) and pd.isna(v) else getattr(v, "item", lambda v=v: v)()
            for k, v in row.items()
        }
        for row in frame.to_dict("records")
    ]
