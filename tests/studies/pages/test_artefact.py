"""Finished runs are chosen by what there is, and opened as they were trained."""

import numpy as np
import pandas as pd
import pytest
import torch

from vlmlab import studies, task
from vlmlab.models.load import load
from vlmlab.train.fit import fit

ROWS = pd.DataFrame({"name": ["mmrlpp", "mmrlpp", "aligned_norm_proj", "mmrlpp"], "task": list("babc")})


@pytest.fixture(autouse=True)
def threads():
    torch.set_num_threads(1)


def chosen(*args, **options) -> list:
    return studies.narrow(ROWS, *args, **options).index.tolist()


def test_narrow_takes_names_and_tasks_in_the_order_of_the_runs():
    assert chosen() == [0, 1, 2, 3]
    assert chosen(["mmrlpp"]) == [0, 1, 3]
    assert chosen(["mmrlpp"], ["c", "b"]) == [0, 3]
    assert chosen(tasks="a") == [1]


def test_without_tasks_it_is_the_first_of_them():
    assert chosen(tasks=[], first=2) == [0, 1, 2] and chosen(tasks="", first=1) == [0, 2]
    assert chosen(["mmrlpp"], tasks=["c", "other"], first=1) == [3]


def test_tasks_of_another_profile_are_replaced_with_a_word():
    with pytest.warns(UserWarning, match=r"no runs of other; b, a instead"):
        assert chosen(tasks=["other"], first=2) == [0, 1, 2]


def test_a_name_without_runs_is_named():
    with pytest.raises(ValueError, match=r"no run is called coop; there are mmrlpp, aligned_norm_proj"):
        studies.narrow(ROWS, ["coop"])


@pytest.fixture(scope="module")
def vlm():
    return load("tiny", device="cpu")


def test_runs_are_opened_on_the_data_they_were_trained_on(vlm, tmp_path):
    data = task("emoji/activities", protocol="base_to_new", shots=2, seed=3)
    zero = task("emoji/activities", protocol="base_to_new", seed=1)
    few = fit("mmrlpp", vlm, data, out=tmp_path, max_steps=1, warmup_epochs=0)
    runs = [few, fit("zero_shot", vlm, zero, out=tmp_path)]
    rows = [
        {
            "method": m,
            "task": "emoji/activities",
            "protocol": "base_to_new",
            "shots": shots,
            "seed": seed,
            "name": m,
            "key": run.key,
            "path": run.path,
        }
        for m, shots, seed, run in (("mmrlpp", 2, 3, runs[0]), ("zero_shot", None, 1, runs[1]))
    ]
    opened = list(studies.open_runs(pd.DataFrame(rows), vlm))
    assert [row.key for row, _, _ in opened] == [run.key for run in runs]
    assert opened[0][2].fingerprint() == data.fingerprint() and opened[1][2].shots is None
    trained = runs[0].attach(vlm, data).model.trainable()
    found = opened[0][1].model.trainable()
    assert found and all(torch.equal(found[k], trained[k]) for k in trained)


def test_images_are_spread_over_the_split(vlm):
    split = task("emoji/activities", protocol="base_to_new", seed=1).new
    images, labels = studies.images_of(split, vlm)
    assert images.shape == (len(split), 3, *vlm.clip.visual.image_size)
    assert labels.tolist() == split.labels.tolist()
    some, few = studies.images_of(split, vlm, limit=4)
    at = np.linspace(0, len(split) - 1, 4).astype(int)
    assert torch.equal(some, images[at]) and few.tolist() == split.labels[at].tolist()
    assert len(studies.images_of(split, vlm, limit=10**6)[0]) == len(split)
