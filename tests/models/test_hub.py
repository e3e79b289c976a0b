"""Nothing reaches for a hub unless asked; what would be fetched is said in one line."""

import json
import logging
import socket

import pytest
from model_forms import TEXT, VISION, small
from safetensors.torch import save_file

from vlmlab.models import hub
from vlmlab.models.load import load


@pytest.fixture(autouse=True)
def asked(monkeypatch):
    """The hosts that were asked for; none answers."""
    hosts = []

    def refuse(host, *_args, **_kwargs):
        hosts.append(host)
        raise socket.gaierror(-2, "no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return hosts


@pytest.mark.parametrize(
    "name", ["hf-hub:owner/model", "owner/model", "ViT-B-16-SigLIP", "local-dir:/nowhere"]
)
def test_no_name_fetches(name, asked):
    with pytest.raises(ValueError, match=r"hf download|unknown model"):
        load(name)
    assert not asked


@pytest.mark.parametrize(
    "change",
    [
        {"vision_cfg": {"timm_model_name": "hf-hub:owner/model", "image_size": 32}},
        {"vision_cfg": {"timm_model_name": "vit_tiny_patch16_224", "timm_model_pretrained": True}},
        {"text_cfg": TEXT | {"hf_model_name": "owner/model"}},
        {"text_cfg": TEXT | {"hf_tokenizer_name": "owner/model"}},
    ],
)
def test_no_configuration_fetches(tmp_path, change, asked):
    save_file(small().state_dict(), tmp_path / "model.safetensors")
    config = {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": TEXT} | change
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    with pytest.raises(ValueError, match=r"owner/model|does not fit"):
        load(tmp_path)
    assert not asked


def test_a_tag_that_cannot_be_fetched_is_one_line_and_one_look(asked, caplog, capfd):
    with (
        caplog.at_level(logging.DEBUG),
        pytest.raises(ValueError, match=r"\A.*could not be fetched.*") as caught,
    ):
        load("ViT-B-32-quickgelu", "openai")
    assert "\n" not in str(caught.value) and "pass the file as `pretrained`" in str(caught.value)
    assert len(asked) <= 1
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING] and not capfd.readouterr().err


def test_offline_by_the_environment(monkeypatch, asked):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match=r"HF_HUB_OFFLINE is set.*pass the file as `pretrained`"):
        load("ViT-B-32-quickgelu", "openai")
    assert not asked


def test_a_model_in_the_hub_s_cache_opens_by_its_name(tmp_path, monkeypatch, asked):
    import huggingface_hub

    save_file(small().state_dict(), tmp_path / "open_clip_model.safetensors")
    config = {"embed_dim": 16, "quick_gelu": True, "vision_cfg": VISION, "text_cfg": TEXT}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda repo, local_files_only: str(tmp_path))
    assert load("hf-hub:owner/model", device="cpu").source["name"] == str(tmp_path)
    assert not asked


def test_the_client_is_as_it_was_afterwards():
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    with pytest.raises(RuntimeError), hub.offline():
        assert constants.HF_HUB_OFFLINE
        raise RuntimeError
    assert constants.HF_HUB_OFFLINE is before
