"""Families of the systems in `vlmlab/systems/`: towers of their own blocks, of timm's ViT, of residual stages.

>>> vlmlab.capture(run.model, run.model.inputs(images, texts), "fusion.cross.probs")
"""

from . import site_paths as paths
from .family import Family, Words

READ = Words("cls word*", "mask")
LOOKING = {"cross": "cross"}
ATTENTION = {"attn": "attn", "cross": "cross"}
SEEN = {"cross": "cls patch*"}


def vision(path: str, *marks: str) -> Family:
    return Family(f"{path}.blocks", paths.TIMM, "cls patch*", forward=path, marks=marks)


def stages(path: str, *marks: str) -> Family:
    blocks = f"{path}.blocks"
    return Family(blocks, paths.STAGES, "patch*", forward=path, maps=True, marks=marks, attention={})


SYSTEMS: dict[str, Family] = {
    "ALBEF image": vision("online.vision", "online.fusion"),
    "ALBEF text": Family("online.text", paths.SYSTEMS, READ, "text", "online.read", marks=("online.fusion",)),
    "ALBEF fusion": Family("online.fusion", paths.SYSTEMS, READ, "fusion", attention=ATTENTION, keys=SEEN),
    "BLIP image": vision("online.vision", "decoder.blocks"),
    "BLIP text": Family(
        "online.text", paths.SYSTEMS, READ, "text", marks=("decoder.blocks",), attention=ATTENTION, keys=SEEN
    ),
    "BLIP decoder": Family(
        "decoder.blocks",
        paths.SYSTEMS,
        READ,
        "decoder",
        "written",
        marks=("online.text",),
        attention=ATTENTION,
        keys=SEEN,
    ),
    "Flamingo resampler": Family(
        "resampler.blocks",
        paths.PERCEIVER,
        "latent*",
        "resampler",
        marks=("gated",),
        attention=LOOKING,
        keys={"cross": lambda model: f"cls patch* latent:{model.config.latents}"},
    ),
    "Flamingo gated": Family(
        "gated",
        paths.PERCEIVER,
        READ,
        "gated",
        marks=("resampler",),
        attention=LOOKING,
        keys={"cross": "latent*"},
    ),
    "Flamingo text": Family(
        "language.llama.model.layers",
        paths.LLAMA,
        READ,
        "text",
        marks=("resampler", "gated"),
        norm="language.llama.model.norm",
        head="language.llama.lm_head",
    ),
    "BLIP-2 Q-Former": Family(
        "qformer.encoder.layer",
        paths.QFORMER,
        "latent*",
        "qformer",
        "queries",
        marks=("image_joint",),
        attention={"attn": "attention", "cross": "crossattention"},
        keys=SEEN,
    ),
    "BLIP-2 text": Family(
        "language.llama.model.layers",
        paths.LLAMA,
        lambda model: Words(f"latent:{model.config.queries} cls word*", "mask"),
        "text",
        marks=("qformer", "image_joint"),
        norm="language.llama.model.norm",
        head="language.llama.lm_head",
    ),
    "Transformer encoder": Family(
        "encoder", paths.SYSTEMS, READ, "text", "read", marks=("decoder", "embedding")
    ),
    "Transformer decoder": Family(
        "decoder",
        paths.SYSTEMS,
        Words("cls word*", "mask", "decoder_input_ids", "decoder_attention_mask"),
        "decoder",
        marks=("encoder", "embedding"),
        attention=ATTENTION,
        keys={"cross": READ},
    ),
    "MoCo image": stages("query", "queue", "key.blocks"),
    "ResNet image": stages("net", "net.conv", "net.norm"),
}
