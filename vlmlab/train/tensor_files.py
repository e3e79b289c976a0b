"""Files of tensors with a record and a checksum of both; reading refuses what is not what was written."""

import hashlib
import json
from pathlib import Path

from ..files import write
from .records import CHECK, damaged


def checksum(tensors: dict, record: dict) -> str:
    """sha256 over a record and names, types, shapes and bytes of tensors on the CPU."""
    import torch

    rest = {k: v for k, v in record.items() if k != CHECK}
    found = hashlib.sha256(json.dumps(rest, sort_keys=True).encode())
    for name in sorted(tensors):
        x = tensors[name].detach().contiguous()
        found.update(f"{name}|{x.dtype}|{tuple(x.shape)}|".encode())
        found.update(memoryview(x.reshape(-1).view(torch.uint8).numpy()))
    return found.hexdigest()


def write_tensors(path: Path, tensors: dict, record: dict) -> None:
    """A file of CPU tensors with a record."""
    from safetensors.torch import save

    record = json.loads(json.dumps(record))
    text = json.dumps(record | {CHECK: checksum(tensors, record)}, sort_keys=True)
    data = save({k: v.contiguous() for k, v in tensors.items()}, {"vlmlab": text})
    write(path, lambda p: p.write_bytes(data))


def read_tensors(path: Path, device, checked: bool = True) -> tuple[dict, dict]:
    """The tensors of a file, on a device, and its record; ValueError with the path when it is damaged.

    checked: refuse a file without a checksum, which earlier versions wrote.
    """
    from safetensors import safe_open

    try:
        with safe_open(path, "pt") as f:
            tensors, record = {n: f.get_tensor(n) for n in f.keys()}, dict(json.loads(f.metadata()["vlmlab"]))
    except Exception as e:  # safetensors has errors of its own
        raise damaged(path, e) from e
    if CHECK not in record and checked:
        raise damaged(path, "it has no checksum: something else wrote it")
    if record.get(CHECK) not in (None, checksum(tensors, record)):
        raise damaged(path, "its checksum does not fit: it is not what was written")
    return {name: x.to(device) for name, x in tensors.items()}, record


def read_record(path: Path) -> dict:
    """The record of a file of tensors, without them."""
    from safetensors import safe_open

    try:
        with safe_open(path, "np") as f:
            return json.loads(f.metadata()["vlmlab"])
    except Exception as e:
        raise damaged(path, e) from e


def length_of(path: Path) -> int:
    """How many bytes the header of a safetensors file says that it has. ValueError where it says nothing."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(min(length, 100_000_000)))
    header.pop("__metadata__", None)
    return 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)


def load_own(learner, tensors: dict, path: Path) -> None:
    """Copy saved tensors into a learner; ValueError names the first that do not fit."""
    import torch

    own = learner.own()
    wrong = sorted(
        (own.keys() ^ tensors.keys())
        | {k for k in own.keys() & tensors.keys() if own[k].shape != tensors[k].shape}
    )
    if wrong:
        raise ValueError(
            f"{path} does not fit {type(learner).__name__}: {', '.join(wrong[:4])}; another version of it "
            f"made the file: move {path.parent} away and run again"
        )
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(tensors[name])
