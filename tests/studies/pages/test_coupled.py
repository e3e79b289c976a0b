"""What alignednorm measures of coupled branches: bounds that hold for any weights, and directions that are known."""

import numpy as np
import pytest
import torch
import xarray as xr

import vlmlab
from vlmlab.studies.pages import coupled


@pytest.fixture(scope="module")
def task():
    return vlmlab.task("emoji/animals", protocol="base_to_new", shots=1, seed=1)


@pytest.fixture(scope="module")
def run(task, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    return vlmlab.fit("mmrlpp", vlmlab.load("tiny", device="cpu"), task, out=out, max_steps=2, seed=1)


def test_plane_of_fields_of_known_directions():
    rng = np.random.default_rng(0)
    swing = np.outer(rng.normal(size=20), np.eye(5)[3])
    base, new = (
        xr.DataArray(2 * np.eye(5)[1] + swing[at], dims=("sample", "joint"))
        for at in (slice(12), slice(12, 20))
    )
    base = base - swing[:12].mean(0)
    on = coupled.plane(base, new)
    assert np.allclose(on @ on.rename(axis="other"), np.eye(2), atol=1e-6)
    assert on.sel(axis=0).values == pytest.approx(np.eye(5)[1], abs=1e-6)
    assert np.abs(on.sel(axis=1).values) == pytest.approx(np.eye(5)[3], abs=1e-6)


def test_field_of_images(run, task):
    model = vlmlab.load("tiny", device="cpu")
    anchor = coupled.frozen(model, task.base, 6)
    found, f_c, u = coupled.field(run, task.base, 6, anchor)
    assert np.sqrt((f_c**2).sum("joint")).values == pytest.approx(np.ones(6), rel=1e-5)
    assert found["norm"].to_numpy() == pytest.approx(np.sqrt((u**2).sum("joint")).values, rel=1e-5)
    assert found["norm"].max() <= 2 * run.model.config.prompt_weight  # of two unit vectors
    assert found["doubled"].max() < 1e-5  # features are normalised before they are mixed
    assert (
        found["anchor"].between(-1, 1).all() and found["anchor"].mean() > 0.9
    )  # two steps from the frozen one
    named = dict(zip(map(task.base.concept, task.base.ids), task.base.labels))
    assert [named[concept] for concept in found["concept"]] == u["label"].values.tolist()


def test_keys_of_prompts_keep_their_bounds(run, task):
    model = run.model
    images = torch.stack([model.vlm.preprocess(task.train.image(i)) for i in range(3)])
    labels = torch.tensor(task.train.labels[:3])
    found = coupled.prompt_keys(run, images, labels)
    first, depth, n = model.config.first_block, model.vlm.image.depth, 1 + 64 + model.config.tokens
    assert list(found["block"].unique()) == list(range(first, depth + 1))
    assert len(found) == (depth - first + 1) * (found["head"].max() + 1)
    assert found["even"].to_numpy() == pytest.approx(model.config.tokens / n)
    assert (found["gated_over_n"] <= found["attention"]).all() and (
        found["attention"] <= found["gated"]
    ).all()
    assert (found["key_gradient"] > 0).all() and (found["key_gradient"] <= found["bound"]).all()
    assert found["cosine"].between(0, 1).all() and found["attention"].between(0, 1).all()


def test_gradient_of_a_key_is_that_of_the_loss(run, task):
    """Of the summed cross-entropy of the mixed branches: twice an image has twice the loss, and each its own gradient."""
    model = run.model
    one = torch.stack([model.vlm.preprocess(task.train.image(0))])
    label = torch.tensor(task.train.labels[:1])
    single = coupled.prompt_keys(run, one, label)
    double = coupled.prompt_keys(run, one.repeat(2, 1, 1, 1), label.repeat(2))
    for column in ("attention", "key_gradient", "bound", "cosine"):
        assert double[column].to_numpy() == pytest.approx(single[column].to_numpy(), rel=1e-3, abs=1e-6)
