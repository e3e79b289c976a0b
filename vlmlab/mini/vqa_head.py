"""A head that answers questions about images from the two vectors of a dual encoder, which has none of its own.

With v and q what the towers pool of image and question before their last projections, each mapped to the smaller of the
two widths,

    [v; q; v * q; |v - q|] -> linear -> GELU -> LayerNorm -> dropout -> linear -> a logit per answer,

trained by binary cross-entropy against what each answer is worth (0 to 1), summed over answers. The answers are those of
`Questions.vocabulary`, of the training questions alone. `probe` leaves the towers as they are, and compares what is in
their features; `finetune` trains a copy of them too. Published numbers come of heads that attend to all tokens: none of
them compares with this one's.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from .. import feeds
from ..learner import Batch, Group, Learner, Stage
from ..models.vlm import VLM
from ..rates import half_cosine
from ..schema import Amount, Count
from ..tasks.questions import Questions

TEXTS = 256  # questions encoded at a time


class VqaHead(Learner):
    """Answers questions about images: `generate(images, questions) -> texts`."""

    models_needed = ("vlm",)

    @dataclasses.dataclass(frozen=True)
    class Config:
        """answers: logits there are; more answers than that are left out, logits without one never said. least:
        training questions that an answer must have."""

        mode: Literal["probe", "finetune"] = "probe"
        hidden: Count = 2048
        dropout: float = 0.5
        answers: Count = 3129
        least: Count = 9

    @dataclasses.dataclass(frozen=True)
    class Options:
        """lr_towers: of the towers, where they train."""

        epochs: Count = 20
        batch: Count = 256
        lr: Amount = 1e-3
        lr_towers: Amount = 1e-5
        weight_decay: float = 0.01

    def __init__(self, models, config):
        super().__init__(models, config)
        vlm = models["vlm"]
        if not isinstance(vlm, VLM):
            if not hasattr(vlm, "alone"):
                raise ValueError(
                    f"a head for questions stands on a model of images and texts, or on a run that trained one, got a "
                    f"{type(vlm).__name__}"
                )
            vlm = vlm.alone()
        self.vlm = vlm if config.mode == "probe" else vlm.thaw("*")
        widths = (vlm.image.width, vlm.text.width)
        width = min(widths)
        self.inputs = nn.ModuleList(nn.Linear(of, width) for of in widths)
        self.head = nn.Sequential(
            nn.Linear(4 * width, config.hidden),
            nn.GELU(),
            nn.LayerNorm(config.hidden),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, config.answers),
        )
        self.inputs.to(vlm.device), self.head.to(vlm.device)

    def vocabulary(self, task) -> tuple[str, ...]:
        """The answers to choose among. ValueError for a task without training questions, or none frequent enough."""
        if not isinstance(task.train, Questions) or not len(task.train):
            raise ValueError(
                f"{task.id} under {task.protocol} has no training questions; use the protocol vqa"
            )
        found = task.train.vocabulary(self.config.least, self.config.answers)
        if not found:
            raise ValueError(
                f"no answer of {task.id} has {self.config.least} training questions; lower least"
            )
        return found

    def prepare(self, task) -> dict:
        """{"answers": texts, "ceiling": test -> percent that the best of them would reach there}."""
        answers = self.vocabulary(task)
        tests = {name: test for name, test in task.tests.items() if isinstance(test, Questions)}
        best = {
            name: [max(of.values(), default=0.0) for of in test.worth(answers)]
            for name, test in tests.items()
        }
        return {
            "answers": list(answers),
            "ceiling": {name: 100 * float(np.mean(v)) for name, v in best.items()},
        }

    def stages(self, task, options: Options, seed: int) -> list[Stage]:
        """One, in passes over the questions, whose rates fall to 0 along half a cosine."""
        answers = self.vocabulary(task)
        worth = task.train.worth(answers)
        order = feeds.Epochs(len(worth), options.batch, seed)
        steps = order.steps * options.epochs

        def feed(first: int) -> Iterator[Batch]:
            kind = self.from_features if self.config.mode == "probe" else self.from_pictures
            rows = [[j for _, j in batch] for batch in order.batches(first, steps)]
            for of, batch in zip(rows, kind(task.train, rows), strict=True):
                yield batch | {"target": self.targets([worth[j] for j in of])}

        towers = (Group("vlm.*", options.lr_towers),) if self.config.mode == "finetune" else ()
        return [
            Stage(
                self.config.mode,
                steps,
                feed,
                (*towers, Group("*", options.lr, options.weight_decay)),
                rate=half_cosine(steps, 1),
                epoch=order.steps,
            )
        ]

    def from_features(self, asked: Questions, rows: Sequence[Sequence[int]]) -> Iterator[Batch]:
        """Batches of what the frozen towers make of images and questions, each encoded once."""
        texts = list(dict.fromkeys(asked.questions))
        position = {text: i for i, text in enumerate(texts)}
        with torch.no_grad():
            images = torch.cat(
                [self.of_images(b["image"].to(self.device)) for b in feeds.in_order(asked, self.vlm)]
            )
            words = torch.cat([self.of_texts(texts[at : at + TEXTS]) for at in range(0, len(texts), TEXTS)])
        for of in rows:
            own = [position[asked.questions[j]] for j in of]
            yield {"image_features": images[asked.image_of[of]], "question_features": words[own]}

    def from_pictures(self, asked: Questions, rows: Sequence[Sequence[int]]) -> Iterator[Batch]:
        """Batches of preprocessed images beside their questions."""
        return iter(feeds.loader(Asked(asked, self.vlm.preprocess), rows, self.workers))

    def targets(self, worth: Sequence[dict[int, float]]) -> Tensor:
        """(question, answer)."""
        found = torch.zeros(len(worth), self.config.answers)
        for row, of in zip(found, worth):
            row[torch.tensor([*of], dtype=torch.long)] = torch.tensor([*of.values()])
        return found

    def of_images(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width), preprocessed -> (batch, width of the image tower), before the projection."""
        tower = self.vlm.image
        return tower.pool(tower.run(tower.embed(images)))

    def of_texts(self, texts: list[str]) -> Tensor:
        """texts -> (text, width of the text tower), before the projection."""
        tower = self.vlm.text
        return tower.pool(tower.run(tower.embed(self.vlm.tokenize(texts))))

    def logits(self, images: Tensor, questions: Tensor) -> Tensor:
        """(batch, answer) of pooled features."""
        v, q = (layer(x.float()) for layer, x in zip(self.inputs, (images, questions), strict=True))
        return self.head(torch.cat([v, q, v * q, (v - q).abs()], dim=1))[:, : len(self.prepared["answers"])]

    def losses(self, batch: Batch, stage: Stage | None = None) -> dict[str, Tensor]:
        if "image" in batch:
            features = self.of_images(batch["image"]), self.of_texts(batch["question"])
        else:
            features = batch["image_features"], batch["question_features"]
        z = self.logits(*features)
        loss = F.binary_cross_entropy_with_logits(
            z.float(), batch["target"][:, : z.shape[1]], reduction="none"
        )
        return {"bce": loss.sum(1).mean()}

    def generate(self, images: Tensor, texts: list[str]) -> list[str]:
        """The answer with the highest logit to each question about each image (batch, 3, height, width)."""
        new = torch.ones(len(images), dtype=torch.bool, device=images.device)
        new[1:] = (images[1:] != images[:-1]).flatten(1).any(1)  # questions about one image come together
        seen = self.of_images(images[new])[new.cumsum(0) - 1]
        best = self.logits(seen, self.of_texts(texts)).argmax(1)
        return [self.prepared["answers"][i] for i in best.tolist()]


class Asked(Dataset):
    """Preprocessed images beside their questions: sample j is question j."""

    def __init__(self, asked: Questions, transform: feeds.Transform):
        self.asked, self.transform = asked, transform

    def __len__(self) -> int:
        return len(self.asked.questions)

    def __getitem__(self, j: int) -> dict[str, object]:
        image = feeds.picture(self.asked, int(self.asked.image_of[j]))
        return {"image": self.transform(image), "question": self.asked.questions[j]}
