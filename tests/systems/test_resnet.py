"""The residual network: shortcuts on and off, parity, what it classifies."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import vlmlab
from vlmlab.systems.residual import ResidualBlock, ResidualNet, gradient_norms

SMALL = {"image": 16, "blocks": 1, "width": 8}


@pytest.fixture(scope="module")
def run(one, tmp_path_factory):
    out = tmp_path_factory.mktemp("resnet")
    return vlmlab.fit("resnet", {}, one, out=out, steps=40, batch=32, lr=0.2, **SMALL)


def test_it_learns_and_is_measured(run, one):
    log = run.metrics
    assert log["ce"].iloc[-5:].mean() < 0.93 * log["ce"].iloc[:5].mean()
    scores = vlmlab.evaluate(run, one).set_index("metric")["value"]
    assert 0 <= scores["accuracy"] <= 100
    few = one.tests["test"].classnames[3:5]
    run.model.set_classes(few, "{}")
    with torch.no_grad():
        features = run.model.image_features(torch.randn(2, 3, 16, 16))
        logits = run.model.classify(features)
    assert logits.shape == (2, 2) and torch.equal(logits, run.model.net.head(features)[:, 3:5])
    with pytest.raises(ValueError, match="ResNet was not trained on 'dog'; it knows red circle"):
        run.model.set_classes(["dog"], "{}")


def test_without_its_convolutions_a_shortcut_hands_on_what_it_got():
    x = torch.rand(2, 4, 6, 6)
    for shortcut in (True, False):
        for block in (
            ResidualBlock(4, 4, shortcut=shortcut).eval(),
            ResidualBlock(4, 8, 2, shortcut=shortcut).eval(),
        ):
            nn.init.zeros_(block.norm2.weight)
            found = block(x)
            wanted = x if block.stride == 1 else F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, 4))
            assert torch.equal(found, wanted if shortcut else torch.zeros_like(wanted))


@torch.no_grad()
def test_a_block_is_that_of_hugging_face():
    transformers = pytest.importorskip("transformers")
    from transformers.models.resnet.modeling_resnet import ResNetBasicLayer

    assert transformers
    torch.manual_seed(0)
    theirs, own = ResNetBasicLayer(6, 6).eval(), ResidualBlock(6, 6).eval()
    for i, (conv, norm) in enumerate(((own.conv1, own.norm1), (own.conv2, own.norm2))):
        layer = theirs.layer[i]
        nn.init.normal_(layer.normalization.weight), nn.init.normal_(layer.normalization.running_mean)
        conv.load_state_dict(layer.convolution.state_dict())
        norm.load_state_dict(layer.normalization.state_dict())
    x = torch.randn(2, 6, 8, 8)
    assert torch.allclose(own(x), theirs(x.clone()), atol=1e-5)


def test_shortcuts_keep_gradients_alike_over_depth():
    """Without them the first blocks of a deep network get far larger or smaller gradients than the last ones."""
    spread = {}
    for shortcut in (True, False):
        torch.manual_seed(0)
        net = ResidualNet((8, 16, 32), 9, 5, shortcut)
        assert net.depth == 56
        F.cross_entropy(net(torch.randn(8, 3, 16, 16)), torch.arange(8) % 5).backward()
        norms = gradient_norms(net).log10()
        assert len(norms) == 27
        spread[shortcut] = (norms.max() - norms.min()).item()
    assert spread[True] < spread[False]


def test_images_without_classes_are_refused(pairs, tmp_path):
    with pytest.raises(ValueError, match="resnet needs images with labels"):
        vlmlab.fit("resnet", {}, pairs, out=tmp_path, **SMALL)
