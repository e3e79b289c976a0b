"""Four small learners that ask everything of the loop, on drawn numbers instead of images.

Two stages with unlabelled views and LayerNorms of a given model; a whole student beside a teacher on pairs;
a queue and a momentum copy from nothing; a network that grows.
"""

import copy
import dataclasses
import hashlib
import json

import torch
import torch.nn.functional as F
from torch import nn

from vlmlab import processes
from vlmlab.learner import Group, Learner, Stage

WIDTH, BATCH = 8, 4


class Net(nn.Module):
    """A frozen model as the loop sees one: name, weights, precision."""

    name, source, precision, package = "net", None, "fp32", ""

    def __init__(self, seed: int = 0, width: int = WIDTH):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.body = nn.Sequential(nn.Linear(WIDTH, width), nn.LayerNorm(width), nn.Linear(width, WIDTH))
        self.requires_grad_(False)

    @property
    def device(self):
        return self.body[0].weight.device

    def autocast(self):
        return torch.autocast("cpu", enabled=False)

    def forward(self, x):
        return self.body(x)

    def fingerprint(self) -> str:
        values = [v.flatten().tolist() for v in self.state_dict().values()]
        return hashlib.sha256(json.dumps(values).encode()).hexdigest()


@dataclasses.dataclass
class Numbers:
    """A task without images: what fit asks of one."""

    id: str = "numbers"
    protocol: str = "pairs"
    shots: int | None = None
    seed: int = 1
    arguments: dict | None = None
    classes: object = None
    provenance: dict = dataclasses.field(default_factory=dict)

    def training_fingerprint(self) -> str:
        return "0" * 64


def feed(seed: int, *names: str, size: int = BATCH):
    """Batch n of normal numbers (size, WIDTH), a function of (seed, n); this process's share of it."""

    def batches(first):
        while True:
            g = torch.Generator().manual_seed(1000 * seed + first)
            rows = processes.share(range(size))
            yield {name: torch.randn(size, WIDTH, generator=g)[list(rows)] for name in names}
            first += 1

    return batches


class TwoStages(Learner):
    """A classifier on texts, then LayerNorms of its own copy of the model and a prompt, from two views."""

    models_needed = ("vlm",)

    def __init__(self, models, config):
        super().__init__(models, config)
        self.net = copy.deepcopy(models["vlm"])
        for name, p in self.net.named_parameters():
            p.requires_grad_("body.1" in name)
        self.head, self.prompt = nn.Linear(WIDTH, 3), nn.Parameter(torch.zeros(WIDTH))

    def stages(self, task, options, seed):
        norms = (Group("net.*", lr=1e-2), Group("prompt", lr=5e-3, weight_decay=0.1))
        return [
            Stage(
                "texts", 5, feed(seed, "text"), (Group("head.*", lr=1e-2),), "sgd", {"momentum": 0.9}, save=2
            ),
            Stage(
                "views",
                7,
                feed(seed + 1, "weak", "strong"),
                norms,
                save=3,
                clip=1.0,
                rate=lambda s, lr: lr / (s + 1),
            ),
        ]

    def enter(self, stage):
        if stage.name == "views":
            self.head.requires_grad_(False)

    def losses(self, batch, stage=None):
        if stage.name == "texts":
            noisy = batch["text"] + 0.1 * torch.randn_like(batch["text"])
            return {"ce": F.cross_entropy(self.head(noisy), torch.arange(len(noisy)) % 3)}
        with torch.no_grad():
            pseudo = self.head(self.net(batch["weak"])).argmax(1)
        return {"ce": F.cross_entropy(self.head(self.net(batch["strong"] + self.prompt)), pseudo)}


class Distil(Learner):
    """A student that trains wholly beside a teacher; its contrastive term looks across the batch."""

    models_needed = ("student", "teacher")

    def __init__(self, models, config):
        super().__init__(models, config)
        self.teacher, self.student = models["teacher"], copy.deepcopy(models["student"]).requires_grad_(True)
        self.scale = nn.Parameter(torch.tensor(1.0))

    def stages(self, task, options, seed):
        return [Stage("distil", 9, feed(seed, "image", "text"), (Group(lr=1e-2),), save=4)]

    def losses(self, batch, stage=None):
        a, b = (F.normalize(processes.gather(self.student(batch[k])), dim=1) for k in ("image", "text"))
        clip = F.cross_entropy(self.scale * a @ b.T, torch.arange(len(a)))
        return {"clip": clip, "kd": F.mse_loss(self.student(batch["image"]), self.teacher(batch["image"]))}


class Queue(Learner):
    """MoCo in small, from nothing: a momentum copy and a queue of keys."""

    models_needed = ()

    def __init__(self, models, config):
        super().__init__(models, config)
        self.q = nn.Linear(WIDTH, WIDTH)
        self.k = copy.deepcopy(self.q).requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(12, WIDTH), dim=1))
        self.register_buffer("at", torch.zeros((), dtype=torch.long))

    def stages(self, task, options, seed):
        return [Stage("moco", 8, feed(seed, "image", "other"), (Group("q.*", lr=1e-2),), "sgd", save=3)]

    def losses(self, batch, stage=None):
        q = F.normalize(self.q(batch["image"]), dim=1)
        with torch.no_grad():
            self.keys = F.normalize(self.k(batch["other"]), dim=1)
        logits = torch.cat([(q * self.keys).sum(1, keepdim=True), q @ self.queue.T], 1)
        return {"nce": F.cross_entropy(5 * logits, torch.zeros(len(q), dtype=torch.long))}

    @torch.no_grad()
    def after_step(self, stage, step):
        for k, q in zip(self.k.parameters(), self.q.parameters()):
            k.mul_(0.9).add_(q, alpha=0.1)
        at = int(self.at)
        self.queue[at : at + BATCH] = self.keys
        self.at.fill_((at + BATCH) % len(self.queue))


class Growing(Learner):
    """One layer, then two, the second a copy of the first."""

    models_needed = ()

    def __init__(self, models, config):
        super().__init__(models, config)
        self.layers = nn.ModuleList([nn.Linear(WIDTH, WIDTH)])

    def stages(self, task, options, seed):
        return [Stage(f"{n} layers", 4, feed(seed + n, "image"), (Group(lr=1e-2),), save=3) for n in (1, 2)]

    def enter(self, stage):
        if stage.name == "2 layers":
            self.layers.append(copy.deepcopy(self.layers[0]))

    def losses(self, batch, stage=None):
        x = batch["image"]
        for layer in self.layers:
            x = torch.tanh(F.dropout(layer(x), 0.2, training=self.training))
        return {"mse": F.mse_loss(x, batch["image"])}


LEARNERS = {"two_stages": TwoStages, "distil": Distil, "queue": Queue, "growing": Growing}


def models_of(cls) -> dict:
    return {role: Net(seed) for seed, role in enumerate(cls.models_needed)}
