"""Tensors of TorchScript archives, the form in which OpenAI publishes CLIP, and of training checkpoints that hold
more than tensors. Nothing in them runs: what is no tensor becomes a `Part`, or is refused."""

import collections
import pickle
import zipfile
from pathlib import Path

import torch
from torch import Tensor

LARGEST = 64 << 20  # bytes of data.pkl, which holds names and shapes alone
STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


# what training scripts keep beside the weights; read as a Part, never imported
BESIDE = (
    *(
        f"{module}.{kind}"
        for module in ("builtins", "__builtin__")
        for kind in ("dict", "list", "set", "object")
    ),
    "argparse.Namespace",
    "collections.",
    "copyreg._reconstructor",
    "_codecs.encode",
    "dassl.",
    "numpy.",
    "omegaconf.",
    "pathlib.",
    "pytorch_lightning.",
    "torch.Size",
    "torch.device",
    "torch.optim.",
    "yacs.config.",
)


class Part:
    """Stands for an object that is no tensor, such as a module of an archive: what it held, by name."""

    def __new__(cls, *_args, **_keywords):
        return object.__new__(cls)

    def __init__(self, *_args, **_keywords):
        pass

    def __setstate__(self, state):
        self.__dict__.update(state if isinstance(state, dict) else {})

    def __setitem__(self, key, value):
        pass

    def append(self, value):
        pass

    def extend(self, values):
        pass


class Reader(pickle.Unpickler):
    """Makes tensors, lists and `Part`; any other name that an archive asks for is refused, nothing is imported."""

    def __init__(self, archive: zipfile.ZipFile, root: str, parts: tuple[str, ...]):
        super().__init__(archive.open(f"{root}/data.pkl"))
        self.archive, self.root, self.parts = archive, root, parts

    def find_class(self, module: str, name: str):
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if (module, name) in ALLOWED:
            return ALLOWED[module, name]
        if f"{module}.{name}".startswith(self.parts):
            return Part
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, about):
        """(storage, number of entries) that a tensor looks into."""
        kind, dtype, key, _, count = about
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(count, int):
            raise pickle.UnpicklingError("a storage is described wrongly")
        data = bytearray(self.archive.read(f"{self.root}/data/{key}")) if count else bytearray()
        if len(data) != count * dtype.itemsize:
            raise pickle.UnpicklingError(f"data/{key} has {len(data)} bytes of {count * dtype.itemsize}")
        return torch.frombuffer(data, dtype=dtype) if count else torch.empty(0, dtype=dtype)


def tensor(storage: Tensor, offset: int, size: tuple, stride: tuple, *_) -> Tensor:
    """A tensor within its storage; RuntimeError where it reaches beyond."""
    return storage.as_strided(size, stride, offset)


def parameter(data: Tensor, *_) -> Tensor:
    return data


def plain(value, *_):
    return value


ALLOWED = {
    ("torch._utils", "_rebuild_tensor_v2"): tensor,
    ("torch._utils", "_rebuild_parameter"): parameter,
    ("collections", "OrderedDict"): collections.OrderedDict,
} | {
    ("torch.jit._pickle", name): plain
    for name in (
        "build_intlist",
        "build_tensorlist",
        "build_doublelist",
        "build_boollist",
        "restore_type_tag",
    )
}


def is_archive(path: Path) -> bool:
    """Whether a file is a TorchScript archive."""
    return zipfile.is_zipfile(path) and any(n.endswith("/constants.pkl") for n in names(path))


def names(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def read_archive(path: Path) -> tuple[dict[str, Tensor], bool | None]:
    """Tensors by the names that `state_dict` would give, and whether its code computes QuickGELU, if it tells."""
    with zipfile.ZipFile(path) as archive:
        return flat(reader(archive, path, ("__torch__",)).load()), activation(archive)


def read_checkpoint(path: Path) -> object:
    """What `torch.save` wrote of a training: its tensors, without what training scripts keep beside them."""
    with zipfile.ZipFile(path) as archive:
        return reader(archive, path, BESIDE).load()


def reader(archive: zipfile.ZipFile, path: Path, parts: tuple[str, ...]) -> Reader:
    """UnpicklingError for what torch would not have written."""
    pickles = [n for n in archive.namelist() if n.endswith("/data.pkl")]
    if len(pickles) != 1 or archive.getinfo(pickles[0]).file_size > LARGEST:
        raise pickle.UnpicklingError(f"it has no data.pkl of at most {LARGEST >> 20} MiB")
    check_sizes(archive, path)
    return Reader(archive, pickles[0].removesuffix("/data.pkl"), parts)


def check_sizes(archive: zipfile.ZipFile, path: Path) -> None:
    """torch packs nothing: what would unpack to more than the file holds is no archive of its own."""
    total = sum(info.file_size for info in archive.infolist() if "/data/" in info.filename)
    if total > path.stat().st_size:
        raise pickle.UnpicklingError(f"its tensors would unpack to {total >> 20} MiB")


def activation(archive: zipfile.ZipFile) -> bool | None:
    """QuickGELU, x * sigmoid(1.702 x), is written out in the code; GELU is a function of torch."""
    code = [i for i in archive.infolist() if "/code/" in i.filename and i.filename.endswith(".py")]
    text = b"".join(archive.read(i) for i in code if i.file_size < LARGEST)
    found = {b"torch.gelu(": False, b"torch.sigmoid(": True}
    said = {quick for mark, quick in found.items() if mark in text}
    return said.pop() if len(said) == 1 else None


def flat(part: object, prefix: str = "") -> dict[str, Tensor]:
    """Tensors of a tree of parts by their dotted names."""
    found: dict[str, Tensor] = {}
    for name, value in vars(part).items() if isinstance(part, Part) else ():
        if isinstance(value, Tensor):
            found[prefix + name] = value
        elif isinstance(value, Part):
            found |= flat(value, f"{prefix}{name}.")
    return found
