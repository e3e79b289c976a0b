"""`fit`: train a method on a task, in a run folder, resumable; it never knows which method it trains."""

import contextlib
import dataclasses
import json
import math
import random
import time
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from .. import methods
from ..git import git_state
from ..models.load import VLM
from ..tasks.split import Split
from ..tasks.task import Task
from .data import batch_for, test_loader, train_loader
from .run import (
    Run,
    damaged,
    key_of,
    load_trainables,
    now,
    read_lines,
    read_tensors,
    versions,
    write_json,
    write_lines,
    write_tensors,
)
from .schedule import learning_rates

OPTIMISERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}


@dataclasses.dataclass(frozen=True)
class Options:
    """How any method is trained; defaults are MMRL++'s for base-to-new, weight decay Dassl's."""

    epochs: int = 10
    batch_size: int = 4
    lr: float = 1e-3
    weight_decay: float = 5e-4
    optimiser: str = "adamw"
    warmup_epochs: int = 1
    crop: tuple[float, float] = (0.5, 1.0)
    max_steps: int | None = None
    eps: float = 1e-8  # of Adam and AdamW

    def __post_init__(self):
        if self.optimiser not in OPTIMISERS:
            raise ValueError(f"unknown optimiser {self.optimiser!r}; there are {', '.join(OPTIMISERS)}")
        whole("epochs", self.epochs, 1)
        whole("batch_size", self.batch_size, 1)
        whole("warmup_epochs", self.warmup_epochs, 0)
        if self.max_steps is not None:
            whole("max_steps", self.max_steps, 1)
        for name in ("lr", "weight_decay", "eps"):
            value = getattr(self, name)
            if not is_number(value) or not 0 <= value < math.inf:
                raise ValueError(f"{name} must be a number of at least 0, got {value!r}")
            object.__setattr__(self, name, float(value))  # 1 and 1.0 are the same run
        crop = self.crop
        if (
            not isinstance(crop, (list, tuple))
            or len(crop) != 2
            or not all(map(is_number, crop))
            or not 0 < crop[0] <= crop[1] <= 1
        ):
            raise ValueError(f"crop must be two shares of the image area, 0 < low <= high <= 1, got {crop!r}")
        object.__setattr__(self, "crop", tuple(map(float, crop)))


def is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def whole(name: str, value: object, least: int) -> None:
    """ValueError unless the value is a whole number of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")


def sort_out(method: str, settings: dict) -> tuple[object, Options]:
    """The method's Config and the Options in `settings`.

    A name that both have (a method may need to know `epochs`) is one value: the one given, else the
    method's default. ValueError for names that neither has and for wrong types.
    """
    own = [f.name for f in dataclasses.fields(Options)]
    its = {f.name: f.default for f in dataclasses.fields(methods.config(method))}
    settings = {k: v for k, v in its.items() if k in own} | settings
    try:
        config = methods.configure(method, {k: v for k, v in settings.items() if k in its or k not in own})
    except ValueError as e:
        raise ValueError(f"{e}; fit itself takes {', '.join(sorted(own))}") from e
    return config, Options(**{k: v for k, v in settings.items() if k in own})


def seed_all(seed: int) -> None:
    """Python, NumPy and torch on every device."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def device_name(device: torch.device) -> str:
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def fit(
    method: str,
    vlm: VLM,
    task: Task,
    *,
    out: str | Path = "runs",
    study: str = "adhoc",
    seed: int | None = None,
    workers: int = 0,
    **settings,
) -> Run:
    """Train `method` on `task.train`; returns the finished run.

    settings: fields of `Options` (epochs, batch_size, lr, ...) and of the method's Config. seed: of
    initial values, order and augmentation; the task's by default. A finished run is returned at once,
    an interrupted one goes on after its last epoch and ends with the same numbers.

    Raises ValueError for unknown or ill-typed settings, FloatingPointError for a loss that is not finite.
    """
    config, options = sort_out(method, settings)
    seed = task.seed if seed is None else seed
    whole("seed", seed, 0)
    whole("workers", workers, 0)
    labels = {
        "study": study,
        "method": method,
        "task": task.id,
        "protocol": task.protocol,
        "shots": task.shots,
        "seed": seed,
    }
    job = {
        "method": method,
        "config": dataclasses.asdict(config),
        "options": dataclasses.asdict(options),
        "seed": seed,
        "weights": vlm.fingerprint(),
        "data": task.fingerprint(),
        "precision": vlm.precision,
        "labels": labels,
    }
    job = json.loads(json.dumps(job))  # tuples become lists, as they come back from disk
    path = Path(out) / study / method / task.id.replace("/", ".") / key_of(job)
    if (path / "run.json").exists() and Run(path).status == "finished":
        return Run(path).attach(vlm, task)
    Trainer(path, job, vlm, task, options, workers).train()
    return Run(path).attach(vlm, task)


