"""One thread per test process: small models gain nothing from more, and shared machines lose a lot."""

import os
import sys

import pytest

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"  # read when the libraries are first imported, also in subprocesses


@pytest.fixture(autouse=True)
def one_thread():
    if torch := sys.modules.get("torch"):  # tests without torch stay quick
        torch.set_num_threads(1)


LONG = (
    "test_ground.py",
    "test_coop_in_a_study.py",
    "test_runner.py",
    "test_cluster.py",
    "test_gallery_in_browser.py",
    "test_scale.py",
    "test_fit.py",
)


def pytest_collection_modifyitems(items):
    """What takes minutes starts first, so that no process is left alone with it at the end."""
    items.sort(key=lambda item: item.path.name not in LONG)
