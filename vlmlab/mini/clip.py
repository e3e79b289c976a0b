"""CLIP from nothing (Radford et al. 2021), as the embedded models are pretrained: open_clip's modules, our data.

Symmetric contrastive loss with multi-positive targets: a caption such as "fruit" matches every
fruit of the batch. Depth grows from 6 to 12 blocks by splitting every block into two half steps. Where a finer
patch is asked for, the model sees the first rounds on the coarse one, and a second schedule of its own on the fine
one (after FlexiViT, Beyer et al. 2023): attention over a few dozen patches takes a third of the time. At last a share
of the drawings is reduced to their lines, for line art is a style of its own, and all patches are shown.

Tried and left: copies whose residual outputs start at zero (they stayed nearly idle, 5 % of the stream
against 40 % of the others), and a memory of earlier features as further negatives (the features drifted
away from it, retrieval fell to a tenth).
"""

import dataclasses
import math
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transform import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD, PreprocessCfg, image_transform_v2
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..files import write, write_json
from ..learner import Batch, Group, Learner, Stage
from ..tasks.emoji import captions
from ..tasks.emoji.pretraining import Sampler
from .vocabulary import write_vocabulary

SHALLOW, DEEP = 6, 12  # blocks before and after the growth
# up to which share of a schedule -> share of patches that a picture hides
HIDDEN = {0.8: 0.5, 0.95: 0.25}
NEARLY_ALL_SHOWN = {0.5: 0.25}


