"""timm's VisionTransformer as the image tower of an open_clip model (SigLIP)."""

import dataclasses

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .check_towers import check_images
from .families import FAMILIES
from .tokens import Edit, Tokens, leading
from .towers import Tower, described, own_tokens


class TimmTower(Tower):
    """open_clip's TimmModel around a timm VisionTransformer, with whatever prefix tokens and pooling it has."""

    kind = "image"
    family = FAMILIES["open_clip timm tower"]

    def __init__(self, visual: nn.Module):
        trunk = visual.trunk
        own = type(trunk).forward_features is VisionTransformer.forward_features
        if not isinstance(trunk, VisionTransformer) or not own:
            raise ValueError(
                f"the image tower is timm's {type(trunk).__name__}; towers run timm's VisionTransformer "
                "(capture takes the module as it is)"
            )
        super().__init__(trunk.blocks, trunk.embed_dim, trunk.blocks[0].attn.num_heads)
        self.visual = visual

    @property
    def trunk(self) -> VisionTransformer:
        return self.visual.trunk

    def inputs(self) -> str:
        t, cls = self.trunk, int(self.trunk.cls_token is not None)
        prefix = {"cls": cls, "register": t.num_prefix_tokens - cls}
        return described(self.visual.image_size, prefix, t.patch_embed.grid_size)

    def embedding(self) -> list[nn.Parameter]:
        t = self.trunk
        tables = [p for p in (t.cls_token, t.reg_token, t.pos_embed) if p is not None]
        return [*tables, *t.patch_embed.parameters(), *t.norm_pre.parameters()]

    def embed(self, images: Tensor, edit: Edit | None = None) -> Tokens:
        """images (batch, 3, height, width) -> Tokens (batch, token, width), prefix tokens first.

        `edit` is applied after the positional embedding and before norm_pre.
        """
        t = self.trunk
        check_images(images, self.visual.image_size)
        x = t.patch_drop(t._pos_embed(t.patch_embed(images)))
        cls = int(t.cls_token is not None)
        registers = t.num_prefix_tokens - cls
        runs = ("cls", cls), ("register", registers), ("patch", x.shape[1] - t.num_prefix_tokens)
        tokens = Tokens(x, tuple(run for run in runs if run[1]))
        if edit is not None:
            tokens = edit(tokens)
        return dataclasses.replace(tokens, x=t.norm_pre(tokens.x))

    def through(self, layer: int, tokens: Tokens, first: int | None) -> Tokens:
        x = self.blocks[layer - 1](tokens.x)
        if first is None:
            return dataclasses.replace(tokens, x=x)
        return dataclasses.replace(tokens, x=x[:, :first], layout=leading(tokens.layout, first))

    def norm(self, x: Tensor) -> Tensor:
        return self.trunk.norm(x)

    def pool(self, tokens: Tokens) -> Tensor:
        """(batch, width): pooled as the trunk pools, without tokens that an edit inserted."""
        return self.trunk.fc_norm(self.trunk.pool(self.norm(own_tokens(tokens))))

    def project(self, x: Tensor) -> Tensor:
        return self.visual.head(self.trunk.head(self.trunk.head_drop(x)))
