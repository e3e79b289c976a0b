"""What capture tells the edits that are open while it runs."""

import contextlib
import threading
from collections.abc import Iterator


class _Now(threading.local):
    """The number of the batch's first sample, how many samples there are in all (None outside capture), the
    batch, and whether edits rest (the layout check is about the model as it is)."""

    first: int | None = None
    total: int | None = None
    batch: object = None
    paused: bool = False


NOW = _Now()


@contextlib.contextmanager
def now(**values) -> Iterator[None]:
    """Set fields of NOW for the length of a block."""
    before = {name: getattr(NOW, name) for name in values}
    NOW.__dict__.update(values)
    try:
        yield
    finally:
        NOW.__dict__.update(before)
