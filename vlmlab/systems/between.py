"""What Flamingo, BLIP-2 and LLaVA have in common: a frozen image encoder, a frozen language model, and what learns between
them."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from .. import feeds
from ..learner import Batch, Feed, Stage
from ..models.huggingface import LanguageModel
from .elsewhere import Elsewhere
from .language import Language
from .words import IMG, Words
from .writing import Writer

KEPT = 2**30  # numbers of all training images that are kept rather than computed again


class Between(Writer):
    """Lets a language model that has read captions write about images.

    models: vlm, whose image tower is read before its last block, and language, a run of `language` or a model from
    elsewhere, such as smollm2-135m. Both stay as they are, and are no part of what a run keeps.
    """

    models_needed = ("vlm", "language")
    language: Language | Elsewhere  # frozen, and no module of it

    def __init__(self, models, config):
        super().__init__(models, config)
        given = self.loaded[1]
        self.__dict__["language"] = Elsewhere(given) if isinstance(given, LanguageModel) else given
        self.sizes, self.kept = self.language.sizes, None
        for name in ("image_size", "mean", "std", "preprocess"):
            setattr(self, name, getattr(self.vision, name))

    @property
    def vision(self) -> nn.Module:
        return self.loaded[0]

    @property
    def words(self) -> Words:
        """Those of its language model."""
        return self.language.words

    def prepare(self, task) -> dict:
        self.read_by(task)
        return {}

    def see(self, images: Tensor) -> Tensor:
        """(batch, token, width): tokens of images (batch, 3, height, width) before the last block, class tokens first."""
        with torch.no_grad():
            return self.vision.image.prefix(images, self.vision.image.depth).x

    def link(self, seen: Tensor) -> Tensor:
        """What the language model is given of what `see` gives, a row for each image."""
        raise NotImplementedError

    def look(self, images: Tensor) -> Tensor:
        return self.link(self.see(images))

    def pairs(self, task, options: Writer.Options, seed: int) -> Feed:
        """Shuffled passes over texts and "seen", what `see` gives of their images, computed once for each; of more images
        than `KEPT` allows the images themselves."""
        self.read_by(task)
        images, order = task.train, feeds.Epochs(len(task.train), options.batch, seed)
        one = torch.zeros(1, 3, self.image_size, self.image_size, device=self.device)
        if len(images) * self.see(one).numel() > KEPT:
            return super().pairs(task, options, seed)

        def batches(first: int) -> Iterator[Batch]:
            seen = self.seen_of(images)
            for rows in order.batches(first, options.steps):
                about = [images.about(i, np.random.default_rng([seed, *at, i])) for *at, i in rows]
                yield {"seen": seen[[i for _, i in rows]], "text": [each["text"] for each in about]}

        return batches

    def seen_of(self, images) -> Tensor:
        """(image, token, width), kept until others are asked for."""
        if self.kept is None or self.kept[0] is not images:
            batches = feeds.in_order(images, self, workers=self.workers)
            self.kept = images, torch.cat([self.see(b["image"].to(self.device)) for b in batches])
        return self.kept[1]

    def losses(self, batch: Batch, stage: Stage | None = None) -> dict[str, Tensor]:
        """lm of text, given seen, see `see`, or image (batch, 3, height, width)."""
        told = self.link(self.seen(batch))
        return {"lm": self.lm_loss(batch["text"], told, given=batch.get("given"))}

    def seen(self, batch: Batch) -> Tensor:
        return batch["seen"] if "seen" in batch else self.see(batch["image"])


class Prompted(Between):
    """The language model reads vectors of an image among the vectors of words.

    place: tokens of a text that stand before the image.
    """

    place = 0

    @property
    def tokens(self) -> int:
        """Vectors of one image."""
        raise NotImplementedError

    @property
    def speaker(self) -> nn.Module:
        """The language model, of transformers."""
        return self.language.llama

    def placed(self, ids: Tensor, real: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Ids and which of them there are, both (batch, token), with `count` marks where an image stands."""
        marks = ids.new_full((len(ids), count), IMG)
        both = zip((ids, real), (marks, torch.ones_like(marks, dtype=torch.bool)))
        return tuple(torch.cat([x[:, : self.place], own, x[:, self.place :]], 1) for x, own in both)

    def read(self, ids: Tensor, real: Tensor, seen: Tensor | None) -> Tensor:
        """(batch, token, vocabulary) logits; seen (batch, mark, width): what stands at the marks that `placed` put among
        ids."""
        x = self.speaker.get_input_embeddings()(ids)
        if seen is not None:
            x = torch.cat([x[:, : self.place], seen.to(x.dtype), x[:, self.place + seen.shape[1] :]], 1)
        return self.speaker(inputs_embeds=x, attention_mask=real.long(), use_cache=False).logits

    def write(self, ids: Tensor, real: Tensor, seen: Tensor | None = None) -> Tensor:
        count = 0 if seen is None else seen.shape[1]
        return self.read(*self.placed(ids, real.bool(), count), seen)[:, count:]

    def inputs(self, images: Tensor, texts: Sequence[str]) -> dict[str, Tensor]:
        """What `forward`, and `vlmlab.capture`, take of preprocessed images and texts."""
        ids, real = self.placed(*self.ids(texts), self.tokens)
        return {"pixel_values": images, "input_ids": ids, "attention_mask": real.long()}

    def forward(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(batch, token, vocabulary) logits, see `inputs`."""
        return self.read(input_ids, attention_mask, self.look(pixel_values))
