"""`artefact`: what a notebook works with, the runs of one figure or table, open, and its file at the end."""

import functools
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from .. import manifest
from ..jobs.receipts import TRAIN, need_runs
from ..places import Places, folder, own_notebooks
from .provenance import save_figure
from .tables import save_table

COLUMNS = ("method", "variant", "task", "protocol", "shots", "seed", "name")


def artefact(
    study: str,
    artefact: str,
    profile: str = "demo",
    runs: str | Path = "runs",
    out: str | Path = "",
    *,
    jobs: int = 1,
    train: str = TRAIN,
    **others,
) -> "Opened":
    """The handle on one artefact, with its runs; those that are missing are trained first.

    For notebooks, wherever they are opened: the first five are the names of their parameters cell. When
    `vlmlab reproduce` executes the notebook nothing is missing. RuntimeError names a run that failed.
    """
    import pandas as pd

    found = manifest.load(study, own_notebooks())
    (chosen,) = found.choose([artefact], profile)
    places = Places.of(profile, folder(runs), notebooks=found.notebooks, **others)
    rows = [
        {
            **{column: getattr(job, column) for column in COLUMNS},
            "key": done.key,
            "path": (places.runs / done.run).as_posix(),
        }
        for job, done in need_runs(found.jobs(profile, chosen.runs), found.id, places, jobs, train)
    ]
    return Opened(found, profile, artefact, out, pd.DataFrame(rows, columns=[*COLUMNS, "key", "path"]))


def runs_of(study: str, artefact_id: str, profile: str = "demo", runs: str | Path = "runs", **others):
    """The runs of an artefact as a table, for a notebook that reads their folders itself: `Opened.runs`."""
    return artefact(study, artefact_id, profile, runs, **others).runs


def load(name: str, pretrained: str | None, precision: str | None, device: str | None = None):
    from ...models.load import load

    return load(name, pretrained, precision=precision, device=device)


