"""Two models: the embedded one, and a small random CLIP that is different where open_clip allows it."""

import json
import sys
from pathlib import Path

import pytest
import torch
from open_clip.model import CLIP
from safetensors.torch import save_file

from vlmlab.models.load import load

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))

# GELU, towers of different depth, a text projection with bias: nothing the towers may take for granted
SMALL = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 64, "layers": 3, "head_width": 16},
    "text_cfg": {"context_length": 16, "width": 48, "heads": 4, "layers": 2, "proj_bias": True},
}


@pytest.fixture(scope="session")
def save_folder():
    """Writes a model folder with random weights of the given model_cfg and returns its path."""

    def save(path, config, seed=0):
        torch.manual_seed(seed)
        path.mkdir(parents=True, exist_ok=True)
        (path / "config.json").write_text(json.dumps({"model_cfg": config}))
        save_file(CLIP(**config).state_dict(), path / "model.safetensors")
        return path

    return save


@pytest.fixture(scope="session")
def tiny():
    return load("tiny", device="cpu")


@pytest.fixture(scope="session")
def small(tmp_path_factory, save_folder):
    return load(save_folder(tmp_path_factory.mktemp("models") / "small", SMALL), device="cpu")


@pytest.fixture(params=["tiny", "small"])
def vlm(request):
    """Each of the two models, with its shortcuts on again afterwards."""
    model = request.getfixturevalue(request.param)
    yield model
    model.shortcuts = True
