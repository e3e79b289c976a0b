"""MaPLe against numbers of the reference implementation (tests/golden/maple.npz)."""

import pytest
import reference
import small_clip
import torch

LEARNER = "prompt_learner"
NAMES = {"text": [f"{LEARNER}.ctx"] + [f"{LEARNER}.compound_prompts_text.{i}" for i in range(8)]}
for part in ("weight", "bias"):
    deeper = [f"{LEARNER}.compound_prompt_projections.{i}.{part}" for i in range(8)]
    NAMES[part] = [f"{LEARNER}.proj.{part}", *deeper]


@pytest.fixture(scope="module")
def golden():
    return reference.load("maple")


@pytest.fixture
def maple(small_vlm, golden):
    yield reference.build("maple", small_vlm, reference.gather(golden, "param", NAMES))
    small_vlm.shortcuts = True


def test_every_reference_parameter_is_used(maple, golden):
    ours = sum(p.numel() for p in maple.trainable().values())
    assert ours == sum(v.numel() for k, v in golden.items() if k.startswith("param/"))


@pytest.mark.parametrize("shortcuts", [True, False])
def test_logits(maple, golden, shortcuts):
    maple.vlm.shortcuts = shortcuts
    with torch.no_grad():
        assert (maple.eval().logits(small_clip.images()) - golden["logits"]).abs().max() < 1e-4


@pytest.mark.parametrize("shortcuts", [True, False])
def test_gradients_and_five_steps(maple, golden, shortcuts):
    """The reference passes prompts and their gradients through fp16 (11 bits, 5e-4): which way a value is
    rounded depends on float32 noise, so gradients and later losses are certain to that, not to 1e-4."""
    maple.vlm.shortcuts = shortcuts
    optimiser = torch.optim.SGD(maple.trainable().values(), lr=0.0026, momentum=0.9, weight_decay=5e-4)
    losses = reference.five_steps(maple, optimiser, reference.gather(golden, "grad", NAMES), tolerance=5e-4)
    assert losses[0] == pytest.approx(golden["loss"].item(), rel=1e-5)
    assert losses == pytest.approx(golden["losses5"].tolist(), rel=5e-4)


def test_float32_prompts_differ_by_the_rounding_only(maple, golden):
    from vlmlab import methods

    exact = methods.build("maple", maple.vlm, small_clip.CLASSES, half_prompts=False)
    with torch.no_grad():
        for key, p in exact.trainable().items():
            p.copy_(maple.trainable()[key])
        away = (exact.logits(small_clip.images()) - golden["logits"]).abs().max()
    assert 1e-3 < away < 5e-2  # of logits around 10
