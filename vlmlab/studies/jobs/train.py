"""What one training job does, in its own process: fit, evaluate, say where the run is."""

import functools
import hashlib
from pathlib import Path

import pandas as pd

import vlmlab

from ... import methods

PRESET_OF = ("method", "task", "protocol", "shots")


@functools.lru_cache(maxsize=2)
def loaded(spec: tuple):
    """A model of a study, for all jobs of this process. spec: sorted keywords of `vlmlab.load`."""
    return vlmlab.load(**dict(spec))


def train(job: dict, runs: str) -> dict:
    """Train and evaluate one run; at once where it is finished. job: `Job.spec`, `after` with run folders.

    Returns its folder below `runs`, its key and status, and a digest of what it produced.
    """
    models = {role: loaded(tuple(sorted(model.items()))) for role, model in job["models"].items()}
    models |= {role: vlmlab.open_run(Path(runs, run)) for role, run in job["after"].items()}
    asked = {k: job[k] for k in ("protocol", "shots", "seed", "template") if k in job}
    task = vlmlab.task(job["task"], **asked)
    usual = methods.presets(*(job[k] for k in PRESET_OF)) if job["presets"] else {}
    about = {"out": runs, "study": job["study"], "variant": job["variant"]}
    run = vlmlab.fit(job["method"], models, task, **about, **(usual | job["config"]))
    rows = vlmlab.evaluate(run, task, rule=job["rules"])
    path = Path(run.path)
    return {
        "run": path.relative_to(runs).as_posix(),
        "key": run.key,
        "status": run.status,
        "digest": digest(rows, path / "trainables.safetensors"),
    }


def digest(rows: pd.DataFrame, weights: Path) -> str:
    """Of the measured rows and the trained weights: the same only when both are, to the bit."""
    value = hashlib.sha256("\n".join(sorted(rows.to_csv(index=False).splitlines())).encode())
    if weights.is_file():
        value.update(weights.read_bytes())
    return value.hexdigest()[:16]
