"""The loop: a learner through its stages, with an exact resume, waiting for nothing on the way.

Every step starts from the seed (seed, stage, step), so that going on after a kill finds the same numbers.
Loss terms stay on the device and are fetched in blocks; saving goes on beside the next steps.
"""

import dataclasses
import math
import random
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from .. import processes, progress, registry
from ..feeds import moved
from ..learner import Learner, Stage, grouped
from .records import damaged
from .run_folder import RunFolder, State
from .tensor_files import load_own

OPTIMISERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}
BLOCK = 20  # steps whose loss terms are fetched at once


def seed_all(*numbers: int) -> None:
    """Python, NumPy and torch on every device, from one number or from several together."""
    if len(numbers) > 1:
        numbers = (int(np.random.SeedSequence(numbers).generate_state(1)[0]),)
    random.seed(numbers[0])
    np.random.seed(numbers[0])
    torch.manual_seed(numbers[0])


@dataclasses.dataclass
class Position:
    """Where a training stands: `step` steps of stage number `stage` are done."""

    stage: int = 0
    step: int = 0


class Loop:
    """One training in progress.

    log: a row per step that is not yet in metrics.jsonl; seconds: between saved states.
    """

    def __init__(self, learner: Learner, stages: list[Stage], seed: int, folder: RunFolder, title: str = ""):
        self.learner, self.stages, self.seed, self.folder, self.title = learner, stages, seed, folder, title
        self.at, self.log, self.seconds = Position(), [], []
        self.pending: list[tuple[dict, dict[str, Tensor]]] = []
        self.done = 0  # steps of all stages whose terms are in the log
        self.saver = Saver()
        self.optimiser: torch.optim.Optimizer | None = None
        self.resting: list[torch.nn.Parameter] = []  # what this stage leaves alone
        scaled = learner.precision == "amp_fp16" and learner.device.type == "cuda"
        self.scaler = torch.amp.GradScaler(learner.device.type, enabled=scaled)

    def run(self) -> None:
        """From the last saved state to the end. FloatingPointError names step and term that are not finite."""
        total = sum(stage.steps for stage in self.stages)
        before = sum(stage.steps for stage in self.stages[: self.at.stage]) + self.at.step
        bar = progress.bar(
            total=total,
            initial=before,
            desc=self.title,
            unit="step",
            shown=total > 0 and not processes.rank(),
        )
        try:
            with bar:
                for number in range(self.at.stage, len(self.stages)):
                    self.stage(number, bar)
        finally:
            self.wake()
            self.saver.close()

    def stage(self, number: int, bar: tqdm) -> None:
        """One stage, or the rest of it."""
        stage = self.stages[number]
        if self.optimiser is None or number != self.at.stage:
            self.enter(number)
        if self.at.step == stage.steps:
            return
        since, last = time.perf_counter(), stage.steps - 1
        for step, batch in zip(range(self.at.step, stage.steps), stage.feed(self.at.step)):
            self.step(stage, step, batch)
            bar.update()
            saves = (step + 1) % stage.save == 0 or step == last
            if saves or len(self.pending) == BLOCK:
                bar.set_postfix(self.fetch(), refresh=False)
            if saves:
                self.seconds.append(round(time.perf_counter() - since, 3))
                since = time.perf_counter()
                self.save()
        if self.at.step < stage.steps:
            raise ValueError(
                f"the feed of stage {stage.name!r} ended after {self.at.step} of {stage.steps} steps"
            )

    def enter(self, number: int) -> None:
        """Give the learner the shape of a stage, and its parameters an optimiser of their own."""
        stage = self.stages[number]
        self.wake()
        seed_all(self.seed, number, -1 % 2**32)
        self.learner.enter(stage)
        self.learner.check_given()
        self.at = Position(number, 0)
        trainable = self.learner.trainable()
        groups = grouped(trainable, stage.groups)
        self.names = [name for group in groups for name in group]
        self.resting = [p.requires_grad_(False) for name, p in trainable.items() if name not in self.names]
        parameters = [
            {"params": list(members.values()), "lr": g.lr, "weight_decay": g.weight_decay}
            for g, members in zip(stage.groups, groups)
        ]
        self.parameters = [p for group in parameters for p in group["params"]]
        self.optimiser = OPTIMISERS[stage.optimiser](parameters, **stage.options)

    def wake(self) -> None:
        """Let everything train again that the last stage left alone."""
        for parameter in self.resting:
            parameter.requires_grad_(True)
        self.resting = []

    def step(self, stage: Stage, step: int, batch: Mapping) -> None:
        """One optimiser step; nothing in it asks the device for a value."""
        seed_all(self.seed, self.at.stage, step)
        with self.learner.autocast():
            terms = self.learner.losses(moved(batch, self.learner.device), stage)
            if step == 0:
                check_terms(self.learner, terms)
            loss = sum(terms.values())
        beside = self.learner.beside(batch, terms)
        for group, its in zip(self.optimiser.param_groups, stage.groups):
            group["lr"] = stage.rate(step, its.lr)
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        processes.average([p.grad for p in self.parameters if p.grad is not None])
        if stage.clip is not None:
            self.scaler.unscale_(self.optimiser)
            torch.nn.utils.clip_grad_norm_(self.parameters, stage.clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.learner.after_step(stage, step)
        row = {"step": self.done + len(self.pending), "stage": stage.name}
        row |= {"epoch": step // stage.epoch} if stage.epoch else {}
        row["lr"] = self.optimiser.param_groups[0]["lr"]
        kept = terms | {"loss": loss} | beside
        self.pending.append((row, {k: v.detach() for k, v in kept.items()}))
        self.at.step = step + 1

    def fetch(self) -> dict[str, str]:
        """Bring the terms of the steps since the last time into the log; what a progress bar shows of them."""
        if not self.pending:
            return {}
        rows, self.pending = self.pending, []
        values = torch.stack([v.double() for _, terms in rows for v in terms.values()])
        processes.average([values])
        found = iter(values.tolist())
        for row, terms in rows:
            row |= {name: next(found) for name in terms}
            if bad := [name for name in row if isinstance(row[name], float) and not math.isfinite(row[name])]:
                term = ", ".join(name for name in bad if name != "loss") or "sum"
                weight = self.learner.damaged_weight()
                fix = (
                    f"the weight {weight} of the model is not finite"
                    if weight
                    else "lower lr or check the images"
                )
                raise FloatingPointError(
                    f"the loss term {term} is {row[bad[0]]} at step {row['step']} (stage {row['stage']}, lr "
                    f"{row['lr']:.1e}); {fix}. {self.folder.path} keeps the last state"
                )
            self.log.append(row)
            self.done += 1
        return {"loss": f"{row['loss']:.3f}", "lr": f"{row['lr']:.1e}"}

    def save(self) -> None:
        """Hand a copy of the state to the saver: log first, then the state that points into it."""
        if processes.rank():
            return
        rows, self.log = self.log, []
        position = dataclasses.asdict(self.at) | {"done": self.done, "seconds": self.seconds}
        position["scaler"] = self.scaler.state_dict()
        state = State(copies(self.learner.own()), copies(self.optimiser_state()), position)
        ready = event(self.learner.device)

        def write() -> None:
            if ready is not None:
                ready.synchronize()
            self.folder.append_log(rows)
            self.folder.write_state(state)

        self.saver.submit(write)

    def optimiser_state(self) -> dict[str, Tensor]:
        """ "parameter name|entry" -> tensor."""
        state = self.optimiser.state_dict()["state"]
        return {
            f"{self.names[i]}|{key}": torch.as_tensor(value)
            for i, entries in state.items()
            for key, value in entries.items()
            if value is not None
        }

    def resume(self) -> bool:
        """Take up the last saved state, if there is one."""
        state = self.folder.read_state(self.learner.device)
        if state is None:
            return False
        position = state.position
        if position["stage"] >= len(self.stages) or position["step"] > self.stages[position["stage"]].steps:
            raise damaged(
                self.folder.state, f"there is no step {position['step']} of stage {position['stage']}"
            )
        for number in range(position["stage"] + 1):
            self.enter(number)
        load_own(self.learner, state.own, self.folder.state)
        found = self.optimiser.state_dict()
        for key, value in state.optimiser.items():
            name, entry = key.rsplit("|", 1)
            i = self.names.index(name)
            found["state"].setdefault(i, {})[entry] = value.cpu() if entry == "step" else value
        self.optimiser.load_state_dict(found)
        if position["scaler"]:
            self.scaler.load_state_dict(position["scaler"])
        self.at = Position(position["stage"], position["step"])
        self.done, self.seconds = position["done"], position["seconds"]
        self.folder.cut_log(self.done, position["log"])
        return True

    def stopped(self) -> str:
        """Keep the log up to here to read; says how far the saved state is."""
        try:
            self.fetch()
        except FloatingPointError:  # it was already said, or Ctrl-C came first
            pass
        if not processes.rank():
            self.folder.append_log(self.log)
        self.log = []
        return self.progress()

    def progress(self) -> str:
        """Such as "2 of 3 epochs" or "stage 1 of 2, 40 of 100 steps"."""
        if not self.stages:
            return "0 steps"
        position = self.folder.position()
        number, step = position.get("stage", 0), position.get("step", 0)
        stage = self.stages[number]
        where = f"stage {number + 1} of {len(self.stages)}, " if len(self.stages) > 1 else ""
        if stage.epoch:
            return f"{where}{-(-step // stage.epoch)} of {-(-stage.steps // stage.epoch)} epochs"
        return f"{where}{step} of {stage.steps} steps"


def check_terms(learner: Learner, terms: object) -> None:
    """ValueError with the learner's file when its losses are no named numbers."""
    named = isinstance(terms, Mapping) and terms
    if not named or not all(isinstance(v, Tensor) and v.dim() == 0 for v in terms.values()):
        got = {k: getattr(v, "shape", v) for k, v in terms.items()} if named else repr(terms)[:80]
        raise ValueError(
            f"{registry.called(type(learner))}: losses must give {{name: tensor of one number}}; it gave {got}"
        )


def copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies in the CPU's memory; from a GPU they may still be on their way, see `event`."""
    out = {}
    for name, x in tensors.items():
        there = torch.empty_like(x, device="cpu", pin_memory=x.is_cuda, memory_format=torch.contiguous_format)
        out[name] = there.copy_(x.detach(), non_blocking=True)
    return out


def event(device: torch.device) -> "torch.cuda.Event | None":
    """Comes to pass when all that was asked of a GPU so far is done."""
    if device.type != "cuda":
        return None
    found = torch.cuda.Event()
    found.record()
    return found


class Saver:
    """Does one thing at a time beside the loop; an error in it comes out at the next call."""

    def __init__(self):
        self.thread, self.last = ThreadPoolExecutor(1), None

    def submit(self, work) -> None:
        self.wait()
        self.last: Future | None = self.thread.submit(work)

    def wait(self) -> None:
        last, self.last = self.last, None
        if last is not None:
            last.result()

    def close(self) -> None:
        try:
            self.wait()
        finally:
            self.thread.shutdown()
