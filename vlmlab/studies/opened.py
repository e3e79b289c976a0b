"""Finished runs in a notebook: choose among them, open them on model and task, get images."""

import warnings
from collections.abc import Iterable, Iterator


def narrow(trained, methods: Iterable[str] = (), tasks: str | Iterable[str] = (), first: int | None = None):
    """The rows of `runs_of` with these names (method, or method_variant) and tasks, in their order.

    methods: empty for all. tasks: ids that a notebook would like to show, one or several; those without runs
    are left out, and when none is left (in a profile with other data, with a warning) or none was given, it
    is the first `first` tasks of these runs (None: all). ValueError when no row has such a name.
    """
    methods = list(methods)
    found = trained[trained["name"].isin(methods)] if methods else trained
    if found.empty:
        raise ValueError(
            f"no run is called {', '.join(methods)}; there are "
            f"{', '.join(trained['name'].unique()) or 'none'}"
        )
    there = list(found["task"].unique())
    wanted = [task for task in ([tasks] if isinstance(tasks, str) else tasks) if task]
    shown = [task for task in wanted if task in there] or there[:first]
    if wanted and not set(wanted) & set(there):
        warnings.warn(f"no runs of {', '.join(wanted)}; {', '.join(shown)} instead", stacklevel=2)
    return found[found["task"].isin(shown)]


def open_runs(trained, vlm) -> Iterator[tuple]:
    """(row, run, task) of each row of `runs_of`: `run.model` is the trained method on `vlm`, the task is the
    one it was trained on.

    One after the other, so that only the run at hand is in memory. ValueError for other frozen weights.
    """
    from ..tasks.task import task
    from ..train.run import Run

    for row in trained.itertuples():
        data = task(row.task, protocol=row.protocol, shots=_shots(row.shots), seed=row.seed)
        yield row, Run(row.path).attach(vlm, data), data


def _shots(value) -> int | None:
    """A number of shots as `task` takes it; a column of numbers and None holds floats and NaN."""
    return None if value is None or value != value else int(value)


def images_of(split, vlm, limit: int | None = None) -> tuple:
    """(images, labels), (sample, 3, height, width) and (sample,): a split, preprocessed, on vlm's device.

    limit: at most so many, evenly spaced over the split.
    """
    import numpy as np

    from ..train.data import test_loader

    if limit is not None and limit < len(split):
        split = split.select(np.linspace(0, len(split) - 1, limit).astype(int))
    images, labels = next(iter(test_loader(split, vlm, batch_size=len(split))))
    return images.to(vlm.device), labels.to(vlm.device)
