"""A model of two towers: images and texts in one joint space."""

from collections.abc import Callable

import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from torch import Tensor, nn

from .model import Model
from .remembered import Remembered
from .timm_tower import TimmTower
from .towers import ImageTower, TextTower


class VLM(Model):
    """A frozen two-tower model: `image` and `text` towers, tokenizer, preprocess, logit_scale."""

    holds = "clip"

    def __init__(
        self,
        clip: nn.Module,
        tokenizer: Callable,
        name: str,
        device: torch.device,
        precision: str,
        source: dict | None = None,
    ):
        super().__init__(name, precision, source)
        self.clip, self.tokenizer = clip, tokenizer
        self.image = (TimmTower if hasattr(clip.visual, "trunk") else ImageTower)(clip.visual)
        self.text = TextTower(getattr(clip, "text", clip))
        self.image_size = clip.visual.image_size[0]
        # some weights were trained with squashed or bilinear images; CLIP's own recipe otherwise
        pixels = PreprocessCfg(**getattr(clip.visual, "preprocess_cfg", {"size": clip.visual.image_size}))
        self.mean, self.std = pixels.mean, pixels.std
        self.preprocess = image_transform_v2(pixels, is_train=False)
        self._scale = Remembered(lambda scale: scale.exp().item())
        self.freeze(device)

    def facts(self) -> dict[str, object]:
        towers = {f"{tower.kind} tower": tower.panel().line for tower in (self.image, self.text)}
        return {
            **towers,
            "logit scale": f"{float(torch.as_tensor(self.logit_scale).detach()):.4g}",
            **super().facts(),
        }

    @property
    def logit_scale(self) -> float | Tensor:
        """exp of the stored parameter: 100 for OpenAI's CLIP. A tensor () where it trains."""
        scale = self.clip.logit_scale
        return scale.exp().squeeze() if scale.requires_grad else self._scale(scale)

    @property
    def logit_bias(self) -> float | Tensor:
        """What a sigmoid model (SigLIP) adds to scaled cosines; 0 in others. A tensor () where it trains."""
        bias = getattr(self.clip, "logit_bias", None)
        if bias is None:
            return 0.0
        return bias.squeeze() if bias.requires_grad else bias.item()

    @property
    def shortcuts(self) -> bool:
        """Exact shortcuts (cut text, shared and cached frozen blocks); off only to check them."""
        return self.text.shortcuts

    @shortcuts.setter
    def shortcuts(self, on: bool) -> None:
        self.image.shortcuts = self.text.shortcuts = on

    def tokenize(self, texts: list[str]) -> Tensor:
        """(text, context) token ids on the model's device; ValueError for a text that does not fit.

        open_clip's tokenizer would cut it silently. Only texts that end in CLIP's EOS can be told apart.
        """
        if not len(texts):
            raise ValueError("no texts were given; at least one is needed")
        ids = self.tokenizer(texts)
        full = ids[:, -1] == ids.max()
        if self.text.read_at == "argmax" and full.any():
            raise ValueError(
                f"{int(full.sum())} texts fill all {ids.shape[1]} tokens of {self.name} and may "
                f"be cut, for example {texts[int(full.nonzero()[0])]!r}; shorten the template "
                "or the class names"
            )
        return ids.to(self.device)

    def encode_image(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) -> (batch, joint), not normalised."""
        return self.image(images)

    def encode_text(self, texts: list[str]) -> Tensor:
        """list of texts -> (text, joint), not normalised."""
        return self.text(self.tokenize(texts))
