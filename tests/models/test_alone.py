"""What a weight file does not say is taken from beside it, from open_clip, or assumed aloud; and kept."""

import copy
import json
import warnings

import open_clip
import pytest
import torch
from model_forms import TEXT, VISION, archive, same, small
from open_clip.model import CLIP
from safetensors.torch import save_file

from vlmlab.models.load import load

SIZES = {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": TEXT}


def saved(clip, folder, name="mine.safetensors"):
    folder.mkdir(exist_ok=True)
    save_file({k: v.contiguous() for k, v in clip.state_dict().items()}, folder / name)
    return folder / name


def said(*args, **given):
    """The model and the warnings of loading it."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        vlm = load(*args, device="cpu", **given)
    return vlm, [str(w.message) for w in seen]


@pytest.fixture
def names(monkeypatch):
    """Architectures of the small model's sizes under open_clip's names, with tags."""

    def put(**architectures):
        for name, (change, tags) in architectures.items():
            config = copy.deepcopy(SIZES) | {k: v for k, v in change.items() if k != "head_width"}
            config["vision_cfg"] |= {k: v for k, v in change.items() if k == "head_width"}
            monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, config)
            monkeypatch.setitem(open_clip.pretrained._PRETRAINED, name, tags)

    return put


def test_what_is_assumed_is_said_at_the_caller_s_line_and_opens_again_equally(tmp_path):
    clip = small(quick_gelu=True)
    with pytest.warns(UserWarning, match="the number of heads, the activation, how images") as seen:
        vlm = load(saved(clip, tmp_path), device="cpu")
    assert seen[0].filename == __file__ and len(seen) == 1
    for words in ("QuickGELU", "2 heads (64 wide)", "load(name, pretrained=path)", "quick_gelu="):
        assert words in str(seen[0].message)
    assert same(vlm, clip) and (vlm.source["quick_gelu"], vlm.source["heads"]) == (True, 2)
    again, warned = said(**json.loads(json.dumps(vlm.source)))
    assert not warned and again.source == vlm.source and again.fingerprint() == vlm.fingerprint()


def test_keywords_say_it(tmp_path):
    clip, file = small(quick_gelu=False, head_width=32), None
    file = saved(clip, tmp_path)
    pixels = {"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2), "resize_mode": "squash"}
    vlm, warned = said(file, quick_gelu=False, heads=4, pixels=pixels)
    assert not warned and same(vlm, clip) and vlm.mean == (0.5,) * 3 and vlm.std == (0.2,) * 3
    assert vlm.fingerprint() != said(file, quick_gelu=True, heads=2, pixels={})[0].fingerprint()
    again, warned = said(**json.loads(json.dumps(vlm.source)))
    assert not warned and again.fingerprint() == vlm.fingerprint() and again.mean == (0.5,) * 3
    for heads in (3, 0, -2, 2.5):
        with pytest.raises(ValueError, match="pass heads= of the image tower, which divides its width"):
            load(file, heads=heads)
    for pixels in ({"mean": [1, 2]}, {"std": [0, 0, 0]}, {"resize_mode": "stretch"}, 5, {"mean": "grey"}):
        with pytest.raises(ValueError, match=r"pixels: .*mean and std"):
            load(file, quick_gelu=False, heads=4, pixels=pixels)


def test_weights_alone_have_the_fingerprint_that_they_had(tmp_path):
    from vlmlab.models.fingerprint import fingerprint

    vlm, _ = said(saved(small(), tmp_path))
    assert vlm.fingerprint() == fingerprint(vlm.clip.state_dict())


def test_one_file_in_architectures_of_two_activations_makes_two_models(tmp_path, names):
    """A run on one of them was taken for a run on the other."""
    file = saved(small(), tmp_path)
    names(plain=({}, {}))
    config = json.loads(json.dumps(open_clip.get_model_config("plain"))) | {"quick_gelu": True}
    open_clip.factory._MODEL_CONFIGS["quick"] = config
    try:
        plain, quick = (load(name, pretrained=file, device="cpu") for name in ("plain", "quick"))
    finally:
        del open_clip.factory._MODEL_CONFIGS["quick"]
    assert not torch.equal(plain.encode_text(["a cat."]), quick.encode_text(["a cat."]))
    assert plain.fingerprint() != quick.fingerprint()
    assert load(quick.clip).fingerprint() == quick.fingerprint()


def test_heads_and_activation_of_the_one_architecture_of_these_sizes(tmp_path, names):
    clip = small(quick_gelu=False, head_width=32)
    names(mine=({"head_width": 32}, {"a": {"mean": (0.5, 0.5, 0.5)}}))
    vlm, warned = said(saved(clip, tmp_path))
    assert not warned and same(vlm, clip) and vlm.image.heads == 4 and vlm.mean == (0.5,) * 3


def test_two_activations_are_asked_for_unless_openai_published_one(tmp_path, names):
    file = saved(small(quick_gelu=True, head_width=32), tmp_path)
    plain, quick = {"head_width": 32}, {"head_width": 32, "quick_gelu": True}
    names(plain=(plain, {"laion": {}}), quick=(quick, {"dfn": {}}))
    with pytest.raises(ValueError, match=r"'plain' \(GELU\) or 'quick' \(QuickGELU\); name one"):
        load(file)
    assert said(file, quick_gelu=True)[0].image.heads == 4
    names(plain=(plain, {"laion": {}}), quick=(quick, {"openai": {}}))
    vlm, warned = said(file)
    assert vlm.image.heads == 4 and "sizes are those of plain and quick. Assumed: QuickGELU" in warned[0]


def test_the_sizes_of_vit_h_14_have_heads_of_width_80():
    from vlmlab.models.alone import number_of_heads
    from vlmlab.models.sizes import alike
    from vlmlab.models.weights import Weights

    config = open_clip.get_model_config("ViT-H-14")
    sizes = {k: dict(config[k]) for k in ("vision_cfg", "text_cfg")} | {"embed_dim": config["embed_dim"]}
    del sizes["vision_cfg"]["head_width"]
    near = alike(sizes)
    assert set(near) == {"ViT-H-14", "ViT-H-14-quickgelu"}
    assert number_of_heads(Weights("ViT-H-14.pt", {}), sizes, near, None) == (16, True)


def test_what_lies_beside_says_it(tmp_path):
    clip = small(quick_gelu=False, head_width=32)
    file = saved(clip, tmp_path, "open_clip_model.safetensors")
    vision = VISION | {"head_width": 32}
    about = {"model_cfg": SIZES | {"vision_cfg": vision}, "preprocess_cfg": {"mean": [0.4] * 3, "size": 224}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(about))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip", "architectures": ["CLIPModel"]}))
    for place in (tmp_path, file):
        vlm, warned = said(place)
        assert not warned and same(vlm, clip) and vlm.mean == (0.4,) * 3 and vlm.image_size == 32
        assert set(vlm.source) == {"name", "pretrained", "precision"}
    other = saved(small(), tmp_path, "other.safetensors")
    torch.save(
        {k: v[:8] if k == "visual.proj" else v for k, v in small().state_dict().items()}, tmp_path / "x.pt"
    )
    assert not said(other)[1]  # of the same sizes
    with pytest.raises(ValueError, match=r"pass quick_gelu|does not fit"):
        load(tmp_path / "x.pt")
    for place in (tmp_path, "tiny", "ViT-S-32"):
        with pytest.raises(ValueError, match="leave out heads=2, which is for a weight file alone"):
            load(place, heads=2)


def test_an_architecture_checks_what_its_local_weights_say(tmp_path, names):
    names(**{"mini": ({}, {}), "mini-quickgelu": ({"quick_gelu": True}, {})})
    path = archive(small(quick_gelu=True), tmp_path / "openai.pt")
    with pytest.raises(ValueError, match=r"trained with QuickGELU, but mini builds .* use 'mini-quickgelu'"):
        load("mini", path)
    assert same(said("mini-quickgelu", path)[0], small(quick_gelu=True))
    file = saved(small(quick_gelu=False), tmp_path / "hub", "open_clip_model.safetensors")
    about = {"model_cfg": SIZES, "preprocess_cfg": {"mean": [0.4] * 3}}
    (tmp_path / "hub" / "open_clip_config.json").write_text(json.dumps(about))
    for place in (file, tmp_path / "hub"):
        vlm, _ = said("mini", place)
        assert vlm.mean == (0.4,) * 3 and same(vlm, small(quick_gelu=False))
        with pytest.raises(ValueError, match="trained with GELU, but mini-quickgelu builds"):
            load("mini-quickgelu", place)


def test_published_weights_that_disagree_on_pixels(tmp_path, names):
    file = saved(small(), tmp_path)
    names(mini=({}, {"a": {"mean": (0.5, 0.5, 0.5)}, "b": {"mean": (0.4, 0.4, 0.4)}}))
    vlm, warned = said("mini", file)
    assert "published weights of mini do not agree" in warned[0] and vlm.source["pixels"]["mean"][0] < 0.49
    assert not said(**vlm.source)[1]
    names(mini=({}, {"a": {"mean": (0.5, 0.5, 0.5)}, "b": {"mean": (0.5, 0.5, 0.5)}}))
    vlm, warned = said("mini", file)
    assert not warned and vlm.mean == (0.5,) * 3


def test_weights_of_another_architecture_name_theirs(tmp_path, names):
    names(mini=({}, {}), other=({"embed_dim": 24}, {}))
    with pytest.raises(ValueError, match=r"visual.proj: \(128, 16\) instead of .* sizes are those of mini"):
        load("other", saved(small(), tmp_path))


@pytest.mark.parametrize(
    "change",
    [
        {"width": 10**6, "head_width": 64},
        {"layers": 10**9},
        {"image_size": "big"},
        {"patch_size": 0},
        {"no_ln_pre": "no"},
    ],
)
def test_a_configuration_that_would_fill_the_memory_or_is_none(tmp_path, change):
    saved(small(), tmp_path, "model.safetensors")
    about = {"model_cfg": SIZES | {"vision_cfg": VISION | change}}
    (tmp_path / "config.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=r"config.json does not describe|does not fit the architecture"):
        load(tmp_path)


@pytest.mark.parametrize(
    "said,message",
    [
        ({"mean": [1]}, "mean must be three numbers"),
        ({"std": [0.0] * 3}, "std must be three numbers above 0"),
        ({"mode": "L"}, "mode must be one of RGB"),
        ({"interpolation": "nearest"}, "interpolation must be"),
        ([1], "expected are mean and std"),
    ],
)
def test_pixels_that_a_folder_says_wrongly(tmp_path, said, message):
    saved(small(), tmp_path, "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_cfg": SIZES, "preprocess_cfg": said}))
    with pytest.raises(ValueError, match=f"config.json: .*{message}"):
        load(tmp_path)


@pytest.mark.parametrize("model", [5, b"tiny", {"visual.proj": torch.ones(1)}, CLIP])
def test_what_is_neither_a_name_nor_a_path_nor_a_module(model):
    with pytest.raises(ValueError, match="a name, a path or a module is expected, got a"):
        load(model)


def test_quick_gelu_is_true_or_false(tmp_path):
    with pytest.raises(ValueError, match="quick_gelu is 'yes', expected True or False"):
        load(saved(small(), tmp_path), quick_gelu="yes")


def test_published_weights_of_these_sizes_that_disagree_on_pixels(tmp_path, names):
    """Within one architecture or between two; what all say is taken."""
    half, other = {"mean": (0.5, 0.5, 0.5)}, {"mean": (0.4, 0.4, 0.4)}
    file = saved(small(), tmp_path)
    names(mine=({"quick_gelu": True}, {"a": half, "b": other}))
    vlm, warned = said(file)
    assert "does not say how images are prepared;" in warned[0] and vlm.mean not in ((0.5,) * 3, (0.4,) * 3)
    assert vlm.source["pixels"]["mean"] == list(vlm.mean) and not said(file, pixels={})[1]
    names(mine=({"quick_gelu": True}, {"a": half}), twin=({"quick_gelu": True}, {"b": other}))
    assert "how images are prepared; its sizes are those of mine and twin" in said(file)[1][0]
    names(twin=({"quick_gelu": True}, {"b": half}))
    vlm, warned = said(file)
    assert not warned and vlm.mean == (0.5,) * 3 and "pixels" not in vlm.source


def sizes_like(width, text):
    return {"vision_cfg": {"width": width}, "text_cfg": {"width": text}}


@pytest.mark.parametrize(
    ("width", "text", "near", "heads", "found"),
    [
        (128, 64, None, None, (2, False)),
        (128, 64, None, 1, (1, True)),
        (128, 64, None, 4, (4, True)),
        (96, 64, None, 3, (3, True)),  # said where OpenAI's width does not divide it
        (96, 64, {"head_width": 32}, None, (3, True)),
        (128, 64, {}, None, (2, True)),
        (96, 64, None, None, None),
        (128, 48, None, None, None),
        (128, 48, None, 2, None),
    ],
)
def test_heads_of_an_image_tower(width, text, near, heads, found):
    from vlmlab.models.alone import number_of_heads
    from vlmlab.models.weights import Weights

    near, sizes = {} if near is None else {"mine": {"vision_cfg": near}}, sizes_like(width, text)
    if found:
        assert number_of_heads(Weights("x.pt", {}), sizes, near, heads) == found
        of_openai = number_of_heads(Weights("x.pt", {}, None, "OpenAI"), sizes, near, heads)
        assert of_openai == (found[0], True)
    else:
        with pytest.raises(
            ValueError, match=rf"x.pt has widths {width} and {text}, OpenAI's heads have width"
        ):
            number_of_heads(Weights("x.pt", {}), sizes, near, heads)


def test_what_no_weight_shows(tmp_path):
    """In the order of the alphabet, so that a fingerprint does not depend on how it was said."""
    from vlmlab.models.alone import activation_of, unusual

    own = {"mean": list(open_clip.OPENAI_DATASET_MEAN), "std": list(open_clip.OPENAI_DATASET_STD)}
    own |= {"interpolation": "bicubic", "resize_mode": "shortest"}
    vlm, plain = (load(small(quick), device="cpu") for quick in (True, False))
    assert (activation_of(vlm), activation_of(plain)) == ({"quick_gelu": True}, {"quick_gelu": False})
    for told, other in (
        ({}, {}),
        ({"pixels": own, "heads": 2, "quick_gelu": True}, {}),
        ({"heads": 4}, {"heads": 4}),
        *(
            ({"pixels": own | {k: v}}, {"pixels": own | {k: v}})
            for k, v in (("mean", [0.5] * 3), ("std", [1] * 3))
        ),
        *(({"pixels": own | {k: "x"}}, {"pixels": own | {k: "x"}}) for k in ("interpolation", "resize_mode")),
    ):
        assert unusual(told, vlm) == (json.dumps(other, sort_keys=True) if other else "")
        if "quick_gelu" not in told:
            assert json.loads(unusual(told, plain)) == {"quick_gelu": False} | other
    pixels = own | {"mean": [0.5, 0.5, 0.5]}
    text = unusual({"pixels": pixels, "quick_gelu": False, "heads": 4}, vlm)
    assert text == json.dumps({"heads": 4, "pixels": pixels, "quick_gelu": False}, sort_keys=True)
    assert text.startswith('{"heads": 4, "pixels": {"interpolation": "bicubic", "mean": ')
