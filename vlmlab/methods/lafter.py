"""LaFTer: a classifier learnt from sentences, then prompts and norms from its labels of images without any
(Mirza et al., NeurIPS 2023)."""

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import descriptions, feeds
from ..learner import Batch, Group, Stage
from ..models import edits
from ..models.towers import Edit
from ..schema import Count
from .fixed_classes import FixedClasses
from .method import Amount, Epochs, Method, Share
from .mmrl import uniform
from .promptsrc import TEMPLATES

TEXTS, IMAGES = "texts", "images"  # the two stages
PATCH = 16  # pixels that the published code assumes where prompts start, whatever the model's patches are
NORMS = {
    "all": ("visual.*ln_*",),
    "inner": ("visual.ln_pre.*", "visual.transformer.*ln_*"),  # the read-out stays the frozen model's
    "none": (),
}


class LaFTer(FixedClasses):
    """A linear classifier from texts alone, then image prompts and LayerNorms from its own labels of images.

    Stage `texts`: cross-entropy of unit text features of all sentences with noise N(0, noise^2), all in every step.
    Stage `images`: of a strong view, read with prompts and trained norms, against what the classifier as it was after
    the first stage says of a clean view without prompts. The rate is constant in both. The class names of the task
    are all that it is told, so it knows no others.

    As published, and to be known when reading its numbers: the classifier learnt from unit features but reads the
    student's as they are (student = "unit" changes that); the teacher runs through the norms that train, so its labels
    drift (teacher = "frozen"); the published script prints the best accuracy on the test images over all epochs. Here
    the last epoch counts, and the rule `unified+best_epoch` says the other number beside it.
    """

    reports = {p: ("unified", "unified+best_epoch") for p in ("few_shot", "label_distribution")}

    @dataclasses.dataclass(frozen=True)
    class Config:
        """Defaults are the published code's; `w_` are weights of loss terms.

        descriptions: what `vlmlab.descriptions.read` takes, sentences on every class; the task's template joins them.
        Without any, 60 templates stand in. labels: pseudo are the teacher's, so that no label of an image is read;
        true are the task's. They tell what both image terms aim at: its class (smoothed cross-entropy) and the shares
        of all classes (KL to the soft label).
        """

        tokens: Count = 50
        descriptions: Path | None = None
        noise: Amount = 0.1  # standard deviation, of each feature; the unit features are not normalised again
        smoothing: Share = 0.1
        labels: Literal["pseudo", "true"] = "pseudo"
        teacher: Literal["drifting", "frozen"] = "drifting"
        student: Literal["raw", "unit"] = "raw"
        norms: Literal["all", "inner", "none"] = "all"  # LayerNorms of the image tower that train
        w_class: Amount = 1.0
        w_distribution: Amount = 0.0
        epochs: Epochs = 50  # of the images; their weights are kept for `at_epoch`

        def __post_init__(self):
            if not self.w_class and not self.w_distribution:
                raise ValueError(
                    "w_class and w_distribution are both 0: nothing is left to learn from images"
                )

    @dataclasses.dataclass(frozen=True)
    class Options:
        """Defaults are the published scripts'. max_steps: of each stage. Biases are not decayed."""

        epochs: Epochs = 50
        batch_size: Count = 50
        lr: Amount = 5e-4
        weight_decay: Amount = 0.01
        text_steps: Count = 400
        text_lr: Amount = 5e-4
        crop: tuple[Share, Share] = (0.2, 1.0)  # of the strong view
        max_steps: Count | None = None

        __post_init__ = Method.Options.__post_init__

    def __init__(self, vlm, classnames, template, config):
        super().__init__(vlm, classnames, template, config)
        if not getattr(vlm.image, "reads_class_token", False):
            raise ValueError(
                f"{type(self).__name__} reads the class token, and the image tower of {vlm.name} has none"
            )
        if patterns := NORMS[config.norms]:
            self.vlm = vlm.thaw(*patterns)
        joint = vlm.clip.visual.proj.shape[1]
        self.add_prompts()
        self.adapter = uniform(len(self.known), joint, bound=1 / math.sqrt(joint))
        self.register_buffer("teacher", torch.zeros_like(self.adapter))
        self.add_more()
        numbers = sum(p.numel() for p in self.kept())
        self.register_buffer("history", torch.zeros(config.epochs, numbers))
        self.register_buffer("epochs_kept", torch.zeros((), dtype=torch.long))
        self.to(vlm.device)

    def add_prompts(self) -> None:
        self.prompt = self.new_prompt()

    def add_more(self) -> None:
        """Further parameters; none here."""

    def new_prompt(self) -> nn.Parameter:
        """(token, width), drawn evenly within sqrt(6 / (3 PATCH^2 + width)): 0.0625 where that is 768."""
        width = self.vlm.image.width
        return uniform(self.config.tokens, width, bound=math.sqrt(6 / (3 * PATCH**2 + width)))

    def kept(self) -> list[nn.Parameter]:
        """Its own parameters, also those that rest in a stage."""
        return [x for x in self.own().values() if isinstance(x, nn.Parameter)]

    # what it says of images

    def image_edits(self) -> dict[int, Edit]:
        return {1: edits.insert("prompt", self.prompt, after="cls")}

    def head(self, z: Tensor) -> Tensor:
        """(batch, class) logits of features (batch, joint), in float32, without a temperature."""
        z = F.normalize(z, dim=-1) if self.config.student == "unit" else z
        return linear(z, self.adapter[self.rows])

    def classify(self, z: dict[str, Tensor], rule: str = "unified", split: str | None = None) -> Tensor:
        return self.head(z["cls"])

    def class_features(self) -> Tensor:
        """(class, joint) unit rows of the classifier; no text is read."""
        return F.normalize(self.adapter[self.rows], dim=-1)

    @torch.no_grad()
    def taught(self, images: Tensor) -> Tensor:
        """(batch, class) logits of the teacher: the first stage's classifier on unit features without prompts."""
        tower = (self.vlm if self.config.teacher == "drifting" else self.vlm.origin).image
        return linear(F.normalize(tower(images), dim=-1), self.teacher)

    # how it is trained

    def stages(self, task, options: Options, seed: int) -> list[Stage]:
        o, images, config = options, self.training_images(task), self.config
        self.sentences()  # what is wrong with them is said before anything is trained
        needed = {"label", *(["distribution"] if config.w_distribution else [])}
        if config.labels == "true" and (missing := sorted(needed - images.about(0).keys())):
            raise ValueError(
                f"labels='true' needs a {' and a '.join(missing)} of every image, and {task.id} under "
                f"{task.protocol} has none; labels='pseudo' reads no labels"
            )
        epoch = feeds.Epochs(len(images), o.batch_size, seed).steps
        views = {"strong": feeds.strong_transform(self.vlm, o.crop, images.flip)}
        views |= {"weak": self.vlm.preprocess} if config.labels == "pseudo" else {}
        pin = self.device.type == "cuda"
        batches = feeds.epochs(images, views, o.batch_size, seed, o.epochs * epoch, self.workers, pin)
        most = o.max_steps or math.inf
        found = [
            Stage(
                TEXTS,
                min(o.text_steps, most),
                lambda first: itertools.repeat({}),
                (Group("adapter", o.text_lr, o.weight_decay),),
            )
        ]
        start = 0
        for name, epochs, groups in self.phases(o):

            def feed(first: int, start: int = start * epoch) -> Iterator[Batch]:
                return batches(start + first)

            found.append(Stage(name, min(epochs * epoch, most), feed, groups, save=epoch, epoch=epoch))
            start += epochs
        return found

    def phases(self, o: Options) -> list[tuple[str, int, tuple[Group, ...]]]:
        """The parts of the training on images: name, epochs, groups."""
        return [(IMAGES, o.epochs, (Group("prompt", o.lr, o.weight_decay), *self.common(o)))]

    def common(self, o: Options) -> tuple[Group, ...]:
        """The groups of the classifier and of the norms."""
        norms = (Group("vlm.*bias", o.lr), Group("vlm.*", o.lr, o.weight_decay))
        return (Group("adapter", o.lr, o.weight_decay), *(norms if NORMS[self.config.norms] else ()))

    def losses(self, batch: Batch, stage: Stage | None = None) -> dict[str, Tensor]:
        """Of the sentences in the stage `texts`; else of the views `strong` and `weak`, or of `strong`, `label` and
        `distribution`."""
        if stage is not None and stage.name == TEXTS:
            x, labels = self.text_features()
            noisy = x + self.config.noise * torch.randn_like(x)
            return {"ce_text": self.smoothed(linear(noisy, self.adapter), labels)}
        z = self.trace(batch["strong"])
        c, logits = self.config, self.classify(z)
        labels, shares = self.targets(batch)
        terms = {"ce": c.w_class * self.smoothed(logits, labels)} if c.w_class else {}
        if c.w_distribution:
            kl = F.kl_div(logits.log_softmax(-1), shares, reduction="batchmean")
            terms["distribution"] = c.w_distribution * kl
        return terms | self.extra_losses(batch["strong"], z, logits)

    def smoothed(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, label_smoothing=self.config.smoothing)

    def targets(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Labels (batch,) and shares (batch, class) of all classes."""
        if self.config.labels == "true":
            return batch["label"], batch.get("distribution")
        logits = self.taught(batch["weak"])
        return logits.argmax(-1), logits.softmax(-1)

    def trace(self, images: Tensor) -> dict[str, Tensor]:
        """`encode_image`, and what further losses need of it."""
        return self.encode_image(images)

    def extra_losses(self, images: Tensor, z: dict[str, Tensor], logits: Tensor) -> dict[str, Tensor]:
        """Further weighted terms; none here."""
        return {}

    def sentences(self) -> list[list[str]]:
        """The texts of every class; ValueError where the descriptions are of other classes."""
        filled = [self.template.format(name.replace("_", " ")) for name in self.known]
        if self.config.descriptions is None:
            own = {n: [t.format(n.replace("_", " ")) for t in TEMPLATES] for n in self.known}
        else:
            own = descriptions.read(self.config.descriptions, self.known)
        return [[*own[name], text] for name, text in zip(self.known, filled)]

    def text_features(self) -> tuple[Tensor, Tensor]:
        """(text, joint) unit features of all sentences by the frozen model, and their classes (text,)."""

        def compute():
            texts = self.sentences()
            with torch.no_grad():
                x = torch.cat([F.normalize(self.vlm.origin.encode_text(t), dim=-1) for t in texts]).float()
            classes = torch.arange(len(texts), device=x.device)
            return x, classes.repeat_interleave(torch.tensor([len(t) for t in texts], device=x.device))

        return self._once(("sentences",), compute)

    # epochs

    @torch.no_grad()
    def after_step(self, stage: Stage, step: int) -> None:
        if stage.name == TEXTS and step + 1 == stage.steps:
            self.teacher.copy_(self.adapter)
        if stage.ends_epoch(step):
            self.history[self.epochs_kept] = nn.utils.parameters_to_vector(self.kept())
            self.epochs_kept += 1

    @contextlib.contextmanager
    def at_epoch(self, epoch: int) -> Iterator[None]:
        """Its weights as they were after an epoch of the images, 1 to `epochs_kept`, while the block runs."""
        if not 1 <= epoch <= self.epochs_kept:
            raise ValueError(f"epoch {epoch}, but epochs 1 to {int(self.epochs_kept)} are kept")
        now = nn.utils.parameters_to_vector(self.kept()).detach().clone()
        try:
            self.put(self.history[epoch - 1])
            yield
        finally:
            self.put(now)

    @torch.no_grad()
    def put(self, numbers: Tensor) -> None:
        """Copy a row of `history` into the parameters."""
        parameters = self.kept()
        for p, values in zip(parameters, numbers.split([p.numel() for p in parameters])):
            p.copy_(values.view_as(p))


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x W^T in float32, also under autocast."""
    with torch.autocast(x.device.type, enabled=False):
        return x.float() @ weight.float().T
