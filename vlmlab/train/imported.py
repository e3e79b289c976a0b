"""Prompts that the authors' own code trained (Dassl's model.pth.tar-N), taken into a run instead of training it."""

import hashlib
import re
from pathlib import Path

import torch
from torch import Tensor

from .. import registry
from ..learner import Learner
from ..models.files import check_values
from ..models.weights import read_weights

PROMPTS, SPACE = "prompt_learner.", "representation_learner."
BLOCKS = "transformer.resblocks.*.VPT_shallow"
SRC = {
    "text": [f"{PROMPTS}ctx", f"text_encoder.{BLOCKS}"],
    "image": ["image_encoder.VPT", f"image_encoder.{BLOCKS}"],
}
# method -> own tensor -> the authors' tensor; of a list the tensors are stacked, "*" is a number, in its order
NAMES: dict[str, dict[str, str | list[str]]] = {
    "coop": {"context": f"{PROMPTS}ctx"},
    "maple": {"text": [f"{PROMPTS}ctx", f"{PROMPTS}compound_prompts_text.*"]}
    | {
        part: [f"{PROMPTS}proj.{part}", f"{PROMPTS}compound_prompt_projections.*.{part}"]
        for part in ("weight", "bias")
    },
    # what the last epoch leaves is the average
    "promptsrc": SRC | {f"{tower}_average": names for tower, names in SRC.items()},
    "mmrl": {"space": f"{SPACE}compound_rep_tokens", "proj_rep": "image_encoder.proj_rep"}
    | {
        f"{tower}_aligner.{part}": [f"{SPACE}compound_rep_tokens_r2{side}proj.*.{part}"]
        for tower, side in (("image", "v"), ("text", "t"))
        for part in ("weight", "bias")
    },
    "mmrlpp": {
        "space": f"{SPACE}compound_rep_tokens",
        "proj_A": "image_encoder.A",
        "proj_B": "image_encoder.B",
    }
    | {
        f"{tower}_aligner.{part}": f"{SPACE}srra_r2{side}proj.weight"
        if part == "weight"
        else [f"{SPACE}srra_r2{side}proj.srra.*.{part}"]
        for tower, side in (("image", "v"), ("text", "t"))
        for part in ("weight", "bias", "A", "B")
    },
}
# method -> setting -> which dimension of which own tensor is that large, to say what fits
SIZES = {
    "coop": {"tokens": ("context", -2)},
    "maple": {"tokens": ("text", 1), "depth": ("text", 0)},
    "promptsrc": {
        "tokens": ("text", 1),
        "depth": ("text", 0),
        "image_tokens": ("image", 1),
        "image_depth": ("image", 0),
    },
    "mmrl": {"tokens": ("space", 0), "rep_dim": ("space", 1)},
    "mmrlpp": {
        "tokens": ("space", 0),
        "rep_dim": ("space", 1),
        "rank": ("image_aligner.A", 2),
        "proj_rank": ("proj_A", 1),
    },
}
# made again from class names or from CLIP
REMADE = re.compile(r"prompt_learner\.(token_prefix|token_suffix|ZS_image_encoder\..*)")
CLIPS = {"image_encoder.": "visual.", "text_encoder.": "", "clip_model.": "", "logit_scale": "logit_scale"}


def digest(path: str | Path) -> str:
    """sha256 of a checkpoint, a part of the run's key."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"imported: there is no file {path}")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def adopt(learner: Learner, path: str | Path) -> None:
    """Take over what a checkpoint holds; nothing is left to train.

    Raises ValueError with the names for what does not fit the settings, what is not known, and a checkpoint of
    another CLIP.
    """
    method, path = registry.name_of(learner), Path(path).expanduser()
    if method not in NAMES:
        raise ValueError(f"{method} imports no checkpoints; {', '.join(NAMES)} do")
    state = read_weights(path).state
    if "ctx" in state:  # CoOp saves its prompt learner alone
        state = {f"{PROMPTS}{k}": v for k, v in state.items()}
    found, used = taken(state, NAMES[method], path, method)
    check_sizes(learner, found, path, method)
    check_rest({k: v for k, v in state.items() if k not in used}, learner, path)
    with torch.no_grad():
        for name, value in learner.own().items():
            value.copy_(found[name])
    learner.stages = lambda *_: []


def taken(state: dict, names: dict, path: Path, method: str) -> tuple[dict[str, Tensor], set[str]]:
    """Tensors under the learner's names, and which of the file's they are."""
    found, used = {}, set()
    for own, theirs in names.items():
        keys = [
            k for pattern in ([theirs] if isinstance(theirs, str) else theirs) for k in like(pattern, state)
        ]
        if not keys:
            raise ValueError(
                f"{path} has no {theirs if isinstance(theirs, str) else theirs[0]}, which {method} keeps; it holds "
                f"{len(state)} tensors, as {', '.join(sorted(state)[:3])}"
            )
        for key in keys:
            check_values(key, state[key], path)
        shapes = {tuple(state[k].shape) for k in keys}
        if len(shapes) > 1:
            raise ValueError(f"{path}: {keys[0]} and those after it have the shapes {sorted(shapes)}")
        found[own] = state[keys[0]] if isinstance(theirs, str) else torch.stack([state[k] for k in keys])
        used |= set(keys)
    return found, used


def like(pattern: str, state: dict) -> list[str]:
    """The names that a pattern matches, in the order of their numbers."""
    exact = re.compile(re.escape(pattern).replace(r"\*", r"(\d+)"))
    found = {k: m for k in state if (m := exact.fullmatch(k))}
    return sorted(found, key=lambda k: [int(n) for n in found[k].groups()])


def check_sizes(learner: Learner, found: dict[str, Tensor], path: Path, method: str) -> None:
    """ValueError says which settings the checkpoint was trained with."""
    own = learner.own()
    wrong = [k for k in own if k not in found or found[k].shape != own[k].shape]
    if wrong:
        now = ", ".join(
            f"{s}={found[k].shape[d]}" for s, (k, d) in SIZES[method].items() if found[k].ndim >= abs(d)
        )
        shapes = f"{tuple(found[wrong[0]].shape)} instead of {tuple(own[wrong[0]].shape)}"
        raise ValueError(
            f"{path} does not fit {method} with these settings ({wrong[0]}: {shapes}); it was trained with {now}, "
            "on a CLIP of its own widths and depth"
        )


def check_rest(rest: dict[str, Tensor], learner: Learner, path: Path) -> None:
    """Beside what is trained there is CLIP itself, the same as here, and nothing else."""
    clip = learner.loaded[0].clip.state_dict()
    unknown = []
    for name, value in rest.items():
        if REMADE.fullmatch(name):
            continue
        start = next((s for s in CLIPS if name.startswith(s)), None)
        own = clip.get(name.replace(start, CLIPS[start], 1)) if start else None
        if own is None:
            unknown.append(name)
        elif own.shape != value.shape or not alike(own.cpu().float(), value.float()):
            raise ValueError(
                f"{path} was trained on another CLIP: {name} is not that of {learner.loaded[0].name}"
            )
    if unknown:
        raise ValueError(
            f"{path} holds {len(unknown)} tensors that {registry.name_of(learner)} has no place for: "
            f"{', '.join(sorted(unknown)[:4])}"
        )


def alike(a: Tensor, b: Tensor) -> bool:
    """Equal but for half precision, in which the authors keep CLIP (PromptSRC averages it, which rounds again)."""
    return bool((a - b).abs().max() <= 2e-2 * a.abs().max())
