"""One way to show progress: a widget in a notebook, a bar in a terminal, whole lines where there is neither."""

import sys
import time
from collections.abc import Iterable

from tqdm import auto, std

EVERY = 30.0  # seconds between two lines of a log


class Lines(std.tqdm):
    """Progress for a log: a line at the start, one now and then, one with the final numbers."""

    said = 0.0
    shown: int | None = None

    def refresh(self, nolock: bool = False, lock_args: tuple | None = None) -> None:
        now = time.time()
        if (
            not self.disable
            and now - self.said >= EVERY
            and now >= getattr(self, "start_t", now) + self.delay
        ):
            self.display()

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        self.said, self.shown = time.time(), self.n
        self.fp.write(f"{self}\n")
        self.fp.flush()

    def clear(self, nolock: bool = False) -> None:
        """A line stays where it is."""

    def close(self) -> None:
        if self.disable:
            return
        if self.leave and self.shown != self.n:
            self.display()
        self.disable = True
        self._decr_instances(self)


write = auto.tqdm.write  # a line of text that no bar runs over


def bar(
    iterable: Iterable | None = None,
    *,
    total: int | None = None,
    initial: int = 0,
    desc: str = "",
    unit: str = "it",
    leave: bool = True,
    delay: float = 0.0,
    shown: bool = True,
) -> std.tqdm:
    """A tqdm bar for where the program runs: `update`, `set_postfix`, `write`, a context, an iterator.

    leave: keep it at the end, with the final numbers. delay: seconds before anything is shown. shown: False for
    no output at all, as $TQDM_DISABLE=1 has it everywhere.
    """
    options = {"total": total, "initial": initial, "desc": desc or None, "unit": unit, "leave": leave}
    options |= {} if shown else {"disable": True}
    if auto.tqdm is not auto.asyncio_tqdm:  # a notebook
        return auto.tqdm(iterable, delay=delay, **options)
    if getattr(sys.stderr, "isatty", bool)():
        return std.tqdm(iterable, delay=delay, dynamic_ncols=True, **options)
    line = "{desc}: {n_fmt}/{total_fmt} {unit}, {elapsed} gone, {remaining} left{postfix}"
    quiet = EVERY if delay else 0.0
    return Lines(iterable, delay=quiet, bar_format=line, **options)
