"""What every student shares: its own copy of a model, all of which trains, the feed of pairs, the protocol of training,
what a test may ask it, and the export."""

import dataclasses
import fnmatch
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor

from .. import feeds, processes
from ..learner import Batch, Group, Learner, Stage
from ..models.export import write_folder
from ..models.vlm import VLM
from ..rates import half_cosine
from ..schema import Count, Whole, described
from . import contrast

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Amount = Annotated[float, msgspec.Meta(ge=0, le=1e9)]  # NaN and infinity are none
Above = Annotated[float, msgspec.Meta(gt=0, le=1e9)]
Epochs = described(int, "a whole number from 1 to 100000", ge=1, le=100_000)
LARGEST_SCALE = math.log(100)  # of CLIP's logit_scale, clamped after each step


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Unit features (batch of all processes, joint) of images and their texts, and the model's own scale."""

    image: Tensor
    text: Tensor
    scale: float | Tensor

    @property
    def logits(self) -> Tensor:
        """(image, text) scaled cosines."""
        return contrast.cosines(self.image, self.text, self.scale)


class Student(Learner):
    """A student that trains on images with captions. Subclasses add what they take from the teacher.

    student: a copy of the given model whose parameters all train; teacher: the other one, frozen.
    """

    models_needed = ("student", "teacher")

    @dataclasses.dataclass(frozen=True)
    class Options:
        """How every student is trained: AdamW with betas 0.9 and 0.98, eps 1e-6, no decay of vectors, a warm-up and a
        cosine in every stage. epochs: of all stages in which the student trains; max_steps: their largest number;
        watch: steps between two measurements of each term's share in the student's gradient, 0 for none."""

        epochs: Epochs = 25
        batch_size: Count = 256
        lr: Amount = 5e-5
        weight_decay: Amount = 0.2
        warmup: Share = 0.02  # of a stage
        crop: tuple[Share, Share] = (0.5, 1.0)
        max_steps: Count | None = None
        watch: Whole = 0

        def __post_init__(self):
            if not 0 < self.crop[0] <= self.crop[1]:
                raise ValueError(
                    f"crop must be two shares of the image area, 0 < low <= high <= 1, got {self.crop!r}"
                )

    def __init__(self, models: Mapping, config: object):
        super().__init__({role: models[role] for role in self.models_needed}, config)
        self.student = self.copy_of(plain("student", models["student"]))
        self.teacher = plain("teacher", models["teacher"]) if "teacher" in models else None
        self.classnames: list[str] = []
        self.template = "{}"

    def copy_of(self, model: VLM) -> VLM:
        """The model as it begins to train."""
        return model.thaw("*")

    @property
    def device(self) -> torch.device:
        return self.student.device

    @property
    def preprocess(self):
        return self.student.preprocess

    # training

    def stages(self, task, options: Options, seed: int) -> list[Stage]:
        """One stage in which everything trains."""
        return [self.stage("train", self.steps(task, options), task, options, seed, {"*": 1.0})]

    def steps(self, task, o: Options, epochs: int | None = None) -> int:
        """Steps of the whole training. ValueError for training data that are no images with captions."""
        images = task.train
        if not len(images) or not hasattr(images, "texts"):
            raise ValueError(
                f"{type(self).__name__} learns from images with captions; {task.id} under {task.protocol} trains on "
                f"{images!r}; choose the protocol retrieval"
            )
        found = (epochs or o.epochs) * feeds.Epochs(len(images), o.batch_size, seed=0).steps
        return min(found, o.max_steps or found)

    def stage(
        self,
        name: str,
        steps: int,
        task,
        o: Options,
        seed: int,
        rates: Mapping[str, float],
        first: int = 0,
        images=None,
    ) -> Stage:
        """A stage on pairs, which goes on behind `first` steps of the data. rates: pattern of names -> the learning
        rate as a multiple of lr; images: those of the task, or a part of them."""
        images = task.train if images is None else images
        views = views_of(self.student, self.teacher, o.crop, images.flip)
        pin = self.device.type == "cuda"
        pairs = feeds.epochs(images, views, o.batch_size, seed, first + steps, self.workers, pin)
        rate = half_cosine(steps, max(1, round(o.warmup * steps)))
        adam = {"betas": (0.9, 0.98), "eps": 1e-6}
        epoch = feeds.Epochs(len(images), o.batch_size, seed).steps
        groups = self.groups({pattern: factor * o.lr for pattern, factor in rates.items()}, o.weight_decay)
        return Stage(
            name,
            steps,
            lambda n: watched(pairs(first + n), n, o.watch),
            groups,
            "adamw",
            adam,
            rate,
            save=min(epoch, 500),
            epoch=epoch,
        )

    def groups(self, rates: Mapping[str, float], decay: float) -> tuple[Group, ...]:
        """Groups of these rates by pattern, those of vectors and scales first, without weight decay."""
        left, found = dict(self.trainable()), []
        for pattern, lr in rates.items():
            its = {n: p for n, p in left.items() if fnmatch.fnmatchcase(n, pattern)}
            flat = {n: None for n, p in its.items() if p.ndim < 2}
            for name in flat:  # many share an ending, as "ln_1.weight", and are told by it
                alike = f"{pattern}{'.'.join(name.rsplit('.', 2)[-2:])}" if pattern.endswith("*") else name
                matched = [n for n in its if fnmatch.fnmatchcase(n, alike)]
                alike = alike if matched and all(n in flat for n in matched) else name
                if alike not in [group.names for group in found]:
                    found.append(Group(alike, lr))
            found += [Group(pattern, lr, decay)] if len(flat) < len(its) else []
            left = {n: p for n, p in left.items() if n not in its}
        return tuple(found)

    def losses(self, batch: Batch, stage: Stage | None = None) -> dict[str, Tensor]:
        """CLIP's loss on the deployed embeddings of image (batch, 3, height, width) and text (batch of str)."""
        return {"clip": contrast.pairs(self.student_pairs(batch).logits)}

    def beside(self, batch: Batch, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """{"share_" + term: share} of each term in the student's gradient, where this step is watched: the norm of its
        gradient over the sum of all."""
        trained = [p for n, p in self.trainable().items() if n.startswith("student.")]
        if not batch.get("watched") or not trained:
            return {}
        norms = {}
        for name, term in terms.items():
            grads = [None] * len(trained)
            if term.requires_grad:
                grads = torch.autograd.grad(term, trained, retain_graph=True, allow_unused=True)
            grads = [torch.zeros_like(p) if g is None else g for p, g in zip(trained, grads)]
            processes.average(grads)
            norms[name] = torch.stack([g.float().norm() for g in grads]).norm()
        total = sum(norms.values()).clamp(min=1e-12)
        return {f"share_{name}": norm / total for name, norm in norms.items()}

    def student_pairs(self, batch: Batch) -> Pairs:
        """The student's embeddings of a batch."""
        image, text = self.student.encode_image(batch["image"]), self.student.encode_text(batch["text"])
        return Pairs(contrast.gathered(image), contrast.gathered(text), self.student.logit_scale)

    @torch.no_grad()
    def teacher_pairs(self, batch: Batch) -> Pairs:
        """The teacher's embeddings of the same batch, without a graph."""
        image = self.teacher.encode_image(for_teacher(batch))
        text = self.teacher.encode_text(batch["text"])
        return Pairs(contrast.gathered(image), contrast.gathered(text), self.teacher.logit_scale)

    @torch.no_grad()
    def after_step(self, stage: Stage, step: int) -> None:
        self.student.clip.logit_scale.clamp_(max=LARGEST_SCALE)

    # what a test asks

    def encode_image(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) -> (batch, joint), not normalised."""
        return self.student.encode_image(images)

    def encode_text(self, texts: list[str]) -> Tensor:
        """list of texts -> (text, joint), not normalised."""
        return self.student.encode_text(texts)

    @property
    def scale(self) -> float:
        """What its cosines are multiplied by where they are logits."""
        return self.student.clip.logit_scale.detach().exp().item()

    def set_classes(self, classnames, template: str) -> None:
        """Tell apart these classes by their names in the template, with one {}."""
        self.classnames, self.template, self._classes = list(classnames), template, None

    def image_features(self, images: Tensor) -> Tensor:
        return F.normalize(self.encode_image(images), dim=-1)

    def classify(self, z: Tensor, rule: str = "unified", split: str | None = None) -> Tensor:
        """(batch, class) scaled cosines from `image_features`: zero-shot classification."""
        if self._classes is None:
            texts = [self.template.format(name.replace("_", " ")) for name in self.classnames]
            self._classes = F.normalize(self.encode_text(texts), dim=-1)
        return contrast.cosines(z, self._classes, self.scale)

    def alone(self) -> VLM:
        """The student as a model of its own, without what it was trained with."""
        return self.student

    def export(self, folder: str | Path, about: dict | None = None) -> Path:
        """Write the student as an ordinary model, which `vlmlab.load` and open_clip read; about: what to say of it.

        >>> vlmlab.load(run.model.export("models/student"))
        """
        return write_folder(self.alone(), folder, {"method": type(self).__name__} | (about or {}))


def plain(role: str, model) -> VLM:
    """The model of a role: a two-tower model, or the student that a finished run trained. ValueError for another."""
    model = model.alone() if isinstance(model, Student) else model
    if not isinstance(model, VLM):
        raise ValueError(
            f"the {role} must be a model of images and texts, or a run that trained one, got a {type(model).__name__}"
        )
    return model


def watched(batches: Iterator[Batch], step: int, every: int) -> Iterator[Batch]:
    """Batches from a step on, told whether their step is measured."""
    for n, batch in enumerate(batches, step):
        yield {**batch, "watched": every > 0 and n % every == 0}


def for_teacher(batch: Batch) -> Tensor:
    """The images of a batch as the teacher takes them."""
    return batch.get("teacher_image", batch["image"])


def views_of(student: VLM, teacher: VLM | None, crop: tuple[float, float], flip: bool) -> dict:
    """Name of a batch's images -> how they are made; where the teacher takes other pixels, it sees the same crop."""
    views = {"image": feeds.train_transform(student, crop, flip)}
    pixels = [(m.image_size, tuple(m.mean), tuple(m.std)) for m in (student, teacher) if m is not None]
    if len(set(pixels)) > 1:
        both = SameDraws(views["image"], feeds.train_transform(teacher, crop, flip))
        views = {"image": both.first, "teacher_image": both.second}
    return views


class SameDraws:
    """Two transforms that draw the same random numbers, the second always behind the first."""

    def __init__(self, one, other):
        self.one, self.other = one, other

    def first(self, image):
        self.state = torch.get_rng_state()
        return self.one(image)

    def second(self, image):
        torch.set_rng_state(self.state)
        return self.other(image)
