"""Candidates of a dual tower at two blocks, beside what transformers and timm compute."""

import math

import family_models
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import vlmlab
from vlmlab.decode import Candidates, Dola, apc_width, candidate_logits, candidates, contrast

NAMES = ["a cat", "a dog", "an owl", "a red fox", "the sun"]
transformers = pytest.importorskip("transformers")


def words(texts) -> torch.Tensor:
    """Twelve token ids of each text, that end in the largest before they are full."""
    ids = lambda text: [3 + (sum(text.encode()) * (i + 1)) % 90 for i in range(len(text))]
    return torch.tensor([[*ids(text), 98, *[0] * (11 - len(text))] for text in texts])


def wide(model):
    """Weights large enough for features that differ."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


@pytest.fixture(scope="module")
def siglip():
    case = next(case for case in family_models.CASES if case.name == "HF SigLIP")
    model = wide(family_models.built(case))
    return model, vlmlab.load(model, tokenizer=words, device="cpu")


@pytest.fixture(scope="module")
def clip():
    case = next(case for case in family_models.CASES if case.name == "HF CLIP")
    model = wide(family_models.built(case))
    return model, vlmlab.load(model, tokenizer=words, device="cpu")


@pytest.fixture
def images():
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def pooled(out) -> torch.Tensor:
    """The features in what transformers returns, a tensor before version 5."""
    return getattr(out, "pooler_output", out)


@pytest.mark.parametrize("which", ["siglip", "clip"])
@torch.no_grad()
def test_every_block_is_read_by_the_models_own_norm_and_head(which, images, request):
    model, vlm = request.getfixturevalue(which)
    texts = F.normalize(pooled(model.get_text_features(input_ids=words(NAMES))), dim=-1)
    tower = model.vision_model
    hidden = tower(pixel_values=images, output_hidden_states=True).hidden_states
    found = candidate_logits(vlm, images, NAMES, range(4), "{}")
    for layer in range(4):
        x = tower.post_layernorm(hidden[layer])
        z = tower.head(x) if which == "siglip" else model.visual_projection(x[:, 0])
        expected = model.logit_scale.exp() * F.normalize(z, dim=-1) @ texts.T
        assert torch.allclose(found[layer], expected, atol=1e-3), layer
    last = F.normalize(pooled(model.get_image_features(pixel_values=images)), dim=-1)
    assert torch.allclose(found[3], model.logit_scale.exp() * last @ texts.T, atol=1e-3)


@torch.no_grad()
def test_timm_reads_the_last_block_as_its_forward_does(images):
    trunk = family_models.timm_model(pool="map").eval()
    (last,) = trunk.get_intermediate_layers(images, n=[2], norm=True)
    assert torch.allclose(trunk.forward_head(last), trunk(images), atol=1e-5)


def test_the_bias_of_a_siglip_cancels(siglip, images):
    _, vlm = siglip
    before = candidates(vlm, images, NAMES, template="{}")
    with torch.no_grad():
        vlm.clip.logit_bias.add_(7.0)
    after = candidates(vlm, images, NAMES, template="{}")
    assert torch.equal(before.log_p, after.log_p)
    logits = candidate_logits(vlm, images, NAMES, (3,), "{}")[0]
    assert torch.allclose((logits + 7.0).log_softmax(-1), after.final, atol=1e-5)


def test_candidates_are_the_contrast_of_two_blocks(clip, images):
    _, vlm = clip
    found = candidates(vlm, images, NAMES, Dola(image_contrast_layer=1, image_apc_threshold=0.5), "{}")
    early, final = candidate_logits(vlm, images, NAMES, (1, 3), "{}")
    assert found.layer == 1 and torch.allclose(found.final, final.log_softmax(-1), atol=1e-5)
    assert torch.allclose(found.log_p, contrast(final, early, 0.5), atol=1e-4)
    off = candidates(vlm, images, NAMES, Dola(image=False), "{}")
    assert off.layer is None and torch.equal(off.log_p, off.final) and off.left.tolist() == [5] * 4


def test_ranking_is_by_contrast_among_those_left_and_by_the_last_block_behind():
    final = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    early = torch.tensor([[0.7, 0.1, 0.1, 0.1]]).log()
    found = Candidates(tuple("abcd"), final, early, contrast(final, early, 0.4), 1)
    assert found.left.tolist() == [2] and found.ranking().tolist() == [[1, 0, 2, 3]]
    assert "best" in found.panel().facts and "Candidates(4 candidates of 1 images" in repr(found)


@pytest.mark.parametrize("scale", [5.0, 20.0, 100.0])
@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.5])
def test_a_candidate_is_left_within_the_width_of_the_threshold(scale, alpha):
    cosines = torch.rand(50, 8, generator=torch.Generator().manual_seed(0)) * 0.4
    left = contrast(scale * cosines, torch.zeros_like(cosines), alpha) > -math.inf
    gap = cosines.amax(1, keepdim=True) - cosines
    assert torch.equal(left, gap <= apc_width(scale, alpha))
    assert math.isclose(apc_width(117, 0.1), 0.0197, abs_tol=1e-4) and apc_width(10, 0) == math.inf


def test_pictures_go_in_as_they_are():
    vlm = vlmlab.load("tiny", device="cpu")
    pixels = np.random.default_rng(0).integers(0, 255, (70, 90, 4), np.uint8)
    found = candidates(vlm, [Image.fromarray(pixels), Image.fromarray(pixels[..., 0])], ["cat", "dog"])
    assert found.log_p.shape == (2, 2) and found.layer == round(20 * vlm.image.depth / 24)
    assert torch.allclose(found.log_p.exp().sum(1), torch.ones(2), atol=1e-5)
    with torch.no_grad():
        images = torch.stack([vlm.preprocess(Image.fromarray(pixels).convert("RGB"))])
        z = F.normalize(vlm.encode_image(images), dim=-1)
        t = F.normalize(vlm.encode_text(["a photo of a cat.", "a photo of a dog."]), dim=-1)
    assert torch.allclose(found.final[:1], (vlm.logit_scale * z @ t.T).log_softmax(-1), atol=1e-4)


def test_what_is_wrong_is_one_clear_message(clip, images):
    _, vlm = clip
    with pytest.raises(
        ValueError, match=r"image_contrast_layer is 3, and the tower has 3 blocks: 3 is its last"
    ):
        candidates(vlm, images, NAMES, Dola(image_contrast_layer=3), "{}")
    with pytest.raises(ValueError, match=r"the image tower of .* has layers 0 to 3"):
        candidate_logits(vlm, images, NAMES, (5,), "{}")
    with pytest.raises(ValueError, match=r"the template 'a photo' has no \{\}"):
        candidates(vlm, images, NAMES, template="a photo")
    with pytest.raises(ValueError, match=r"a list with one name or more"):
        candidates(vlm, images, "cat")
    with pytest.raises(ValueError, match=r"candidates are scored by a dual tower.*got Linear"):
        candidates(torch.nn.Linear(2, 2), images, NAMES)
