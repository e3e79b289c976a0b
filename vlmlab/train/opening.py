"""From a run folder to the trained learner: models, task, settings, tensors."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path

from .. import registry
from ..learner import Learner, Stage
from .records import Finished, damaged
from .run import Run, open_run
from .run_folder import INFO, TRAINABLES, RunFolder
from .tensor_files import load_own, read_tensors


def by_role(learner: type[Learner], models) -> dict:
    """Models by role, in the learner's order, from what a user gave: one model, a dict, or nothing. ValueError names the
    roles."""
    need = learner.models_needed
    if models is None:
        models = {}
    if not isinstance(models, dict):
        if len(need) != 1:
            raise ValueError(
                f"{registry.name_of(learner)} needs models by role, "
                f"{{{', '.join(f'{role!r}: ...' for role in need)}}}; got one model"
            )
        models = {need[0]: models}
    if set(models) != set(need):
        raise ValueError(
            f"{registry.name_of(learner)} needs models for {', '.join(need) or 'no role'}; "
            f"got {', '.join(models) or 'none'}"
        )
    for role, model in models.items():
        if getattr(model, "thawed", None):
            raise ValueError(
                f"the {role} is thawed; give fit the frozen model, the learner thaws a copy of its own"
            )
    return {role: models[role] for role in need}


def standing(model):
    """A model itself, or what a finished run trained."""
    return model.model if isinstance(model, Run) else model


def attached(run: Run, models, learner: type[Learner] | None = None, config: object = None) -> Learner:
    """The learner of a finished run on these models."""
    if run.status != "finished":
        raise ValueError(f"{run.path} is {run.status}; call vlmlab.fit again to finish it")
    info = RunFolder(run.path).info(Finished)
    cls = learner or class_of(run, info["job"])
    models = by_role(cls, models)
    if models.keys() != info["models"].keys():
        raise damaged(run.path / INFO, f"{registry.name_of(cls)} stands on {', '.join(models) or 'nothing'}")
    for role, model in models.items():
        check_weights(run, role, info["models"][role], model)
    try:
        config = config or registry.configure(cls, info["config"])
    except ValueError as e:
        raise ValueError(f"{run.path / INFO}: {e}; another version of the method made this run") from e
    if registry.files(config) != info["job"]["files"]:
        raise ValueError(f"{run.path} was trained with other content of {', '.join(info['job']['files'])}")
    learner = cls.build({role: standing(m) for role, m in models.items()}, info["classes"], config)
    for name, steps in info["stages"]:
        learner.enter(Stage(name, steps))
    path = run.path / TRAINABLES
    tensors, record = read_tensors(path, learner.device if models else "cpu", checked=bool(info.get("log")))
    if record.get("key") != info["key"]:
        raise damaged(path, f"it is of the run {record.get('key')}, not of {info['key']}")
    load_own(learner, tensors, path)
    learner.prepared = info["prepared"]
    return learner.eval()


def class_of(run: Run, job: dict) -> type[Learner]:
    """The learner that a run names. A warning tells when its code is no longer what trained the run."""
    try:
        cls = registry.find(job["method"])
    except ValueError as e:
        raise ValueError(
            f"{run.path} was trained by {job['method']}, which is not found here ({e}); give its class: "
            "Run(path).attach(models, task, Class)"
        ) from e
    now = registry.code(cls)
    if other := [name for name, digest in job["code"].items() if now.get(name, digest) != digest]:
        warnings.warn(f"{run.path} was trained by other code of {', '.join(other)} than this", stacklevel=3)
    return cls


def check_weights(run: Run, role: str, wanted: dict, model) -> None:
    """ValueError when a model is not the one that a run was trained on."""
    now = model.digest if isinstance(model, Run) else model.fingerprint()
    if now != wanted["weights"]:
        named = f"{wanted['name']} as {role}" if role != "vlm" else wanted["name"]
        raise ValueError(
            f"{run.path} was trained on weights {wanted['weights'][:12]} ({named}), but this one has {now[:12]}; "
            "load the model it was trained on"
        )


def models_of(run: Run, device: str | None = None, load: Callable | None = None) -> dict:
    """Models by role that run.json names. load: what opens one, by default `vlmlab.load`."""
    from ..models import load as door

    models, load = {}, load or door.load
    for role, model in run.info["models"].items():
        if "run" in model:
            models[role] = open_run(run.path / model["run"], device)
        elif model["source"] is None:
            raise ValueError(
                f"{run.path} was trained on a {role} that was handed over as an object ({model['name']}); "
                "open it with Run(path).attach(models, task)"
            )
        else:
            models[role] = load(**model["source"], device=device)
    return models


def opened(run: Run, device: str | None) -> Run:
    """A run attached to the models and the task that its run.json names."""
    from ..tasks.task import task

    info, models = run.info, models_of(run, device)
    if info["task"] is None:
        raise ValueError(
            f"{run.path} was trained on a task made by hand; open it with Run(path).attach(models, task)"
        )
    data = task(**info["task"])
    if data.training_fingerprint() != info["job"]["data"]:
        raise ValueError(f"{run.path} was trained on other data than {info['task']['id']} holds now")
    return run.attach(models, data)


def described(models: dict, path: Path) -> dict:
    """Models as run.json names them, so that `opened` finds them again."""
    found = {}
    for role, model in models.items():
        if isinstance(model, Run):
            where = os.path.relpath(model.path.resolve(), path.resolve())
            found[role] = {"run": where, "key": model.key, "name": repr(model), "weights": model.digest}
        else:
            found[role] = {
                "name": model.name,
                "source": model.source,
                "precision": model.precision,
                "weights": model.fingerprint(),
            }
            found[role] |= {"package": told} if (told := getattr(model, "package", "")) else {}
    return found
