"""Models of one tower: texts or images into features, without a partner in a joint space."""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .model import Model
from .tokenizers import padded


class TextEncoder(Model):
    """A frozen BERT of sentence-transformers: a text is the mean of its tokens, of length 1.

    tokenizer: of transformers. context: the most tokens that a text may have.
    """

    holds = "module"

    def __init__(
        self,
        module: nn.Module,
        tokenizer: Callable,
        name: str,
        device: torch.device,
        precision: str,
        source: dict | None = None,
    ):
        super().__init__(name, precision, source)
        self.module, self.tokenizer, self.context = module, tokenizer, tokenizer.model_max_length
        self.freeze(device)

    def facts(self) -> dict[str, object]:
        config = self.module.config
        sizes = f"{config.num_hidden_layers} of {config.hidden_size}, {config.num_attention_heads} heads"
        return {"blocks": sizes, "context": f"{self.context} tokens", **super().facts()}

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """What the module takes, (text, token) each, padded on the right; ValueError for a text that does not
        fit."""
        found = padded(self.tokenizer, texts, self.device)
        lengths = found["attention_mask"].sum(dim=1)
        if lengths.max() > self.context:
            longest = int(lengths.argmax())
            raise ValueError(
                f"{int((lengths > self.context).sum())} texts have more than the {self.context} tokens that "
                f"{self.name} reads, for example {texts[longest][:60]!r} ({int(lengths[longest])}); shorten them"
            )
        return found

    def features(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """(text, width) of what `tokenize` gives: the mean of the tokens that the mask shows, of length 1
        (sentence-transformers' modules Pooling and Normalize)."""
        tokens = self.module(**inputs).last_hidden_state
        shown = inputs["attention_mask"][..., None].to(tokens)
        return F.normalize((tokens * shown).sum(dim=1) / shown.sum(dim=1), dim=1)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """list of texts -> (text, width), of length 1."""
        return self.features(self.tokenize(texts))


class ImageEncoder(Model):
    """A frozen image network of timm with its classifier: `encode_image`, `logits`, `classnames`."""

    holds = "module"

    def __init__(
        self,
        module: nn.Module,
        classnames: list[str] | None,
        name: str,
        device: torch.device,
        precision: str,
        source: dict | None = None,
    ):
        from timm.data import create_transform, resolve_data_config

        super().__init__(name, precision, source)
        self.module, self.classnames = module, classnames
        pixels = resolve_data_config(model=module)
        self.image_size = pixels["input_size"][-1]
        self.mean, self.std = pixels["mean"], pixels["std"]
        self.preprocess = create_transform(**pixels, is_training=False)
        self.freeze(device)

    def facts(self) -> dict[str, object]:
        takes = f"{self.image_size} × {self.image_size} pixels, {self.module.num_classes:,} classes"
        return {"images": takes, **super().facts()}

    def features(self, images: Tensor) -> Tensor:
        """(image, 3, height, width) -> (image, width): what the classifier reads, not normalised."""
        return self.module.forward_head(self.module.forward_features(images), pre_logits=True)

    def encode_image(self, images: Tensor) -> Tensor:
        """The same: (image, 3, height, width) -> (image, width)."""
        return self.features(images)

    def logits(self, images: Tensor) -> Tensor:
        """(image, 3, height, width) -> (image, class), in the order of `classnames`."""
        return self.module(images)
