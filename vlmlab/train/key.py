"""Which run is which: the job that shapes the weights, and its key."""

import hashlib
import json

from .. import registry
from .run import Run

FORMAT = 2  # raise it when the same job would now give other numbers


def job_of(learner: type, config: object, options: object, seed: int, models: dict, task) -> dict:
    """Everything that shapes a run's weights, as plain values.

    Models by their weights and precision, runs by their keys and what they trained, data by its content (of
    training, not of tests), files that the config names by their content, not their paths, and the code of the
    learner itself. What all learners share is told by `FORMAT`.
    """
    named = registry.files(config)
    return {
        "method": registry.name_of(learner),
        "config": {k: v for k, v in registry.plain(config).items() if k not in named},
        "options": registry.plain(options),
        "seed": seed,
        "models": {role: identity(model) for role, model in sorted(models.items())},
        "data": task.training_fingerprint(),
        "files": named,
        "code": registry.code(learner),
    }


def identity(model: object) -> dict[str, str]:
    """What of a model, or of a run that is built on, shapes what is trained on it."""
    if isinstance(model, Run):
        return {"run": model.key, "weights": model.digest}
    return {"weights": model.fingerprint(), "precision": model.precision}


def key_of(job: dict) -> str:
    """Short hash of a job."""
    return hashlib.sha256(json.dumps([FORMAT, job], sort_keys=True).encode()).hexdigest()[:16]
