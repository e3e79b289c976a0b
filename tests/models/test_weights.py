"""Weight files: every usual form gives the same features, nothing in a file runs, what is wrong has one line."""

import argparse
import collections
import json
import re
import shutil
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from model_forms import archive, same, small
from safetensors.torch import save_file

from vlmlab.models.load import EMBEDDED, load

CLIP = small()
STATE = CLIP.state_dict()
GIVEN = {"quick_gelu": True, "heads": 2, "pixels": {"mean": [0.5, 0.5, 0.5]}}


def opened(path, **given):
    """The model of a file; a warning is an error here."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load(path, device="cpu", **GIVEN | given)


def prefixed(prefix):
    return {f"{prefix}{k}": v for k, v in STATE.items()}


CHECKPOINTS = {
    "plain": STATE,
    "open_clip's training": {"epoch": 3, "name": "x", "state_dict": prefixed("module."), "optimizer": {}},
    "model": {"model": STATE},
    "model_state_dict": {"model_state_dict": prefixed("module.model."), "epoch": 1},
    "Lightning": {"state_dict": prefixed("clip_model."), "pytorch-lightning_version": "2"},
    "compiled": prefixed("_orig_mod."),
    "compiled within DataParallel": {"state_dict": prefixed("module._orig_mod.")},
    "compiled towers": {k.replace("visual.", "visual._orig_mod."): v for k, v in STATE.items()},
    "half": {k: v.half().float().half() for k, v in STATE.items()},
    "text tower apart": {
        k if k.startswith(("visual.", "logit_")) else f"text.{k}": v for k, v in STATE.items()
    },
    "nested": {"state_dict": {"model": STATE}},
}


@pytest.mark.parametrize("form", CHECKPOINTS)
def test_state_dicts_under_usual_names(tmp_path, form):
    torch.save(CHECKPOINTS[form], tmp_path / "mine.pt")
    vlm = opened(tmp_path / "mine.pt")
    assert same(vlm, CLIP, 1e-2 if form == "half" else 1e-5)
    assert {p.dtype for p in vlm.clip.parameters()} == {torch.float32}


def test_bfloat16_shards_and_tied_tensors(tmp_path):
    names = sorted(STATE)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in shards.items():
        save_file({k: STATE[k].bfloat16() for k in part}, tmp_path / file)
    index = {"weight_map": {k: file for file, part in shards.items() for k in part}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    for place in (tmp_path, tmp_path / "model.safetensors.index.json"):
        assert same(opened(place), CLIP, 3e-2)
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(ValueError, match=r"index.json.*b.safetensors is not beside it; download all of 2"):
        opened(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../x"}}))
    with pytest.raises(ValueError, match=r"a file elsewhere, '../x'"):
        opened(tmp_path)


@pytest.mark.parametrize("quick_gelu", [True, False])
def test_an_archive_of_torchscript_is_read_and_tells_its_activation(tmp_path, quick_gelu):
    clip = small(quick_gelu)
    path = archive(clip, tmp_path / "ViT-tiny.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vlm = load(str(path), device="cpu")
    assert same(vlm, clip)
    assert vlm.source["quick_gelu"] == quick_gelu and vlm.source["heads"] == 2
    with pytest.raises(ValueError, match=r"computes .*GELU; leave out quick_gelu="):
        load(path, quick_gelu=not quick_gelu)


def test_an_archive_cannot_run_anything(tmp_path, monkeypatch):
    path = archive(CLIP, tmp_path / "good.pt")
    monkeypatch.setattr(torch.jit, "load", lambda *a, **k: pytest.fail("its code was run"))
    assert same(opened(path), CLIP)
    evil = tmp_path / "evil.pt"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(evil, "w") as new:
        for item in old.infolist():
            data = old.read(item)
            new.writestr(
                item.filename, b"cposix\nsystem\n(S'false'\ntR." if "data.pkl" in item.filename else data
            )
    with pytest.raises(
        ValueError, match=r"evil.pt is not a readable weight file.*posix.system.*nothing but tensors"
    ):
        load(evil)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "torn.pt", "w") as new:
        for item in old.infolist():
            new.writestr(item.filename, old.read(item)[: 8 if "/data/0" in item.filename else None])
    with pytest.raises(ValueError, match=r"torn.pt is not a readable weight file.*data/0"):
        load(tmp_path / "torn.pt")


def test_a_training_checkpoint_may_hold_more_than_tensors(tmp_path, monkeypatch):
    """Arguments, scores and schedulers of a training are passed over; they are never made."""
    parameter = torch.nn.Parameter(torch.ones(2))
    optimiser = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 3)
    held = {
        "epoch": 3,
        "args": argparse.Namespace(lr=0.1, folder=Path("runs")),
        "state_dict": prefixed("module."),
        "optimizer": optimiser.state_dict(),
        "scheduler": {"successor": schedule, "counts": collections.Counter("aab")},
        "best": np.float64(0.5),
    }
    torch.save(held, tmp_path / "epoch_3.pt")
    monkeypatch.setattr(argparse.Namespace, "__init__", lambda *_: pytest.fail("an object was made"))
    assert same(opened(tmp_path / "epoch_3.pt"), CLIP)


FOREIGN = {
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer.*git lfs pull"),
    "page": (b"<!DOCTYPE html><html>", "a web page.*download the file itself"),
    "packed": (b"\x1f\x8b" + bytes(20), "packed by gzip"),
    "empty": (b"", "it is empty"),
    "text": (b"learning_rate: 3\n" * 9, "not a readable weight file"),
    "JSON": (b'{"model_cfg": 1}', "JSON, not weights"),
}


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
@pytest.mark.parametrize("kind", FOREIGN)
def test_files_that_are_no_weights(tmp_path, kind, ending):
    file = tmp_path / f"mine.{ending}"
    file.write_bytes(FOREIGN[kind][0])
    for args in ((file,), ("ViT-B-32", file)):
        with pytest.raises(ValueError, match=FOREIGN[kind][1]) as caught:
            load(*args)
        assert f"mine.{ending}" in str(caught.value) and "\n" not in str(caught.value)


def test_torch_s_advice_is_not_passed_on(tmp_path):
    torch.save(CLIP, tmp_path / "whole.pt")  # a module, pickled with its class
    with pytest.raises(
        ValueError, match=r"whole.pt is not a readable.*asks for open_clip.*save_file"
    ) as caught:
        load(tmp_path / "whole.pt")
    assert not re.search("weights_only|trusted", str(caught.value)) and "\n" not in str(caught.value)


SHAPES = {"state_dict": 5}, {5: torch.ones(2)}, {"state_dict": {"a": {"b": torch.ones(1)}}}
SEVERAL = {"model": STATE, "state_dict": STATE}


@pytest.mark.parametrize("held", [*SHAPES, SEVERAL, {**STATE, "visual.proj": torch.ones(3)}])
def test_what_is_no_state_dict(tmp_path, held):
    torch.save(held, tmp_path / "odd.pt")
    with pytest.raises(ValueError, match=r"odd.pt"):
        load(tmp_path / "odd.pt")


def test_patches_that_are_no_square(tmp_path):
    torch.save(STATE | {"visual.positional_embedding": torch.ones(7, 128)}, tmp_path / "odd.pt")
    with pytest.raises(ValueError, match=r"6 positions of patches are no square.*name the architecture"):
        load(tmp_path / "odd.pt")


VALUES = {
    "nan among": lambda x: x.fill_(float("nan")),
    "inf among": lambda x: x.fill_(float("inf")),
    "dtype int8": lambda x: x.to(torch.int8),
    "dtype float8_e4m3fn": lambda x: x.to(torch.float8_e4m3fn),
    "inf among its": lambda x: x.double().fill_(1e300),
}


@pytest.mark.parametrize("said", VALUES)
def test_weights_that_are_no_finite_numbers(tmp_path, said):
    name = "visual.transformer.resblocks.1.mlp.c_fc.weight"
    torch.save(STATE | {name: VALUES[said](STATE[name].clone())}, tmp_path / "bad.pt")
    with pytest.raises(ValueError, match=f"bad.pt: {name} has .*{said}"):
        opened(tmp_path / "bad.pt")


def test_lora_beside_the_weights(tmp_path):
    state = STATE | {"visual.transformer.resblocks.0.attn.lora_A.weight": torch.ones(2, 2)}
    torch.save(state, tmp_path / "lora.pt")
    with pytest.raises(ValueError, match=r"LoRA's own tensors.*lora_A.*merge_and_unload"):
        load(tmp_path / "lora.pt")


def test_a_folder_of_one_weight_file_and_of_several(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine").mkdir()
    torch.save(STATE, tmp_path / "mine" / "epoch_3.pt")
    for place in ("mine", "mine/epoch_3.pt"):
        vlm = opened(f"~/{place}")
        assert same(vlm, CLIP) and vlm.source["name"] == str(tmp_path / place)
    torch.save(STATE, tmp_path / "mine" / "epoch_4.pt")
    with pytest.raises(ValueError, match=r"mine has 2 weight files \(epoch_3.pt, epoch_4.pt\); name the one"):
        opened("~/mine")


def test_a_folder_whose_only_weights_are_pickles(tmp_path):
    shutil.copy(EMBEDDED / "tiny" / "config.json", tmp_path)
    torch.save(CLIP, tmp_path / "open_clip_pytorch_model.bin")
    with pytest.raises(ValueError, match=r"has no weight file that can be read: .*pytorch_model.bin is not"):
        load(tmp_path)
