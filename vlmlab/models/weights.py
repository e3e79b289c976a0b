"""Weight files of any usual form: recognised by what they hold, read without running anything in them."""

import contextlib
import dataclasses
import json
import pickle
import re
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from .archive import is_archive, read_archive, read_checkpoint
from .translate import is_of_transformers, translated

# under which keys of a checkpoint a state dict lies
KEYS = ("state_dict", "model", "model_state_dict", "model_state", "net", "clip", "weights", "module")
# what wrappers put into names: anywhere, or in front of all of them
WITHIN = ("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
BEFORE = ("model", "clip_model", "clip", "net", "network", "backbone", "vlm", "base_model", "student")
# numbers and tables that stand among the weights and are none
ASIDE = ("input_resolution", "context_length", "vocab_size", "attn_mask", "position_ids")
ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".index.json")
FOREIGN = {  # how a file begins -> what it is and what to do
    b"version https://git-lfs": "a Git LFS pointer, not the weights; `git lfs pull` fetches them",
    b"<": "a web page, not the weights; download the file itself",
    b"\x1f\x8b": "packed by gzip; unpack it first",
    b"\x89HDF": "a HDF5 file; save a state dict as .safetensors",
    b"{": "JSON, not weights; name the weight file",
}
FIX = (
    "nothing but tensors is unpickled; where the model opens, "
    "`from safetensors.torch import save_file; save_file(model.state_dict(), 'weights.safetensors')` "
    "writes what load reads"
)


@dataclasses.dataclass(frozen=True)
class Weights:
    """Tensors of a weight file by their names in open_clip.

    quick_gelu: the activation, where the file tells. origin: "OpenAI" or "transformers", where it is one of theirs.
    """

    path: Path
    state: dict[str, Tensor]
    quick_gelu: bool | None = None
    origin: str = ""

    def __str__(self) -> str:
        return f"{self.path} (weights of transformers)" if self.origin == "transformers" else str(self.path)

    def some(self) -> str:
        """How many tensors there are and the names of three, for messages."""
        return f"it holds {len(self.state)} tensors, as {', '.join(sorted(self.state)[:3])}"


def read_weights(path: Path) -> Weights:
    """The model's tensors of a file. FileNotFoundError, or ValueError with what the file is and what to do."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no weight file {path}")
    try:
        held, quick_gelu = read(path)
    except Exception as e:
        raise ValueError(f"{path} is not a readable weight file ({why(e)}); {FIX}") from e
    state = without_wrappers(unpacked(held, path), path)
    origin = "OpenAI" if "input_resolution" in state else ""
    state = plain(state)
    lora = next((k for k in state if "lora_" in k or ".base_layer." in k), None)
    if lora:
        raise ValueError(
            f"{path} holds LoRA's own tensors beside the weights ({lora}); merge them, "
            "model.merge_and_unload(), and save that model's state dict"
        )
    if is_of_transformers(state):
        origin, state = "transformers", translated(state)
    return Weights(path, state, True if origin == "OpenAI" and quick_gelu is None else quick_gelu, origin)


def plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights alone, without numbers and tables that stand among them."""
    return {k: v for k, v in state.items() if k.rpartition(".")[2] not in ASIDE}


def is_openai(state: Mapping[str, Tensor]) -> bool:
    """Whether weights have the names of a CLIP ViT of OpenAI's."""
    return {"visual.class_embedding", "token_embedding.weight", "text_projection"} <= state.keys()


def read(path: Path) -> tuple[object, bool | None]:
    """What a file holds, and the activation where it tells."""
    with path.open("rb") as file:
        head = file.read(256)
    if not head:
        raise ValueError("it is empty")
    if path.name.endswith(".index.json"):
        return of_shards(path), None
    if head[8:9] == b"{":
        return load_file(path), None
    for mark, what in FOREIGN.items():
        if head.lstrip().startswith(mark):
            raise ValueError(f"it is {what}")
    if path.suffix == ".safetensors":
        return load_file(path), None
    if is_archive(path):
        return read_archive(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's advice on pickles
        try:
            return torch.load(path, map_location="cpu", weights_only=True), None
        except pickle.UnpicklingError:
            with contextlib.suppress(Exception):  # what torch says of the file stands
                return read_checkpoint(path), None
            raise


def of_shards(path: Path) -> dict[str, Tensor]:
    """The tensors of the files that an index names, all in its folder."""
    shards = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
    if wrong := [s for s in shards if Path(s).name != s]:
        raise ValueError(f"the index names a file elsewhere, {wrong[0]!r}")
    if gone := [s for s in shards if not (path.parent / s).is_file()]:
        raise ValueError(f"{gone[0]} is not beside it; download all of {len(shards)} files")
    return {k: v for s in shards for k, v in read(path.parent / s)[0].items()}


def why(e: Exception) -> str:
    """What is wrong with a file, in a few words, without torch's advice to unpickle it anyway."""
    text = str(e)
    if "weights_only" in text or "Weights only" in text:
        held = re.search(r"GLOBAL ([\w.]+)", text)
        return f"not plain tensors{f': it asks for {held[1]}' if held else ''}"
    if isinstance(e, pickle.UnpicklingError):
        return f"not plain tensors: {' '.join(text.split())[:200]}"
    return str(e) if type(e) is ValueError else first_line(e)


def assumed_aloud(message: str) -> None:
    """Warn about what was assumed, at the line outside vlmlab that asked for the model."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("vlmlab."):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


def first_line(e: Exception) -> str:
    """The kind of an error and the first line of its text."""
    return f"{type(e).__name__}: {str(e).strip()}".splitlines()[0]


def unpacked(held: object, path: Path) -> dict[str, Tensor]:
    """The state dict in what was read. ValueError where there is none or there are several."""
    if not isinstance(held, dict):
        raise ValueError(f"{path} holds a {type(held).__name__}, not a state dict; save model.state_dict()")
    tensors = {k: v for k, v in held.items() if isinstance(v, Tensor)}
    within = [k for k in KEYS if isinstance(held.get(k), dict)]
    if len(within) > 1 and not tensors:
        raise ValueError(
            f"{path} holds several state dicts ({', '.join(within)}); save the one that is meant"
        )
    if within and not tensors:
        return unpacked(held[within[0]], path)
    if wrong := [k for k in tensors if not isinstance(k, str)]:
        raise ValueError(f"{path} has the key {wrong[0]!r}; the names of a state dict are texts")
    if not tensors:
        there = ", ".join(map(str, list(held)[:3])) or "nothing"
        raise ValueError(f"{path} holds no state dict, but {there}; save model.state_dict()")
    return tensors


def without_wrappers(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The same tensors under the names that they have in the model itself."""
    within = re.compile(rf"(?:^|(?<=\.))(?:{'|'.join(WITHIN)})\.")
    named = {within.sub("", k): v for k, v in state.items()}
    if len(named) < len(state):
        raise ValueError(f"{path} holds tensors twice, wrapped and not; save model.state_dict() once")
    first = {k.partition(".")[0] for k in named}
    while len(first) == 1 and first <= set(BEFORE):
        named = {k.partition(".")[2]: v for k, v in named.items()}
        first = {k.partition(".")[0] for k in named}
    return named


def weight_files(folder: Path, known: tuple[str, ...] = ()) -> list[Path]:
    """The weight files in a folder, shards left out where there is an index; the first of the known ones alone."""
    for name in known:
        if (folder / name).is_file():
            return [folder / name]
    found = sorted(p for p in folder.iterdir() if p.name.endswith(ENDINGS) and p.is_file())
    indexed = [p for p in found if p.name.endswith(".index.json")]
    return indexed or found
