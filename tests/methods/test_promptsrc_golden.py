"""PromptSRC against numbers of the reference implementation (tests/golden/promptsrc.npz)."""

import pytest
import reference
import small_clip
import torch
import torch.nn.functional as F
from reference import close

from vlmlab import methods

NAMES = {
    tower: [first] + [f"{tower}_encoder.transformer.resblocks.{i}.VPT_shallow" for i in range(1, 9)]
    for tower, first in (("text", "prompt_learner.ctx"), ("image", "image_encoder.VPT"))
}


@pytest.fixture(scope="module")
def golden():
    return reference.load("promptsrc")


@pytest.fixture
def promptsrc(small_vlm, golden):
    yield reference.build("promptsrc", small_vlm, reference.gather(golden, "param", NAMES))
    small_vlm.shortcuts = True


def test_sixty_templates_are_averaged_before_they_are_normalised(promptsrc, golden):
    close(promptsrc.ensemble_class_features(), golden["zs_text_mean"], 1e-6)
    from vlmlab.methods.promptsrc import TEMPLATES

    assert len(set(TEMPLATES)) == 60
    with torch.no_grad():
        each = [F.normalize(promptsrc.vlm.encode_text(promptsrc.fill(t)), dim=-1) for t in TEMPLATES]
    after = F.normalize(sum(each), dim=-1)  # the other order is another classifier
    assert (after - golden["zs_text_mean"]).abs().max() > 1e-5


@pytest.mark.parametrize("shortcuts", [True, False])
def test_logits_and_terms(promptsrc, golden, shortcuts):
    promptsrc.vlm.shortcuts = shortcuts
    with torch.no_grad():
        assert (promptsrc.eval().logits(small_clip.images()) - golden["logits"]).abs().max() < 1e-4
        terms = promptsrc.train().losses({"image": small_clip.images(), "label": small_clip.LABELS})
        close(F.normalize(promptsrc.vlm.encode_image(small_clip.images()), dim=-1), golden["zs_image"], 1e-5)
    wanted = {
        "ce": "loss_ce",
        "anchor_text": "loss_scl_text",
        "anchor_image": "loss_scl_image",
        "anchor_logits": "loss_scl_logits",
    }
    assert terms.keys() == wanted.keys()
    for name, key in wanted.items():
        assert terms[name].item() == pytest.approx(golden[key].item(), rel=1e-5), name
    assert sum(terms.values()).item() == pytest.approx(golden["loss"].item(), rel=1e-5)


@pytest.mark.parametrize("shortcuts", [True, False])
def test_gradients_and_five_steps(promptsrc, golden, shortcuts):
    promptsrc.vlm.shortcuts = shortcuts
    optimiser = torch.optim.SGD(promptsrc.trainable().values(), lr=0.0025, momentum=0.9, weight_decay=5e-4)
    steps = 5 if shortcuts else 2  # the long way takes ten times as long
    losses = reference.five_steps(promptsrc, optimiser, reference.gather(golden, "grad", NAMES), steps=steps)
    assert losses == pytest.approx(golden["losses5"].tolist()[:steps], rel=1e-4)


def test_weights_of_the_epochs(promptsrc, golden):
    wanted = golden["gpa_weights_mean15_std1_epochs20"]
    torch.testing.assert_close(promptsrc.epoch_weights(), wanted, rtol=1e-12, atol=0)


def test_the_average_over_epochs_becomes_the_model(small_vlm):
    m = methods.build("promptsrc", small_vlm, small_clip.CLASSES, epochs=3, gpa_mean=2.0, gpa_std=1.0)
    g = torch.tensor([-0.5, 0.0, -0.5], dtype=torch.float64).exp()
    g /= g.sum()
    seen = []
    for epoch in (1, 2, 3):
        with torch.no_grad():
            for p in m.trainable().values():
                p.normal_()
        seen.append({k: p.detach().clone().double() for k, p in m.trainable().items()})
        m.average(epoch)
        if epoch < 3:  # training goes on from its own weights
            assert all(torch.equal(p.double(), seen[-1][k]) for k, p in m.trainable().items())
    for key, p in m.trainable().items():
        torch.testing.assert_close(p.double(), sum(w * s[key] for w, s in zip(g, seen)), rtol=0, atol=1e-6)


def test_an_epoch_beyond_the_training_is_refused(small_vlm):
    m = methods.build("promptsrc", small_vlm, small_clip.CLASSES, epochs=3)
    with pytest.raises(ValueError, match="epoch 4 of 3"):
        m.average(4)
