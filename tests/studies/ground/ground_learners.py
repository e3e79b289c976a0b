"""Learners of one's own, as a study's folder may hold them: from nothing, and on models and a run by role."""

import dataclasses
import zlib

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.transforms import v2

from vlmlab import feeds
from vlmlab.learner import Group, Learner, Stage

GRID, WORDS = 4, 64
PLAIN = v2.Compose([v2.Resize((32, 32)), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])


class Words(Learner):
    """Coarse pixels beside hashed words, from nothing, in two stages; it can be asked everything."""

    models_needed = ()
    preprocess = PLAIN

    @dataclasses.dataclass(frozen=True)
    class Config:
        """Its joint width."""

        width: int = 8

    def __init__(self, models, config):
        super().__init__(models, config)
        self.image, self.text = nn.Linear(3 * GRID**2, config.width), nn.Linear(WORDS, config.width)

    def stages(self, task, options, seed):
        feed = feeds.epochs(task.train, {"image": PLAIN}, 8, seed, 3)
        return [
            Stage("texts", 2, feed, (Group("text.*", lr=0.01),), save=1),
            Stage("both", 3, feed, (Group(lr=0.01),), "sgd", {"momentum": 0.9}, save=2),
        ]

    def losses(self, batch, stage=None):
        texts = batch["text"] if "text" in batch else batch["question"]
        a, b = F.normalize(self.encode_image(batch["image"])), F.normalize(self.encode_text(texts))
        return {"clip": F.cross_entropy(10 * a @ b.T, torch.arange(len(a), device=a.device))}

    def encode_image(self, images):
        return self.image(F.adaptive_avg_pool2d(images, GRID).flatten(1))

    def encode_text(self, texts):
        bags = torch.zeros(len(texts), WORDS)
        for bag, text in zip(bags, texts):
            for word in text.lower().replace(".", "").split():
                bag[zlib.crc32(word.encode()) % WORDS] += 1
        return self.text(bags.to(self.text.weight.device))

    def match(self, images, texts):
        return F.cosine_similarity(self.encode_image(images), self.encode_text(texts))

    def generate(self, images, texts):
        return ["left" if x.mean() > 0.5 else "yes" for x in images]

    def log_likelihood(self, images, texts):
        x = self.encode_text(texts) if images is None else self.match(images, texts)[:, None]
        return -x.square().mean(1) - 1, torch.tensor([len(t.split()) for t in texts])

    def relevance(self, images, texts):
        return F.adaptive_avg_pool2d(images, GRID).std(1)


class Student(Learner):
    """LayerNorms of a copy of the student follow the teacher's features, and what a run learnt from words."""

    models_needed = ("student", "teacher", "words")

    @dataclasses.dataclass(frozen=True)
    class Options:
        """Of its only stage."""

        lr: float = 1e-3

    def __init__(self, models, config):
        super().__init__(models, config)
        self.student, self.teacher, self.words = (models[role] for role in self.models_needed)
        self.student = self.student.thaw("visual.*ln_*")
        self.bridge = nn.Linear(self.words.config.width, self.teacher.image.visual.proj.shape[1])

    @property
    def preprocess(self):
        return self.teacher.preprocess

    def stages(self, task, options, seed):
        views = {"image": self.teacher.preprocess, "coarse": PLAIN}
        return [
            Stage("distil", 2, feeds.epochs(task.train, views, 4, seed, 2), (Group(lr=options.lr),), save=1)
        ]

    def losses(self, batch, stage=None):
        with torch.no_grad():
            known, words = self.teacher.encode_image(batch["image"]), self.words.encode_image(batch["coarse"])
        seen = self.encode_image(batch["image"])
        return {"teacher": F.mse_loss(seen, known), "words": F.mse_loss(seen, self.bridge(words))}

    def encode_image(self, images):
        return self.student.encode_image(images)

    def encode_text(self, texts):
        return self.teacher.encode_text(texts)


class Joined(Learner):
    """A share between the logits of two runs, of a method and of a student, is all that trains."""

    models_needed = ("vision", "language")

    def __init__(self, models, config):
        super().__init__(models, config)
        self.vision, self.language = models["vision"], models["language"]
        self.share = nn.Parameter(torch.zeros(()))

    @classmethod
    def build(cls, models, classes, config):
        learner = cls(models, config)
        learner.set_classes(*classes)
        return learner

    @property
    def preprocess(self):
        return self.vision.vlm.preprocess

    def set_classes(self, names, template):
        self.classnames, self.template = list(names), template
        self.vision.set_classes(names, template)

    def stages(self, task, options, seed):
        feed = feeds.epochs(task.train, {"image": self.preprocess}, 4, seed, 2)
        return [Stage("share", 2, feed, (Group(lr=0.1),), save=1)]

    def image_features(self, images):
        return self.vision.image_features(images) | {"language": self.language.encode_image(images)}

    def classify(self, z, rule="unified", split=None):
        texts = F.normalize(self.language.encode_text([self.template.format(n) for n in self.classnames]))
        other = 10 * F.normalize(z["language"]) @ texts.T
        return torch.lerp(self.vision.classify(z), other, self.share.sigmoid())

    def losses(self, batch, stage=None):
        return {"ce": F.cross_entropy(self.classify(self.image_features(batch["image"])), batch["label"])}
