"""Whether attention follows the object: single objects on noise, and named objects of a scene."""

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..capturing.attention_tap import attention_tap
from ..models.load import VLM
from ..tasks.emoji import augment
from ..tasks.emoji import data as emoji
from ..tasks.emoji import pictures as emoji_pictures
from ..tasks.emoji.retrieval import retrieval_set
from ..tasks.emoji.scenes import box, scenes
from ..tasks.emoji.tasks import TEMPLATE
from .measures import UNSEEN, Bank, Size, row

LAST = 3  # blocks whose class-token attention is averaged
BATCH = 32


def on_noise(id: str) -> tuple[Image.Image, np.ndarray]:
    """An object at half size, somewhere on coloured noise; returns the picture and its bool (64, 64) mask."""
    style, hexcode, _ = emoji_pictures.parse(id)
    rng = np.random.default_rng(int(hexcode.replace("-", ""), 16))
    x = torch.from_numpy(emoji.rgba(style, hexcode).astype(np.float32) / 255)
    x = torch.cat([x[..., :3] * x[..., 3:], x[..., 3:]], -1).permute(2, 0, 1)[None]
    scale = torch.tensor(rng.uniform(0.42, 0.55, 1)).float()
    shift = torch.from_numpy(rng.uniform(-1, 1, (1, 2))).float() * (1 - scale)
    x = augment.place(x, scale, torch.zeros(1), shift, torch.zeros(1, dtype=torch.bool))
    x = x[0].permute(1, 2, 0).numpy()
    ink = x[..., :3].sum((0, 1)) / max(float(x[..., 3].sum()), 1.0)
    noise = emoji_pictures.background(f"{style}/{hexcode}+noise0", "noise0", ink)
    out = x[..., :3] + noise * (1 - x[..., 3:])
    return Image.fromarray(np.round(255 * out).clip(0, 255).astype(np.uint8)), x[..., 3] > 0.5


def to_grid(masks: np.ndarray, patches: int) -> Tensor:
    """Bool (picture, height, width) -> (picture, patch): the share of each patch that the mask covers."""
    side = round(patches**0.5)
    return F.adaptive_avg_pool2d(torch.from_numpy(masks).float()[:, None], side).flatten(1)


@torch.no_grad()
def class_attention(vlm: VLM, images: Tensor) -> Tensor:
    """(batch, patch): attention of the class token, mean over heads and the last blocks; rows sum to 1."""
    calls: list[Tensor] = []
    with vlm.autocast(), attention_tap(lambda call: calls.append(call.probs[:, :, 0, 1:].mean(1).cpu())):
        vlm.encode_image(images.to(vlm.device))
    return F.normalize(torch.stack(calls[-LAST:]).mean(0), p=1, dim=1)


def relevance(vlm: VLM, images: Tensor, texts: list[Tensor]) -> list[Tensor]:
    """For each of several (batch, joint) unit text features: (batch, patch) relevance, rows sum to 1.

    Gradient x attention, rolled out over all blocks (Chefer et al. 2021, "Generic Attention-model
    Explainability", equations 5 and 6); the score is the cosine of image and text.
    """
    probs: list[Tensor] = []
    images = images.to(vlm.device).requires_grad_()  # the weights are frozen: this opens the graph
    with torch.enable_grad(), attention_tap(lambda call: probs.append(call.probs), gradient=True):
        features = F.normalize(vlm.encode_image(images).float(), dim=-1)
    maps = []
    for text in texts:
        grads = torch.autograd.grad((features * text.to(vlm.device)).sum(), probs, retain_graph=True)
        rolled = torch.eye(probs[0].shape[-1], device=vlm.device).repeat(len(images), 1, 1)
        for p, g in zip(probs, grads, strict=True):
            rolled = rolled + (p.detach() * g).clamp(min=0).mean(1) @ rolled
        maps.append(F.normalize(rolled[:, 0, 1:].cpu(), p=1, dim=1))
    return maps


def batches(vlm: VLM, pictures: Iterable[Image.Image]) -> list[Tensor]:
    """Preprocessed pictures in (batch, 3, height, width) pieces."""
    return list(torch.stack([vlm.preprocess(p) for p in pictures]).split(BATCH))


def mean_se(values: Tensor) -> tuple[float, float]:
    return float(values.mean()), float(values.std() / len(values) ** 0.5)


def objects(vlm: VLM, styles: Iterable[str], size: Size) -> list[dict]:
    """Class-token attention on single objects over noise; chance is the object's share of the area.

    Pointing: the share of the most attended patch that the object covers, so that a random patch scores
    the area share. "other mask" reads the same maps under the mask of another picture: what a
    preference for the middle alone would give.
    """
    rows = []
    for style in styles:
        split = retrieval_set(style, limit=size.objects)
        pictures, masks = zip(*map(on_noise, split.ids), strict=True)
        maps = torch.cat([class_attention(vlm, b) for b in batches(vlm, pictures)])
        mask = to_grid(np.stack(masks), maps.shape[1])
        peak = maps.argmax(1, keepdim=True)
        for suffix, under in (("", mask), (", other mask", mask.roll(1, 0))):
            for metric, values in (
                ("attention on object", (maps * under).sum(1)),
                ("pointing", under.gather(1, peak)[:, 0]),
            ):
                value, se = mean_se(values)
                rows.append(
                    row(
                        "attention",
                        "noise",
                        style,
                        "known",
                        metric + suffix,
                        value,
                        mask.mean(),
                        len(values),
                        se,
                    )
                )
    return rows


def named(bank: Bank, styles: Iterable[str], size: Size) -> list[dict]:
    """Whether the relevance for "a photo of a {A}." lies on A's half of a scene of two objects.

    Both objects of a scene are asked for, so a map that ignores the text scores the chance of 0.5.
    """
    rows = []
    for style in styles:
        found = scenes(size.named, style=style)
        pictures, numbers = [found.image(i) for i in range(len(found))], range(len(found))
        texts = [
            bank.texts([TEMPLATE.format(names[k]) for names in found.shows]).split(BATCH) for k in (0, 1)
        ]
        shares: tuple[list[Tensor], list[Tensor]] = ([], [])
        for images, *asked in zip(batches(bank.vlm, pictures), *texts, strict=True):
            for share, heat in zip(shares, relevance(bank.vlm, images, asked), strict=True):
                side = round(heat.shape[1] ** 0.5)
                share.append(heat.view(-1, side, side)[:, :, : side // 2].sum((1, 2)))
        left = torch.stack([torch.cat(s) for s in shares])  # (object, scene)
        boxes = [[box(found.masks(i)[k]) for i in numbers] for k in (0, 1)]
        on_left = torch.tensor([[x0 + x1 < pictures[0].width for x0, _, x1, _ in row] for row in boxes])
        own = torch.where(on_left, left, 1 - left)
        for metric, values in (("relevance on named half", own), ("named half found", (own > 0.5).float())):
            value, se = mean_se(values.mean(0))
            rows.append(row("attention", "scenes", style, "known", metric, value, 0.5, values.numel(), se))
    return rows


def attention(bank: Bank, styles: Iterable[str], size: Size) -> list[dict]:
    """Both tests, in the styles that pretraining never saw."""
    styles = [s for s in styles if s in UNSEEN]
    return objects(bank.vlm, styles, size) + named(bank, styles, size)