class Clip(Learner):
    """A two-tower model that trains wholly, on captioned drawings."""

    models_needed = ()

    @dataclasses.dataclass(frozen=True)
    class Config:
        """Its sizes. patch: of the first stages; fine: of the last one, 0 without it."""

        width: int = 128
        head_width: int = 32
        image: int = 64  # pixels of a side; the drawings have 64
        patch: int = 8
        fine: int = 0
        context: int = 32

    @dataclasses.dataclass(frozen=True)
    class Options:
        """Its training. Lengths are in samples (images seen), the rest shares of the run."""

        samples: int = 940_800
        batch: int = 128
        lr: float = 1e-3
        weight_decay: float = 0.1
        warmup: int = 12_800
        ramp: float = 0.35  # augmentation reaches full strength after this share
        grow: float = 2 / 3  # 6 -> 12 blocks
        scenes: float = 0.5  # two-object scenes join the batches
        mono: float = 0.15  # of black-and-white drawings where a concept has one
        save_every: int = 100  # steps
        fine_samples: int = 0  # of the stage with the fine patch, after the others
        fine_lr: float = 4e-4
        line_samples: int = 0  # of the stage in which some drawings are lines alone, after all others
        line_lr: float = 5e-4
        lines: float = 0.3  # share of its drawings

    def __init__(self, models, config):
        super().__init__(models, config)
        with tempfile.TemporaryDirectory() as folder:
            merges = Path(folder) / "bpe.txt.gz"
            write_vocabulary(merges, captions.corpus())
            self.merges = merges.read_bytes()
            self.tokenizer = SimpleTokenizer(bpe_path=str(merges), context_length=config.context)
        self.patch = config.patch
        self.build_model(SHALLOW)
        self.clip.logit_scale.data.fill_(math.log(14))
        self.preprocess = image_transform_v2(PreprocessCfg(size=(config.image,) * 2), is_train=False)

    def build_model(self, layers: int) -> None:
        self.clip, self.layers = CLIP(**self.model_cfg(layers)), layers
        self.plain = {f"clip.{n}" for n in self.clip.no_weight_decay()}

    def model_cfg(self, layers: int) -> dict:
        """open_clip's model configuration."""
        return model_config(self.config, self.tokenizer.vocab_size, layers, self.patch)

    def stages(self, task, options: Options, seed: int) -> list[Stage]:
        """Shallow, deep, with the fine patch, with lines: each with a fresh optimiser and a short warm-up."""
        o, sampler = options, Sampler(options, seed)
        steps = o.samples // o.batch
        first = min(steps, math.ceil(o.grow * steps))

        def part(name, start, stop, total, peak, seen=0, lines=0.0, hidden=HIDDEN) -> Stage:
            """Steps start to stop of a schedule of total steps; seen: steps of the schedules before it; lines: share
            of drawings that are lines alone; hidden: see `share_at`."""

            def rate(step: int, _: float) -> float:
                warm = min(1.0, (seen * o.batch + (start + step + 1) * o.batch) / o.warmup, (step + 1) / 50)
                return peak * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, (start + step) / total)))

            def feed(n: int):
                for step, batch in enumerate(sampler.feed(seen + start + n, lines), start + n):
                    yield batch | {"patch_dropout": share_at(hidden, step / total)}

            return Stage(
                name,
                stop - start,
                feed,
                self.groups(o),
                "adamw",
                {"betas": (0.9, 0.98)},
                rate,
                o.save_every,
                clip=1.0,
            )

        stages = [part("shallow", 0, first, steps, o.lr), part("deep", first, steps, steps, o.lr)]
        fine, more = o.fine_samples // o.batch if self.config.fine else 0, o.line_samples // o.batch
        if fine:
            stages.append(part("fine", 0, fine, fine, o.fine_lr, steps))
        if more:
            stages.append(part("lines", 0, more, more, o.line_lr, steps + fine, o.lines, NEARLY_ALL_SHOWN))
        return stages

    def groups(self, o: Options) -> tuple[Group, ...]:
        """Weight decay for matrices only."""
        plain = {n for n, p in self.named_parameters() if p.ndim < 2} | self.plain
        biases = ("*.bias", "*.ln_*.weight", "*in_proj_bias")
        exact = tuple(Group(n, o.lr) for n in sorted(plain) if ".resblocks." not in n)
        return (*exact, *(Group(n, o.lr) for n in biases), Group("*", o.lr, o.weight_decay))

    def enter(self, stage: Stage) -> None:
        if stage.name == "deep":
            shallow, device = self.clip, self.device
            self.build_model(DEEP)
            grow(shallow, self.clip)
            self.clip.to(device)
        if stage.name == "fine":
            coarse, device, self.patch = self.clip, self.device, self.config.fine
            self.build_model(DEEP)
            refine(coarse, self.clip)
            self.clip.to(device)

    def encode_image(self, images: Tensor) -> Tensor:
        """images (batch, 3, height, width), preprocessed -> (batch, joint), not normalised."""
        return self.clip.visual(images)

    def encode_text(self, texts: list[str]) -> Tensor:
        """texts -> (text, joint), cut at the longest: causal attention makes that exact."""
        m, ids = self.clip, self.tokenizer(texts).to(self.device)
        n = int(ids.argmax(1).max()) + 1
        x = m.token_embedding(ids[:, :n]) + m.positional_embedding[:n]
        x = m.ln_final(m.transformer(x, attn_mask=m.attn_mask[:n, :n]))
        return x[torch.arange(len(x)), ids.argmax(1)] @ m.text_projection

    def features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Unit features (batch, joint) of image (batch, 3, height, width) in [0, 1] and of text."""
        self.clip.visual.patch_dropout.prob = batch["patch_dropout"]
        image = F.normalize(self.encode_image(prepared(batch["image"], self.config.image)), dim=-1)
        return image, F.normalize(self.encode_text(batch["text"]), dim=-1)

    def losses(self, batch: Batch, stage: Stage | None = None) -> dict[str, Tensor]:
        """Multi-positive InfoNCE of image (batch, 3, height, width) in [0, 1] and text, whose pairs are `match`."""
        # a few dozen patches: torch's fused attention takes 4 times as long backward in bf16 on a CPU
        with sdpa_kernel(SDPBackend.MATH):
            image, text = self.features(batch)
        return {"clip": contrastive(image, text, self.clip.logit_scale.exp(), batch["match"])}

    @torch.no_grad()
    def after_step(self, stage: Stage, step: int) -> None:
        self.clip.logit_scale.clamp_(max=math.log(100))

    def export(self, folder: Path, about: dict) -> Path:
        """Write the model that `vlmlab.load` reads: fp16 weights, configuration with `about`, vocabulary."""
        weights = {k: v.detach().cpu().half().contiguous() for k, v in self.clip.state_dict().items()}
        config = self.model_cfg(self.layers)
        config["vision_cfg"]["patch_dropout"] = 0.0
        write(folder / "model.safetensors", lambda p: save_file(weights, p))
        write_json(folder / "config.json", {"model_cfg": config, "pretraining": about})
        write(folder / "bpe.txt.gz", lambda p: p.write_bytes(self.merges))
        return folder


def share_at(hidden: dict[float, float], at: float) -> float:
    """Share of patches hidden at a share of the schedule; none behind the last."""
    return next((share for end, share in hidden.items() if at < end), 0.0)


def model_config(c, vocab: int, layers: int = 12, patch: int | None = None) -> dict:
    """open_clip's model configuration, as `CLIP(**config)` takes it. patch: otherwise that of the configuration."""
    return {
        "embed_dim": c.width,
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": c.image,
            "layers": layers,
            "width": c.width,
            "head_width": c.head_width,
            "patch_size": patch or c.patch,
            "patch_dropout": 0.5,
        },
        "text_cfg": {
            "context_length": c.context,
            "vocab_size": vocab,
            "width": c.width,
            "heads": c.width // c.head_width,
            "layers": layers,
        },
    }


