"""LLaVA (Liu et al. 2023): patches of a frozen CLIP become vectors that a language model reads like words.

On Hugging Face's class. Two stages: first the projector alone trains, on captions; then projector and language model, on
answers to what people ask. The image encoder never trains. Only words of the answer are asked for.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from ..learner import Batch, Feed, Group, Stage
from ..schema import Amount, Count, Whole
from .between import Prompted
from .system import Share
from .words import IMG, split


class Llava(Prompted):
    """Writes about images, and goes on from what it is told."""

    differs = "the second stage completes captions, for conversations that a language model wrote"
    place = 1

    @dataclasses.dataclass(frozen=True)
    class Options(Prompted.Options):
        """steps, lr: of the first stage; instruct_steps, instruct_lr: of the second, which 0 leaves out."""

        steps: Count = 200
        lr: Amount = 3e-3
        weight_decay: float = 0.0
        warmup: Share = 0.03
        instruct_steps: Whole = 150
        instruct_lr: Amount = 5e-4

    def __init__(self, models, config):
        super().__init__(models, config)
        from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration

        text, width = self.language.llama.config, self.vision.image.width
        eyes = CLIPVisionConfig(
            hidden_size=width, intermediate_size=width, num_hidden_layers=1, num_attention_heads=1
        )
        # older versions keep that the kind of attention was chosen, but not which
        own = {k: v for k, v in text.to_dict().items() if not k.startswith("_attn")}
        self.llava = LlavaForConditionalGeneration(
            LlavaConfig(
                vision_config=eyes,
                text_config=type(text)(**own),
                image_token_index=IMG,
                image_seq_length=self.tokens,
                vision_feature_layer=-1,
                vision_feature_select_strategy="full",
            )
        )
        self.holder.vision_tower = Eyes(self)
        self.llava.get_decoder().load_state_dict(self.language.llama.get_decoder().state_dict())
        head = self.language.llama.get_output_embeddings().state_dict()
        self.llava.get_output_embeddings().load_state_dict(head)
        self.to(self.device)

    @classmethod
    def real(cls) -> object:
        """As large as what it stands on: LLaMA-7B (`Language.real`) and a ViT-L/14 of 336 pixels."""
        return cls.Config()

    @property
    def holder(self) -> nn.Module:
        """The module that holds vision_tower and multi_modal_projector, which differs among versions."""
        return next(m for m in self.llava.modules() if "multi_modal_projector" in m._modules)

    @property
    def speaker(self) -> nn.Module:
        return self.llava

    @property
    def tokens(self) -> int:
        """Patches of an image."""
        return self.see(torch.zeros(1, 3, self.image_size, self.image_size, device=self.device)).shape[1]

    def stages(self, task, options: Options, seed: int) -> list[Stage]:
        o = options
        groups = (Group("*multi_modal_projector*", o.lr, o.weight_decay),)
        first = self.stage("project", o, self.pairs(task, o, seed), groups=groups)
        if not o.instruct_steps:
            return [first]
        second = dataclasses.replace(o, steps=o.instruct_steps, lr=o.instruct_lr)
        return [first, self.stage("instruct", second, begun(self.pairs(task, second, seed), seed))]

    def see(self, images: Tensor) -> Tensor:
        """(batch, patch, width) of images (batch, 3, height, width), as CLIP has them before its last block."""
        with torch.no_grad():
            seen = self.vision.image.prefix(images, self.vision.image.depth)
        return seen.x[:, seen.span("patch")]

    def link(self, seen: Tensor) -> Tensor:
        """(batch, patch, width of the language model)."""
        return self.holder.multi_modal_projector(seen)


class Eyes(nn.Module):
    """The frozen image encoder in the place of Hugging Face's; no part of what trains or is kept."""

    def __init__(self, model: Llava):
        super().__init__()
        self.model = (model,)

    def forward(self, pixel_values: Tensor, **how):
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        x = self.model[0].see(pixel_values)
        return BaseModelOutputWithPooling(last_hidden_state=x, hidden_states=(x,))


def begun(feed: Feed, seed: int) -> Feed:
    """The batches with an entry "given": how many first words of each text are told, the others to be found."""

    def batches(first: int) -> Iterator[Batch]:
        for step, batch in enumerate(feed(first), first):
            rng = np.random.default_rng([seed, step])
            yield batch | {"given": [int(rng.integers(max(1, len(split(t))))) for t in batch["text"]]}

    return batches
