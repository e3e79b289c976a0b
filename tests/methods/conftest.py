import sys
from pathlib import Path

import pytest
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))
import small_clip


@pytest.fixture(scope="session")
def small_vlm(tmp_path_factory):
    """The CLIP of the golden numbers, read back from a file as a user would."""
    from vlmlab.models.load import load

    path = tmp_path_factory.mktemp("golden") / "small_clip.safetensors"
    save_file(small_clip.state_dict(), path)
    return load(path, device="cpu")