def prepared(images: Tensor, side: int) -> Tensor:
    """(batch, 3, height, width) in [0, 1] -> (batch, 3, side, side), with the mean and deviation of OpenAI's CLIP."""
    if images.shape[-1] != side:
        images = F.interpolate(images, (side, side), mode="bicubic", antialias=True).clamp(0, 1)
    mean, std = (
        torch.tensor(v, device=images.device).view(3, 1, 1) for v in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
    )
    return (images - mean) / std


def grow(small: CLIP, big: CLIP) -> None:
    """Copy a model into one of twice the depth that does nearly the same where updates are small steps.

    Block i of `small` becomes blocks 2i and 2i+1 of `big`, both a copy with halved residual outputs: two
    half steps of the same update, so that all blocks go on learning alike.
    """
    state = {}
    for name, value in small.state_dict().items():
        if ".resblocks." not in name:
            state[name] = value
            continue
        head, tail = name.split(".resblocks.")
        block, rest = tail.split(".", 1)
        half = value / 2 if rest.startswith(("attn.out_proj", "mlp.c_proj")) else value
        for new in (2 * int(block), 2 * int(block) + 1):
            state[f"{head}.resblocks.{new}.{rest}"] = half
    big.load_state_dict(state)


def refine(coarse: CLIP, fine: CLIP) -> None:
    """Copy a model into one with other patches: their embedding and its positions are resampled (FlexiViT)."""
    state, sides = coarse.state_dict(), fine.visual
    patch, grid = list(sides.conv1.kernel_size), list(sides.grid_size)
    state["visual.conv1.weight"] = resample_patch_embed(state["visual.conv1.weight"], patch)
    positions = state["visual.positional_embedding"]
    state["visual.positional_embedding"] = resample_abs_pos_embed(positions[None], grid)[0]
    fine.load_state_dict(state)


def contrastive(image: Tensor, text: Tensor, scale: Tensor, match: Tensor) -> Tensor:
    """Symmetric multi-positive InfoNCE over unit features (batch, width).

    match (text, image) is bool; the positives of a query share its weight.
    """
    logits, match = scale * text @ image.T, match.float()
    total = 0.0
    for side, positive in ((logits, match), (logits.T, match.T)):
        log_p = F.log_softmax(side, dim=1)
        total = total - ((log_p * positive).sum(1) / positive.sum(1)).mean()
    return total / 2