class Opened:
    """One artefact in its notebook: `runs` (DataFrame), `model`, `scores`, `only`, `open`, `images`, `drawings`, `save`.

    runs: method, variant, task, protocol, shots, seed, name (method, or method_variant), key, path.
    """

    def __init__(self, study: manifest.Study, profile: str, id: str, out: str | Path, runs, opener=None):
        self.study, self.profile, self.id, self.out, self.runs = study, profile, id, out, runs
        self.opener = opener or functools.cache(load)  # each model once, whatever it is called

    def __repr__(self) -> str:
        return f"{self.id} of study {self.study.id}, profile {self.profile}, with {len(self.runs)} runs"

    @property
    def model(self):
        """The profile's one model, frozen, loaded once, as its runs were: name, weights, device, precision."""
        models = self.study.profile(self.profile).models
        roles = list(models)
        if len(roles) != 1:
            there = f"models by role ({', '.join(roles)})" if roles else "no model"
            raise ValueError(f"profile {self.profile} has {there}, not one; open its runs instead")
        return self.opener(**({"pretrained": None, "precision": None} | models[roles[0]]))

    @property
    def results(self):
        """What its runs measured, rows as in `vlmlab.results`: see `measured_by`."""
        import pandas as pd

        rows = zip(self.runs["path"], self.runs["protocol"], self.runs["variant"])
        return pd.concat([measured_by(*row) for row in rows], ignore_index=True)

    def scores(self, *settings: str, rule: str = "unified"):
        """What its runs measured under one rule, with settings of theirs as columns, such as scores("sigma"), and a
        column `name`; matrices that share a run have its rows once."""
        import pandas as pd

        from ...train.run import Run

        frames = []
        for row in self.runs.drop_duplicates(["path", "name"]).itertuples():
            found, own = measured_by(row.path, row.protocol, row.variant), Run(row.path).settings
            about = {"name": row.name, **{setting: own.get(setting) for setting in settings}}
            frames.append(found[found["rule"] == rule].assign(**about))
        return pd.concat(frames, ignore_index=True)

    def only(
        self, methods: Iterable[str] = (), tasks: str | Iterable[str] = (), first: int | None = None
    ) -> "Opened":
        """The same artefact with the runs of these names (method, or method_variant) and tasks alone.

        methods: empty for all. tasks: ids that a notebook would like to show, one or several; those without
        runs are left out, and when none is left (in a profile with other data, with a warning) or none was
        given, it is the first `first` tasks of these runs (None: all). ValueError when no run has such a name.
        """
        methods = list(methods)
        found = self.runs[self.runs["name"].isin(methods)] if methods else self.runs
        if found.empty:
            raise ValueError(
                f"no run is called {', '.join(methods)}; there are "
                f"{', '.join(self.runs['name'].unique()) or 'none'}"
            )
        there = list(found["task"].unique())
        wanted = [task for task in ([tasks] if isinstance(tasks, str) else tasks) if task]
        shown = [task for task in wanted if task in there] or there[:first]
        if wanted and not set(wanted) & set(there):
            warnings.warn(f"no runs of {', '.join(wanted)}; {', '.join(shown)} instead", stacklevel=2)
        return self.where(found["task"].isin(shown))

    def where(self, rows) -> "Opened":
        """The same artefact with the runs of these rows alone: a boolean per row of `runs`."""
        chosen = self.runs.loc[rows[rows].index]
        return Opened(self.study, self.profile, self.id, self.out, chosen, self.opener)

    def open(self) -> Iterator[tuple]:
        """(row, run, task) of each run: `run.model` is what was trained, the task is what it was trained on.

        One after the other, so that only the run at hand is in memory. ValueError for other frozen weights.
        """
        from ...tasks.task import task
        from ...train.opening import models_of
        from ...train.run import Run

        for row in self.runs.itertuples():
            run = Run(row.path)
            asked = {"id": row.task, "protocol": row.protocol, "shots": whole(row.shots), "seed": row.seed}
            data = task(**(run.info["task"] | asked))
            yield row, run.attach(models_of(run, load=self.opener), data), data

    def images(self, split, limit: int | None = None) -> tuple:
        """(images, labels), (sample, 3, height, width) and (sample,): a split as the model takes it, on its device.

        limit: at most so many, evenly spaced over the split.
        """
        import numpy as np

        from ...feeds import in_order

        if limit is not None and limit < len(split):
            split = split.select(np.linspace(0, len(split) - 1, limit).astype(int))
        batch = next(iter(in_order(split, self.model, len(split))))
        return batch["image"].to(self.model.device), batch["label"].to(self.model.device)

    def drawings(self, split, per_class: int | None = None, classes: int | None = None):
        """A split with each drawing once, whatever the number of grounds it is tested on; photographs stay as they are.

        per_class, classes: at most so many images of a class, and so many classes, evenly spaced; the classes left are
        numbered anew. ValueError for a split without images.
        """
        import numpy as np

        from ...capturing.rows import spread

        split = split.restrict(spread(len(split.classnames), classes))
        first = {}
        for i, id in enumerate(split.ids):
            first.setdefault((split.concept(id), split.content(id)), i)
        at = np.array([*first.values()])
        by_class = [at[split.labels[at] == c] for c in range(len(split.classnames))]
        return split.select(np.concatenate([c[spread(len(c), per_class)] for c in by_class if len(c)]))

    def save(self, picture, **options) -> list[Path]:
        """Write a matplotlib figure or a table (DataFrame) as the artefact's files, with the runs in its record.

        options: of `save_figure` (data) or `save_table` (data, marks, legend, digits, seeds). Returns the paths; none
        in a notebook that somebody opens by hand, where `out` is empty.
        """
        about = {"study": self.study.id, "profile": self.profile}
        save = save_figure if hasattr(picture, "savefig") else save_table
        if not {"run_keys", "seeds"} & options.keys():
            about["trained"] = self.runs
        return save(picture, self.out, self.id, **about, **options)


def measured_by(path: str | Path, protocol: str, variant: str = ""):
    """The rows of one run under one protocol, called by the variant's name in its matrix.

    Matrices whose training is the same share a run, under other protocols and maybe other names.
    """
    from ...train.run import Run

    rows = Run(path).results
    return rows[rows["protocol"] == protocol].assign(variant=variant)


def whole(value) -> int | None:
    """A number of shots as `task` takes it; a column of numbers and None holds floats and NaN."""
    return None if value is None or value != value else int(value)
