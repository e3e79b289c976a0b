"""Write a two-tower model as a folder that `load` and open_clip read, and build another of the same architecture."""

import gzip
from collections.abc import Callable
from pathlib import Path

import open_clip
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import save_file

from ..files import write, write_json
from .alone import activation_of
from .files import build, described
from .pixels import kept, set_pixels
from .sizes import sizes_of
from .vlm import VLM
from .weights import Weights


def model_cfg(vlm: VLM) -> dict:
    """open_clip's model_cfg of a model: what its source says, or what its modules do. ValueError for a module that
    was handed over and is no CLIP of two transformers."""
    name = (vlm.origin.source or {}).get("name")
    about = described(Path(name)) if name and Path(name).is_dir() else None
    if about is not None:
        return about.config
    if name in open_clip.list_models():
        return {k: v for k, v in open_clip.get_model_config(name).items() if k != "hf_hub_id"}
    clip = vlm.clip
    if type(clip) is not CLIP or hasattr(clip.visual, "trunk"):
        raise ValueError(
            f"{vlm.name} is a {type(clip).__name__} without a source; only a CLIP tells its own sizes"
        )
    config = sizes_of(Weights(Path(vlm.name), clip.state_dict()))
    config["vision_cfg"]["head_width"] = vlm.image.width // vlm.image.heads
    config["text_cfg"]["heads"] = vlm.text.heads
    return config | activation_of(vlm)


def anew(vlm: VLM) -> VLM:
    """A model of the same architecture with random weights, drawn from torch's generator."""
    clip = build(model_cfg(vlm))
    set_pixels(clip, kept(vlm.clip), vlm.name)
    return VLM(clip, vlm.tokenizer, f"{vlm.name}, random", vlm.device, vlm.precision)


def write_folder(vlm: VLM, folder: str | Path, about: dict) -> Path:
    """A folder of open_clip: open_clip_config.json with `about` beside model_cfg, float32 weights, and the merges
    of a vocabulary of its own. ValueError for a tokenizer that is not open_clip's own.

    >>> vlmlab.load(write_folder(student, "models/student", {"steps": 400}))
    >>> open_clip.create_model("local-dir:models/student")  # open_clip 3
    """
    folder = Path(folder)
    if not isinstance(vlm.tokenizer, SimpleTokenizer):
        raise ValueError(
            f"the texts of {vlm.name} are read by {type(vlm.tokenizer).__name__}; only open_clip's SimpleTokenizer "
            "is written to a folder"
        )
    weights = {k: v.detach().float().cpu().contiguous().clone() for k, v in vlm.clip.state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "open_clip_model.safetensors", lambda p: save_file(weights, p))
    if vlm.tokenizer.vocab_size != SimpleTokenizer().vocab_size:
        write(folder / "bpe.txt.gz", merges_of(vlm.tokenizer))
    said = {"model_cfg": model_cfg(vlm), "preprocess_cfg": kept(vlm.clip), "about": about}
    write_json(folder / "open_clip_config.json", said)
    return folder


def merges_of(tokenizer: SimpleTokenizer) -> Callable[[Path], int]:
    """Writes the merge file that a SimpleTokenizer was made from."""
    lines = ["#version: 0.2", *(" ".join(merge) for merge in tokenizer.bpe_ranks)]
    return lambda path: path.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))


def same_words(a: VLM, b: VLM) -> bool:
    """Whether two models cut texts into the same tokens, one by one."""
    one, other = a.tokenizer, b.tokenizer
    if one is other:
        return True
    both = isinstance(one, SimpleTokenizer) and isinstance(other, SimpleTokenizer)
    return both and one.encoder == other.encoder and one.bpe_ranks == other.bpe_ranks
