"""What every method shares: class names, inference rules, cached class features."""

import dataclasses
from typing import Annotated, Literal

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor

from .. import feeds
from ..display import Panel, some
from ..learner import Batch, Group, Learner, Stage
from ..models.load import VLM
from ..models.towers import Edit
from ..schema import Count, Whole, described
from .schedule import learning_rates

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Epochs = described(int, "a whole number from 1 to 100000", ge=1, le=100_000)  # the schedule lists them
Amount = Annotated[float, msgspec.Meta(ge=0, le=1e9)]  # NaN and infinity are none


class Method(Learner):
    """Something trained on a frozen model. Subclasses override what their paper changes.

    vlm: frozen model; classnames: class names of the current task (underscores read as spaces);
    template: with one `{}`; config: the method's frozen dataclass.
    """

    @dataclasses.dataclass(frozen=True)
    class Options:
        """How any method is trained; defaults are MMRL++'s for base-to-new, weight decay Dassl's."""

        epochs: Epochs = 10
        batch_size: Count = 4
        lr: Amount = 1e-3
        weight_decay: Amount = 5e-4
        optimiser: Literal["adamw", "adam", "sgd"] = "adamw"
        warmup_epochs: Whole = 1
        crop: tuple[Share, Share] = (0.5, 1.0)
        max_steps: Count | None = None
        eps: Amount = 1e-8  # of Adam and AdamW

        def __post_init__(self):
            if not 0 < self.crop[0] <= self.crop[1]:
                raise ValueError(
                    f"crop must be two shares of the image area, 0 < low <= high <= 1, got {self.crop!r}"
                )

    def __init__(self, vlm: VLM, classnames: list[str], template: str, config: object):
        super().__init__({"vlm": vlm}, config)
        self.vlm = vlm
        self.set_classes(classnames, template)

    def panel(self) -> Panel:
        classes = f"{len(self.classnames):,}: {some(self.classnames)}"
        about = {"classes": classes, "template": self.template, "rules": ", ".join(self.rules)}
        panel = super().panel()
        return dataclasses.replace(panel, facts={**panel.facts, **about})

    @classmethod
    def build(cls, models, classes, config) -> "Method":
        if classes is None:
            raise ValueError(f"{cls.__name__} needs a task with class names")
        if not isinstance(models["vlm"], VLM):
            raise ValueError(
                f"{cls.__name__} stands on images and texts in one joint space; {models['vlm'].name} is of kind "
                f"{type(models['vlm']).__name__}"
            )
        return cls(models["vlm"], list(classes[0]), classes[1], config)

    def stages(self, task, options: Options, seed: int) -> list[Stage]:
        """Epochs over augmented training images, a rate per epoch (`schedule.py`)."""
        if not self.trainable():
            return []
        o, images = options, self.training_images(task)
        rates = learning_rates(o.epochs, o.lr, o.warmup_epochs)
        epoch = feeds.Epochs(len(images), o.batch_size, seed).steps
        steps = min(o.epochs * epoch, o.max_steps or o.epochs * epoch)
        views = {"image": feeds.train_transform(self.vlm, o.crop, images.flip)}
        pin = self.device.type == "cuda"
        return [
            Stage(
                "train",
                steps,
                feeds.epochs(images, views, o.batch_size, seed, steps, self.workers, pin),
                (Group(lr=o.lr, weight_decay=o.weight_decay),),
                o.optimiser,
                {"momentum": 0.9} if o.optimiser == "sgd" else {"eps": o.eps},
                rate=lambda step, lr: rates[step // epoch],
                save=epoch,
                epoch=epoch,
            )
        ]

    def training_images(self, task):
        """What a task has to train on. ValueError where that is nothing."""
        if not len(task.train):
            raise ValueError(
                f"{type(self).__name__} trains, but {task.id} under {task.protocol} has no training images; "
                "choose another protocol"
            )
        return task.train

    def set_classes(self, classnames: list[str], template: str) -> None:
        """Use other class names with the same trainables. ValueError for an empty list or template."""
        if isinstance(classnames, str):
            raise ValueError(f"class names must be a list of texts, got the text {classnames!r}")
        if not len(classnames) or template.count("{}") != 1:
            raise ValueError(
                f"{len(classnames)} class names and template {template!r}; at least one name "
                "and exactly one {} are needed"
            )
        self.classnames, self.template = list(classnames), template
        self._ids = self.vlm.tokenize(self.prompts())
        self._frozen: dict = {}
        self._features: tuple | None = None

    def fill(self, template: str) -> list[str]:
        """A template filled with every class name; underscores are read as spaces."""
        return [template.format(n.replace("_", " ")) for n in self.classnames]

    def prompts(self) -> list[str]:
        """The texts that the adapted text tower reads, one per class."""
        return self.fill(self.template)

    def image_edits(self) -> dict[int, Edit]:
        """Edits of the image tower by block; 0 is the embedding."""
        return {}

    def text_edits(self) -> dict[int, Edit]:
        """Edits of the text tower by block; 0 is the embedding."""
        return {}

    def _once(self, key: tuple, compute):
        """Cache what depends on frozen weights only; the key tells mixed precision apart."""
        key = (*key, torch.is_autocast_enabled(self.vlm.device.type))
        if not self.vlm.shortcuts:
            return compute()
        if key not in self._frozen:
            with torch.inference_mode(False):  # a tensor made in inference mode could never train
                self._frozen[key] = compute()
        return self._frozen[key]

    def encode_image(self, images: Tensor) -> dict[str, Tensor]:
        """The adapted image tower, run once: `cls` (batch, joint) and, where the method has one, `prompt`."""
        return {"cls": self.vlm.image(images, self.image_edits())}

    def class_features(self) -> Tensor:
        """(class, joint) unit features from the adapted text tower."""
        tower, edits = self.vlm.text, self.text_edits()
        first = min(*edits, tower.first_trained, tower.depth + 1)  # what comes before it is frozen
        if first == 0:
            return F.normalize(tower(self._ids, edits), dim=-1)

        def frozen():
            with torch.no_grad():
                return tower.shared(self._ids, before=first)

        return F.normalize(tower.read(self._once(("text", first), frozen), edits, start=first), dim=-1)

    def frozen_class_features(self) -> Tensor:
        """(class, joint) unit features of the frozen text tower: the zero-shot classifier.

        Where the model is thawed it is still that of the model it was thawed from.
        """

        def compute():
            with torch.no_grad():
                return F.normalize(self.vlm.origin.encode_text(self.fill(self.template)), dim=-1)

        return self._once(("zero-shot",), compute)

    def current_class_features(self) -> Tensor:
        """`class_features`, computed once per class list and state of the trainables when nothing trains."""
        if torch.is_grad_enabled() or not self.vlm.shortcuts:
            return self.class_features()
        # values, not version counters: fused optimisers do not count their writes
        mixed, state = torch.is_autocast_enabled(self.vlm.device.type), list(self.trainable().values())
        if (
            self._features is None
            or self._features[0] != mixed
            or not all(map(torch.equal, self._features[1], state))
        ):
            self._features = mixed, [p.detach().clone() for p in state], self.class_features()
        return self._features[2]

    def cosine_logits(self, f: Tensor, w: Tensor) -> Tensor:
        """(batch, class) = logit_scale * f w^T of unit features (batch, joint) and (class, joint).

        In float32 also under autocast: times 100, the rounding of a half-precision product is no noise.
        """
        with torch.autocast(self.vlm.device.type, enabled=False):
            return self.vlm.logit_scale * f.float() @ w.float().T

    def check_rule(self, rule: str, split: str | None) -> None:
        """ValueError unless the rule exists and is told base or new exactly when it needs to be."""
        if rule not in self.rules:
            raise ValueError(f"{type(self).__name__} has no rule {rule!r}; it has {', '.join(self.rules)}")
        if rule == "decoupled" and split not in ("base", "new"):
            raise ValueError(f"the decoupled rule needs split='base' or split='new', got {split!r}")
        if rule == "unified" and split is not None:
            raise ValueError("the unified rule must not know the split; leave it out")

    def logits(self, images: Tensor, rule: str = "unified", split: str | None = None) -> Tensor:
        """(batch, class) of images (batch, 3, height, width), by one rule; `split` is for those that ask."""
        self.check_rule(rule, split)
        return self.classify(self.image_features(images), rule, split)

    def image_features(self, images: Tensor) -> dict[str, Tensor]:
        """What `classify` needs of images: computed once, whatever the number of rules."""
        return self.encode_image(images)

    def classify(self, z: dict[str, Tensor], rule: str = "unified", split: str | None = None) -> Tensor:
        """(batch, class) scaled cosines from `image_features`."""
        return self.cosine_logits(F.normalize(z["cls"], dim=-1), self.current_class_features())

    def losses(self, batch: Batch, stage: Stage | None = None) -> dict[str, Tensor]:
        """Cross-entropy of image (batch, 3, height, width) and label (batch,)."""
        return {"ce": F.cross_entropy(self.logits(batch["image"]), batch["label"])}
