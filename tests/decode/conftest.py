"""The writers of `writers.py`, built once, with what generation needs to know."""

import sys
from pathlib import Path

import pytest
from torch import nn

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "capturing")]

from writers import WRITERS, Written  # noqa: E402


@pytest.fixture(scope="session")
def made():
    """name -> model, built once."""
    kept: dict[str, nn.Module] = {}

    def make(writer: Written) -> nn.Module:
        if writer.name not in kept:
            model = kept[writer.name] = writer.build()
            settings = {
                "eos_token_id": None,
                "pad_token_id": 0,
                "decoder_start_token_id": 0,
                "do_sample": False,
            }
            for part in model.modules():
                if getattr(part, "generation_config", None) is not None:
                    part.generation_config.update(**settings)
        return kept[writer.name]

    return make


@pytest.fixture(params=WRITERS, ids=lambda writer: writer.name)
def writer(request, made):
    """(model, inputs) of each family."""
    return made(request.param), request.param.inputs()


@pytest.fixture
def llama(made):
    return made(WRITERS[0]), WRITERS[0].inputs()


@pytest.fixture
def llava(made):
    return made(WRITERS[3]), WRITERS[3].inputs()


@pytest.fixture
def janus(made):
    return made(WRITERS[4]), WRITERS[4].inputs()
