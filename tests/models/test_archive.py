"""What a pickle of tensors may ask for, tensor by tensor; everything else is refused by name."""

import argparse
import collections
import io
import pickle
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from vlmlab.models import archive
from vlmlab.models.archive import Part, Reader, activation, is_archive, read_archive, read_checkpoint

CODE, CHECKPOINT = ("__torch__",), archive.BESIDE
MIB = 2**20


def reader(parts=CHECKPOINT, data=b"") -> Reader:
    """A reader of a zip whose one storage, of the key 0, holds some bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as new:
        new.writestr("root/data.pkl", b"")
        new.writestr("root/data/0", data)
    return Reader(zipfile.ZipFile(file), "root", parts)


# names


@pytest.mark.parametrize(
    ("module", "name", "made"),
    [
        ("torch", "FloatStorage", torch.float32),
        ("torch", "DoubleStorage", torch.float64),
        ("torch", "HalfStorage", torch.float16),
        ("torch", "BFloat16Storage", torch.bfloat16),
        ("torch", "LongStorage", torch.int64),
        ("torch", "IntStorage", torch.int32),
        ("torch", "ShortStorage", torch.int16),
        ("torch", "CharStorage", torch.int8),
        ("torch", "ByteStorage", torch.uint8),
        ("torch", "BoolStorage", torch.bool),
        ("collections", "OrderedDict", collections.OrderedDict),
        *[
            ("torch.jit._pickle", name, archive.plain)
            for name in ("build_intlist", "build_tensorlist", "build_doublelist", "build_boollist")
        ],
        ("torch.jit._pickle", "restore_type_tag", archive.plain),
        ("torch._utils", "_rebuild_tensor_v2", archive.tensor),
        ("torch._utils", "_rebuild_parameter", archive.parameter),
    ],
)
def test_what_both_kinds_of_files_may_ask_for(module, name, made):
    assert all(reader(parts).find_class(module, name) is made for parts in (CODE, CHECKPOINT))


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("__torch__.torch.nn.Module", "archive"),
        *[(f"builtins.{kind}", "checkpoint") for kind in ("dict", "list", "set", "object")],
        *[(f"__builtin__.{kind}", "checkpoint") for kind in ("dict", "list", "set", "object")],
        *[(f"torch.{kind}", "checkpoint") for kind in ("Size", "device", "optim.lr_scheduler.StepLR")],
        *[
            (name, "checkpoint")
            for name in ("argparse.Namespace", "collections.Counter", "pathlib.PosixPath")
        ],
        *[(name, "checkpoint") for name in ("numpy.core.multiarray.scalar", "copyreg._reconstructor")],
        *[
            (name, "checkpoint")
            for name in ("_codecs.encode", "dassl.x", "omegaconf.x", "pytorch_lightning.x")
        ],
        ("yacs.config.CfgNode", "checkpoint"),
        *[(name, "") for name in ("builtins.eval", "os.system", "posix.system", "torch.load", "argparse.x")],
        *[(name, "") for name in ("numbers.Number", "torch.hub.load", "evil.FloatStorage", "torch.UntypedX")],
        *[(name, "") for name in ("evil._rebuild_tensor_v2", "evil.OrderedDict", "torch.jit._pickle.load")],
    ],
)
def test_what_one_kind_of_file_may_ask_for_or_none(name, there):
    module, _, kind = name.rpartition(".")
    for what, parts in (("archive", CODE), ("checkpoint", CHECKPOINT)):
        if what == there:
            assert reader(parts).find_class(module, kind) is Part
        else:
            with pytest.raises(pickle.UnpicklingError, match=rf"^it asks for {name}$"):
                reader(parts).find_class(module, kind)


# storages


@pytest.mark.parametrize(
    "about",
    [
        ("module", torch.float32, "0", "cpu", 2),
        ("storage", "float32", "0", "cpu", 2),
        ("storage", Part, "0", "cpu", 2),
        ("storage", torch.float32, "0", "cpu", "2"),
        ("storage", torch.float32, "0", "cpu", 2.0),
    ],
)
def test_a_storage_is_of_numbers_of_one_type_and_counted(about):
    with pytest.raises(pickle.UnpicklingError, match="a storage is described wrongly"):
        reader(data=bytes(8)).persistent_load(about)


@pytest.mark.parametrize(("held", "count"), [(8, 1), (8, 3), (0, 1), (8, 4)])
def test_a_storage_is_as_long_as_it_says(held, count):
    with pytest.raises(pickle.UnpicklingError, match=rf"data/0 has {held} bytes of {4 * count}$"):
        reader(data=bytes(held)).persistent_load(("storage", torch.float32, "0", "cpu", count))
    entries = reader(data=bytes(8)).persistent_load(("storage", torch.float32, "0", "cpu", 2))
    assert torch.equal(entries, torch.zeros(2)) and entries.dtype == torch.float32


def test_tensors_of_every_type_and_place_come_back(tmp_path):
    values = torch.tensor([[0, 1, 2], [3, 4, 5]])
    held = {str(dtype): values.to(dtype) for dtype in archive.STORAGES.values()}
    held |= {"part": values[:, 1:], "turned": values.float().T, "number": torch.tensor(2.5)}
    held |= {"none": torch.empty(0, 3, dtype=torch.int64), "trains": torch.nn.Parameter(torch.ones(2))}
    torch.save({"state": collections.OrderedDict(held), "args": argparse.Namespace(x=1)}, tmp_path / "x.pt")
    found = read_checkpoint(tmp_path / "x.pt")
    assert type(found["args"]) is Part and list(found["state"]) == list(held) and len(held) == 15
    for name, value in found["state"].items():
        assert torch.equal(value, held[name].detach()) and value.dtype == held[name].dtype, name


def test_a_tensor_beyond_its_storage_is_refused():
    with pytest.raises(RuntimeError, match="out of bounds"):
        archive.tensor(torch.zeros(4), 1, (2, 2), (2, 1))


def test_what_a_part_is_given():
    part = Part(1, 2, name="x")
    part.__setstate__({"lr": 0.1})
    part["x"] = 1
    part.append(1), part.extend([1])
    assert vars(part) == {"lr": 0.1}
    part.__setstate__((1, 2)), part.__setstate__(None)
    assert vars(part) == {"lr": 0.1}


def test_tensors_of_parts_have_dotted_names():
    def part(**held):
        made = Part()
        made.__setstate__(held)
        return made

    one, two, three = (torch.full((1,), float(x)) for x in range(3))
    whole = part(a=one, training=True, visual=part(proj=two, block=part(bias=three)), names=["x"])
    assert archive.flat(whole) == {"a": one, "visual.proj": two, "visual.block.bias": three}
    assert archive.flat({"a": one}) == {}


# the file around them


def zipped(path: Path, held: dict[str, bytes], packed: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", packed) as file:
        for name, data in held.items():
            file.writestr(name, data)
    return path


@pytest.mark.parametrize("names", [[], ["a/data.pkl", "b/data.pkl"], ["data.pkl"]])
def test_one_pickle_is_expected(tmp_path, names):
    path = zipped(tmp_path / "x.pt", dict.fromkeys(names, pickle.dumps({})))
    for read in (read_checkpoint, read_archive):
        with pytest.raises(pickle.UnpicklingError, match=r"it has no data.pkl of at most 64 MiB"):
            read(path)


class Listed:
    """The table of contents of a zip, without its contents."""

    def __init__(self, **sizes):
        self.sizes = {name.replace("__", "/").replace("_", "."): size for name, size in sizes.items()}

    def namelist(self):
        return list(self.sizes)

    def infolist(self):
        return [SimpleNamespace(filename=name, file_size=size) for name, size in self.sizes.items()]

    def getinfo(self, name):
        return SimpleNamespace(file_size=self.sizes[name])

    def open(self, _):
        return io.BytesIO(b"")

    def read(self, info):
        return b"torch.gelu(" if info.file_size > 64 * MIB - 9 else b"torch.sigmoid("


def test_names_and_shapes_take_at_most_64_mib(tmp_path):
    path = zipped(tmp_path / "x.pt", {"x": bytes(100)})
    assert archive.reader(Listed(root__data_pkl=64 * MIB), path, ()).root == "root"
    with pytest.raises(pickle.UnpicklingError, match="at most 64 MiB"):
        archive.reader(Listed(root__data_pkl=64 * MIB + 1), path, ())
    assert activation(Listed(x__code__a_py=64 * MIB, x__code__b_py=9)) is True
    assert activation(Listed(x__code__a_py=64 * MIB - 1, x__code__b_py=9)) is None


def test_a_zip_that_unpacks_to_more_than_itself_is_refused(tmp_path):
    held = {"root/data.pkl": pickle.dumps({}), "root/data/0": bytes(3 * MIB)}
    with pytest.raises(pickle.UnpicklingError, match="its tensors would unpack to 3 MiB"):
        read_checkpoint(zipped(tmp_path / "bomb.pt", held, zipfile.ZIP_DEFLATED))
    assert read_checkpoint(zipped(tmp_path / "fine.pt", held)) == {}


@pytest.mark.parametrize(
    ("files", "quick"),
    [
        ({"x/code/a.py": b"torch.gelu(x)"}, False),
        ({"x/code/a.py": b"x * torch.sigmoid(1.702 * x)"}, True),
        ({"x/code/a.py": b"torch.gelu(x)", "x/code/b.py": b"torch.sigmoid(x)"}, None),
        ({"x/code/a.py": b"torch.relu(x)"}, None),
        ({"x/code/a.py": b"torch.gelu(x)", "x/extra/b.py": b"torch.sigmoid(x)"}, False),
        ({"x/code/a.py": b"torch.gelu(x)", "x/code/a.py.debug_pkl": b"torch.sigmoid(x)"}, False),
        ({}, None),
    ],
)
def test_the_activation_is_read_in_the_code(tmp_path, files, quick):
    with zipfile.ZipFile(zipped(tmp_path / "x.pt", files)) as file:
        assert activation(file) is quick


def test_an_archive_has_its_constants(tmp_path):
    torch.save({}, tmp_path / "plain.pt")
    torch.save({}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    zipped(tmp_path / "archive.pt", {"x/constants.pkl": b"", "x/data.pkl": b""})
    assert [is_archive(tmp_path / f"{x}.pt") for x in ("plain", "old", "archive")] == [False, False, True]
