"""Ctrl-C, and the end of a batch job's time (SIGTERM): the first asks to stop, and what runs says what it keeps.

Another one at once changes nothing, so that Ctrl-C twice stops quietly; one that comes later, when stopping itself
hangs, ends the process. Files are renamed into place: nothing half written is left either way.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

PATIENCE = 5.0  # seconds that stopping may take before another signal ends it
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def signals(leaving: bool = False) -> Iterator[list[int]]:
    """Handle them meanwhile; yields a list that holds the first that came.

    leaving: the process ends afterwards; then they stay handled, and one that comes on the way out ends it quietly.
    """
    got, since = [], 0.0
    if threading.current_thread() is not threading.main_thread():
        yield got
        return

    def stop(number: int, frame: object) -> None:
        nonlocal since
        if not got:
            got.append(number)
            since = time.monotonic()
            raise KeyboardInterrupt
        if time.monotonic() - since > PATIENCE:
            os._exit(128 + number)

    def lost(report) -> None:
        """Python ignores it inside a destructor: ask again when that is over."""
        if isinstance(report.exc_value, KeyboardInterrupt):
            number = got.pop()
            threading.Timer(0.1, os.kill, (os.getpid(), number)).start()
        else:
            hook(report)

    before, hook = {number: signal.signal(number, stop) for number in SIGNALS}, sys.unraisablehook
    sys.unraisablehook = lost
    try:
        yield got
    finally:
        if leaving:
            since = since if got else -PATIENCE
            got.append(0)
        else:
            sys.unraisablehook = hook
            for number, handler in before.items():
                signal.signal(number, handler)
