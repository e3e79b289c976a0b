"""What the systems have in common: they start from nothing, train in stages of a given length, read whole words."""

import dataclasses
import fnmatch
from collections.abc import Iterable, Iterator, Sequence

from open_clip.transform import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD, PreprocessCfg, image_transform_v2
from torch import Tensor

from .. import feeds
from ..learner import Batch, Feed, Group, Learner, Stage
from ..rates import half_cosine
from ..schema import Amount, Count, described
from ..tasks import Captions
from .words import Words, frequent

Share = described(float, "a number from 0 to 1", ge=0, le=1)
PLAIN = ("*bias", "*norm*.weight", "*Norm.weight")  # no weight decay


class System(Learner):
    """A network from nothing. `mean`, `std` and `image_size` are those of the pixels that it takes."""

    models_needed = ()
    mean, std = OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    @dataclasses.dataclass(frozen=True)
    class Options:
        """steps: of each stage; warmup: share of them during which the rate rises, before it falls along half a cosine."""

        steps: Count = 300
        batch: Count = 48
        lr: Amount = 1e-3
        weight_decay: float = 0.02
        warmup: Share = 0.1
        save_every: Count = 100

    def __init__(self, models, config):
        super().__init__(models, config)
        self.sizes = config  # of its network, where it does not take over another's
        self.image_size = getattr(config, "image", 1)  # of those that look at no images, as small as can be
        self.preprocess = image_transform_v2(PreprocessCfg(size=(self.image_size,) * 2), is_train=False)

    @classmethod
    def real(cls) -> object:
        """The Config of its paper's size; build it on the meta device, where it takes no memory.

        >>> with torch.device("meta"):
        ...     model = Albef({}, Albef.real())
        """
        raise NotImplementedError

    @property
    def words(self) -> Words:
        """Its vocabulary. ValueError before there is one."""
        if "words" not in self.prepared:
            raise ValueError(
                f"{type(self).__name__} has no vocabulary yet; `fit` finds it in the training texts"
            )
        known = self.__dict__.get("_words")
        if known is None or known[0] is not self.prepared["words"]:
            known = self.__dict__["_words"] = (self.prepared["words"], Words(self.prepared["words"]))
        return known[1]

    def read_by(self, task) -> Iterable[str]:
        """The texts of which the words are taken. ValueError for a task without captions."""
        if not isinstance(task.train, Captions) or not len(task.train):
            raise ValueError(
                f"{task.id} under {task.protocol} has no training captions; use the protocol retrieval"
            )
        return task.train.texts

    def prepare(self, task) -> dict:
        """{"words": the most frequent ones of the training texts}, where it has a vocabulary."""
        if not hasattr(self.config, "vocabulary"):
            return {}
        return {"words": frequent(self.read_by(task), self.config.vocabulary)}

    def ids(self, texts: Sequence[str], **how) -> tuple[Tensor, Tensor]:
        """Texts as ids and which of them are words, both (text, token), see `Words.batch`."""
        return self.words.batch(texts, self.sizes.context, self.device, **how)

    def inputs(self, images: Tensor, texts: Sequence[str], **how) -> dict[str, Tensor]:
        """What `forward`, and `vlmlab.capture`, take of preprocessed images and texts; how: see `Words.batch`."""
        ids, real = self.ids(texts, **how)
        return {"pixel_values": images, "input_ids": ids, "attention_mask": real.long()}

    def stage(self, name: str, o: Options, feed: Feed, optimiser: str = "adamw", **more) -> Stage:
        """A stage of `o.steps` steps whose rate warms up and then falls along half a cosine to 0; more: fields of it."""
        rate = half_cosine(o.steps, max(1, round(o.warmup * o.steps)))
        fields = {"groups": self.groups(o), "rate": rate, "save": o.save_every, "clip": 1.0} | more
        return Stage(name, o.steps, feed, optimiser=optimiser, **fields)

    def known(self, logits: Tensor) -> Tensor:
        """Logits (..., vocabulary) of the words that there are: the vocabulary may have room for more."""
        return logits[..., : len(self.words)]

    def groups(self, o: Options) -> tuple[Group, ...]:
        """Weight decay for matrices only."""
        names = self.trainable()
        patterns = [*PLAIN, *(n for n, p in names.items() if p.ndim < 2)]
        left, plain = list(names), []
        for pattern in patterns:
            if taken := set(fnmatch.filter(left, pattern)):
                plain.append(Group(pattern, o.lr))
                left = [n for n in left if n not in taken]
        return (*plain, *([Group("*", o.lr, o.weight_decay)] if left else []))

    def pairs(self, task, options: Options, seed: int) -> Feed:
        """Shuffled passes over images with their texts, preprocessed without change beside what the data varies."""
        self.read_by(task)
        views, o = {"image": self.preprocess}, options
        return feeds.epochs(task.train, views, o.batch, seed, o.steps, self.workers)


def ramped(feed: Feed, steps: int, alpha: float, share: float) -> Feed:
    """The batches with an entry "alpha" that rises from 0 to its value over a share of the steps."""

    def batches(first: int) -> Iterator[Batch]:
        for step, batch in enumerate(feed(first), first):
            yield batch | {"alpha": alpha * min(1.0, step / max(1.0, share * steps))}

    return batches
