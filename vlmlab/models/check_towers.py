"""Which modules the towers run exactly, and what they take: one clear line for all others."""

from torch import Tensor, nn


def check_images(images: Tensor, size: tuple[int, int]) -> None:
    """ValueError when images are not (batch, 3, height, width) of the model's size."""
    if images.ndim != 4 or tuple(images.shape[1:]) != (3, *size):
        raise ValueError(
            f"images have shape {tuple(images.shape)}, expected (batch, 3, {size[0]}, {size[1]}); "
            "use vlm.preprocess"
        )


def check_visual(visual: nn.Module) -> None:
    """ValueError when an image tower is not one that ImageTower runs exactly."""
    need = ("conv1", "class_embedding", "positional_embedding", "ln_pre", "transformer", "ln_post", "proj")
    lacks = [n for n in need if not hasattr(visual, n)]
    if lacks:
        raise ValueError(
            f"the image tower {type(visual).__name__} has no {', '.join(lacks)}; "
            "towers run open_clip's VisionTransformer (capture takes the module as it is)"
        )
    if visual.attn_pool is None and visual.pool_type == "none":
        raise ValueError("the image tower does not pool its tokens: there are no features of an image")
    if getattr(visual, "attn_pool_contrastive", None) is not None:
        raise ValueError(
            f"the image tower pools twice ({visual.attn_pool_type!r}); a class token, attention or a mean "
            "is expected"
        )
    check_blocks(visual.transformer)


def pool_type(text: nn.Module) -> str | None:
    """Which token of a text is read: argmax (CLIP's EOS), eos, first or last."""
    return getattr(text, "text_pool_type", getattr(text, "pool_type", None))


def check_text(text: nn.Module) -> None:
    """ValueError when a text tower is not one that TextTower runs exactly."""
    pool, name = pool_type(text), type(text).__name__
    if not hasattr(text, "token_embedding") or pool not in ("argmax", "eos", "first", "last"):
        raise ValueError(
            f"the text tower {name} (pooling {pool!r}) is not open_clip's TextTransformer read at one token"
        )
    if getattr(text, "cls_emb", None) is not None or getattr(text, "use_pad_mask", False):
        raise ValueError(
            f"the text tower {name} appends a class token or masks padding (CoCa), which towers do not run; "
            "capture takes the module as it is"
        )
    check_blocks(text.transformer)


def check_blocks(transformer: nn.Module) -> None:
    if not transformer.batch_first:
        raise ValueError("the blocks are sequence-first; build the model with open_clip >= 2.24")