@torch.no_grad()
def features(method: torch.nn.Module, split: Split) -> tuple[torch.Tensor, torch.Tensor]:
    """(image, joint) features of a split without augmentation, and its labels."""
    batches = [
        (method.encode_image(images.to(method.vlm.device))["cls"], labels)
        for images, labels in test_loader(split, method.vlm, batch_size=batch_for(method.vlm.device))
    ]
    x, y = zip(*batches)
    return torch.cat(x), torch.cat(y)


class Trainer:
    """One run in progress: method, optimiser, position."""

    def __init__(self, path: Path, job: dict, vlm: VLM, task: Task, options: Options, workers: int):
        self.path, self.job, self.vlm, self.task = path, job, vlm, task
        self.options, self.workers = options, workers
        seed_all(job["seed"])
        names = task.train.classnames if len(task.train) else next(iter(task.tests.values())).classnames
        self.method = methods.build(job["method"], vlm, names, task.template, **job["config"]).train()
        self.parameters = self.method.trainable()
        if self.parameters and not len(task.train):
            raise ValueError(
                f"{job['method']} trains, but {task.id} under {task.protocol} has no training "
                "images; choose another protocol"
            )
        self.rates = learning_rates(options.epochs, options.lr, options.warmup_epochs)
        own = {"momentum": 0.9} if options.optimiser == "sgd" else {"eps": options.eps}
        self.stepped = bool(self.parameters) and not hasattr(self.method, "solve")
        if self.stepped:
            self.optimiser = OPTIMISERS[options.optimiser](
                list(self.parameters.values()), lr=options.lr, weight_decay=options.weight_decay, **own
            )
        scaled = vlm.precision == "amp_fp16" and vlm.device.type == "cuda"
        self.scaler = torch.amp.GradScaler(vlm.device.type, enabled=scaled)
        self.epoch, self.step, self.log = 0, 0, []
        self.frozen = {"weights": job["weights"], "model": vlm.name}
        self.record = {
            "key": key_of(job),
            "job": job,
            "model": vlm.name,
            "device": device_name(vlm.device),
            "classnames": list(names),
            "versions": versions(),
            "git": git_state(),
            "provenance": task.provenance,
            "started": now(),
            "seconds": [],
            "status": "running",
        }

    def train(self) -> None:
        """From the last saved epoch to the end; run.json tells how it went."""
        if self.stepped:
            self.resume()
        write_json(self.path / "run.json", self.record)
        try:
            if self.stepped:
                self.epochs()
            elif self.parameters:
                self.solve()
            checkpoint = self.frozen | {"method": self.job["method"], "config": self.job["config"]}
            write_tensors(self.path / "trainables.safetensors", self.tensors(), checkpoint)
        except BaseException as e:
            self.stopped(e)
            raise
        last = {"status": "finished", "finished": now(), "steps": self.step}
        write_json(self.path / "run.json", self.record | last)
        (self.path / "state.safetensors").unlink(missing_ok=True)

    def stopped(self, e: BaseException) -> None:
        """Keep the log up to here to read; tell run.json or, after Ctrl-C, the user."""
        with contextlib.suppress(OSError):  # a full disk must not hide what happened first
            write_lines(self.path / "metrics.jsonl", self.log)
            if isinstance(e, Exception):
                failure = {"status": "failed", "error": f"{type(e).__name__}: {e}"}
                write_json(self.path / "run.json", self.record | failure)
        if isinstance(e, KeyboardInterrupt):
            print(
                f"stopped; {self.epoch} of {self.options.epochs} epochs are kept in {self.path}, "
                "the same call goes on from there"
            )

    def solve(self) -> None:
        """A method that is solved, not stepped, gets the features of all training and validation images."""
        if self.task.val is None or not len(self.task.val):
            raise ValueError(
                f"{self.job['method']} chooses its strength on validation images, and {self.task.id} has none"
            )
        self.method.eval()
        found = [features(self.method, split) for split in (self.task.train, self.task.val)]
        self.record["solved"] = self.method.solve(*found)

    def epochs(self) -> None:
        o, n = self.options, len(self.task.train)
        total = o.epochs * max(1, n // o.batch_size)
        total = min(total, o.max_steps or total)
        title = "{method} {task} seed {seed}".format(**self.job["labels"])
        with tqdm(total=total, initial=self.step, desc=title, unit="step", leave=False) as bar:
            while self.epoch < o.epochs and self.step < total:
                started = time.perf_counter()
                # every epoch has its own random numbers: going on after a kill finds the same ones
                seeds = np.random.SeedSequence([self.job["seed"], self.epoch])
                seed_all(int(seeds.generate_state(1)[0]))
                for group in self.optimiser.param_groups:
                    group["lr"] = self.rates[self.epoch]
                loader = train_loader(
                    self.task.train,
                    self.vlm,
                    batch_size=o.batch_size,
                    crop=o.crop,
                    seed=self.job["seed"],
                    epoch=self.epoch,
                    workers=self.workers,
                )
                for images, targets in loader:
                    if self.step == total:
                        break
                    loss = self.batch(images.to(self.vlm.device), targets.to(self.vlm.device))
                    bar.set_postfix(loss=f"{loss:.3f}", lr=f"{self.rates[self.epoch]:.1e}", refresh=False)
                    bar.update()
                self.epoch += 1
                if hasattr(self.method, "after_epoch"):
                    self.method.after_epoch(self.epoch)
                self.record["seconds"].append(round(time.perf_counter() - started, 3))
                self.save()

    def batch(self, images: torch.Tensor, targets: torch.Tensor) -> float:
        """One optimiser step; every loss term is logged."""
        with self.vlm.autocast():
            terms = self.method.losses(images, targets)
            loss = sum(terms.values())
        values = {k: v.item() for k, v in terms.items()}
        if not math.isfinite(loss.item()):
            bad = [k for k, v in values.items() if not math.isfinite(v)]
            raise FloatingPointError(
                f"the loss term {', '.join(bad) or 'sum'} is {loss.item()} at step "
                f"{self.step} (epoch {self.epoch}, lr {self.rates[self.epoch]:.1e}); "
                f"lower lr or check the images. {self.path} keeps the last epoch"
            )
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.log.append(
            {
                "step": self.step,
                "epoch": self.epoch,
                "lr": self.rates[self.epoch],
                **values,
                "loss": loss.item(),
            }
        )
        self.step += 1
        return loss.item()

    def tensors(self) -> dict[str, torch.Tensor]:
        """The trainables on the CPU."""
        return {k: p.detach().cpu().contiguous() for k, p in self.parameters.items()}

    def save(self) -> None:
        """After an epoch: log first, then the state that points into it."""
        write_lines(self.path / "metrics.jsonl", self.log)
        tensors = {f"trainable.{k}": v for k, v in self.tensors().items()}
        for i, state in self.optimiser.state_dict()["state"].items():
            tensors |= {
                f"optimiser.{i}.{k}": torch.as_tensor(v).detach().cpu().contiguous()
                for k, v in state.items()
                if v is not None
            }
        tensors |= {f"buffer.{k}": v.detach().cpu().contiguous() for k, v in self.buffers().items()}
        position = {
            "epoch": self.epoch,
            "step": self.step,
            "seconds": self.record["seconds"],
            "scaler": self.scaler.state_dict(),
        }
        write_tensors(self.path / "state.safetensors", tensors, self.frozen | position)

    def buffers(self) -> dict[str, torch.Tensor]:
        """Running state of the method itself (averages over epochs), without the frozen model's."""
        return {k: v for k, v in self.method.named_buffers() if not k.startswith("vlm.")}

    def resume(self) -> None:
        """Go on from state.safetensors when there is one."""
        path = self.path / "state.safetensors"
        if not path.exists():
            return
        tensors, position = read_tensors(path, self.vlm)
        part = {
            n: {k[len(n) + 1 :]: v for k, v in tensors.items() if k.startswith(n + ".")}
            for n in ("trainable", "optimiser", "buffer")
        }
        load_trainables(self.method, part["trainable"], path)
        for name, buffer in self.buffers().items():
            buffer.copy_(part["buffer"][name])
        state = self.optimiser.state_dict()
        for key, value in part["optimiser"].items():
            i, name = key.split(".", 1)
            state["state"].setdefault(int(i), {})[name] = value.cpu() if name == "step" else value
        self.optimiser.load_state_dict(state)
        if position["scaler"]:
            self.scaler.load_state_dict(position["scaler"])
        self.epoch, self.step, self.record["seconds"] = (position[k] for k in ("epoch", "step", "seconds"))
        log = self.path / "metrics.jsonl"
        self.log = read_lines(log)[: self.step]
        if len(self.log) < self.step:
            raise damaged(log, f"{len(self.log)} of {self.step} steps are there")
