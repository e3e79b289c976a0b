"""What capture takes as data: pictures, paths, datasets, loaders and what processors return."""

import dataclasses

import numpy as np
import pytest
import torch
from family_models import CASES, built, timm_model
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torchvision.datasets import ImageFolder
from transformers import BatchEncoding, BatchFeature
from transformers.image_processing_utils import BaseImageProcessor

import vlmlab
from vlmlab.models.families import families_of


def tensor_of(picture):
    return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255).permute(2, 0, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four pictures of two classes."""
    root, draw = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number in range(4):
        path = root / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    return root


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return timm_model().eval()


def features(model, data, **options):
    return vlmlab.capture(model, data, "image.final", progress=False, batch_size=3, **options)


def test_pictures_in_any_form_are_the_same_images(model, folder):
    dataset = ImageFolder(folder)
    paths = [path for path, _ in dataset.samples]
    pictures = [Image.open(path) for path in paths]
    images = torch.stack([tensor_of(p) for p in pictures])
    expected = features(model, images)["image.final"].values
    forms = {
        "PIL images": pictures,
        "paths": paths,
        "a tuple": tuple(map(str, paths)),
        "an ImageFolder": dataset,
        "a loader": DataLoader(dataset, batch_size=2, shuffle=True),
        "items that are mappings": Mappings(pictures),
    }
    for name, data in forms.items():
        found = features(model, data, preprocess=tensor_of)["image.final"]
        assert np.abs(found - expected).max() < 1e-5, name
    ready = {
        "a transform": ImageFolder(folder, transform=tensor_of),
        "tensors": TensorDataset(images),
        "a list of tensors": list(images),
        "an array": images.numpy(),
    }
    for name, data in ready.items():
        assert np.abs(features(model, data)["image.final"] - expected).max() < 1e-5, name
    assert features(model, paths, preprocess=tensor_of)["id"].values.tolist() == paths
    labelled = features(model, dataset, preprocess=tensor_of)
    assert labelled["label"].values.tolist() == [0, 0, 1, 1]
    for one in (pictures[0], paths[0], str(paths[0])):
        assert np.abs(features(model, one, preprocess=tensor_of)["image.final"] - expected[:1]).max() < 1e-5


class Mappings:
    def __init__(self, pictures):
        self.pictures = pictures

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, i):
        return {"image": self.pictures[i], "label": 0}


def test_a_vlm_brings_its_own_preprocessing(vlm, folder):
    dataset = ImageFolder(folder)
    paths = [path for path, _ in dataset.samples]
    expected = vlmlab.capture(
        vlm, torch.stack([vlm.preprocess(Image.open(p)) for p in paths]), "image.final", progress=False
    )["image.final"]
    for data in (dataset, paths, [Image.open(p) for p in paths]):
        for options in ({}, {"preprocess": vlm.preprocess}):
            found = vlmlab.capture(vlm, data, "image.final", progress=False, **options)["image.final"]
            assert np.abs(found.values - expected.values).max() < 1e-5


class Processor(BaseImageProcessor):
    def __call__(self, picture):
        return BatchFeature({"pixel_values": [np.asarray(tensor_of(picture))]})


def test_an_image_processor_is_a_preprocess(model, folder):
    paths = [path for path, _ in ImageFolder(folder).samples]
    found = features(model, paths, preprocess=Processor())["image.final"]
    assert np.abs(found - features(model, paths, preprocess=tensor_of)["image.final"]).max() < 1e-6


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda f: [str(next(f.rglob("*.png")))], r"is a picture: pass preprocess="),
        (lambda f: [f / "class0"], r"there is no file .*class0"),
        (lambda f: [text(f / "class0" / "no.png")], r"no\.png is not a readable image"),
        (lambda f: [], "the data holds no sample"),
        (lambda f: [3, 4], "got list of int"),
        (lambda f: Endless(), "got Endless"),
        (lambda f: TensorDataset(torch.zeros(3, 5)), r"image '0' is a torch\.float32 \(5,\)"),
        (
            lambda f: [torch.zeros(3, 32, 32), torch.zeros(3, 16, 32)],
            r"images from '0' on have the shapes \[\(3, 16, 32\), \(3, 32, 32",
        ),
        (
            lambda f: [torch.zeros(3, 32, 32, dtype=torch.uint8)],
            r"image '0' is a torch\.uint8 \(3, 32, 32\), not",
        ),
        (lambda f: [torch.zeros(1, 3, 32, 32)], r"image '0' is a torch\.float32 \(1, 3, 32, 32\), not"),
        (lambda f: Items([()]), "image '0' is a tuple, not a float tensor"),
        (lambda f: Items([{"label": 3}]), "image '0' is a dict, not a float tensor"),
        (lambda f: Items([None]), "image '0' is a NoneType, not a float tensor"),
        (lambda f: Sizeless(), "got Sizeless"),
        (lambda f: torch.zeros(2, 3, 32, 32, dtype=torch.long), r"got torch\.int64 \(2, 3, 32, 32\)"),
    ],
)
def test_what_is_no_image_is_named(model, folder, data, message):
    with pytest.raises((ValueError, OSError), match=message):
        features(model, data(folder), preprocess=None if "preprocess" in message else tensor_of)


def text(path):
    path.write_text("no picture")
    return path


class Items:
    """A dataset whose items are those given."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


class Sizeless:
    def __getitem__(self, i):
        return torch.zeros(3, 32, 32)


class Endless(IterableDataset):
    def __iter__(self):
        return iter([])


def batch(**more):
    ids = torch.tensor([[1, 5, 98, 0], [1, 5, 7, 98]])
    return {"input_ids": ids, "attention_mask": (ids > 0).long(), **more}


@pytest.mark.parametrize("kind", [dict, BatchEncoding, BatchFeature])
@pytest.mark.parametrize("name", ["HF CLIP", "HF SigLIP"])
def test_a_tower_takes_its_own_part_of_what_a_processor_returns(name, kind):
    model = built(next(c for c in CASES if c.name == name))
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))  # three images, two texts
    both = kind(batch(pixel_values=pixels))
    for site, own in (("image.final", pixels), ("text.final", batch())):
        found, expected = (vlmlab.capture(model, x, site, progress=False)[site] for x in (both, own))
        assert np.abs(found - expected).max() < 1e-6


def test_data_of_the_other_tower_are_named():
    model = built(next(c for c in CASES if c.name == "HF CLIP"))
    with pytest.raises(ValueError, match=r"the image tower of CLIPModel takes pixel_values.*hold input_ids"):
        vlmlab.capture(model, batch(), "image.final", progress=False)


def test_pictures_in_an_array_of_objects(model, folder):
    paths = sorted(map(str, folder.rglob("[0-9].png")))
    found = features(model, np.array(paths, dtype=object), preprocess=tensor_of)["image.final"]
    assert np.array_equal(found, features(model, paths, preprocess=tensor_of)["image.final"])


def test_a_vlm_takes_the_pixels_of_a_processor(vlm, images):
    both = {"pixel_values": images, "input_ids": torch.ones(2, 4, dtype=torch.long)}
    found = vlmlab.capture(vlm, both, "image.final", progress=False)["image.final"]
    assert np.array_equal(found, vlmlab.capture(vlm, images, "image.final", progress=False)["image.final"])


@pytest.mark.parametrize(
    ("data", "site", "message"),
    [
        ("a cat", "text.final", "text sites need a list of texts or a Split, got str"),
        ([1, 2], "text.final", "text sites need a list of texts or a Split, got list"),
        ([], "text.final", "text sites need a list of texts or a Split, got list"),
        (["a cat", 3], "text.final", "text sites need a list of texts or a Split, got list"),
        ({}, "image.final", r"image data as a mapping must hold tensors only, got \{\}"),
        ({"image": [1.0]}, "image.final", r"must hold tensors only, got \{'image': 'list'\}"),
        (
            {"a": torch.zeros(3, 2), "b": torch.zeros(2, 2)},
            "image.final",
            r"numbers of samples: \{'a': 3, 'b': 2\}",
        ),
    ],
)
def test_what_a_vlm_cannot_take_is_named(vlm, data, site, message):
    with pytest.raises(ValueError, match=message):
        vlmlab.capture(vlm, data, site, progress=False)


def test_a_reader_needs_a_norm_and_a_head():
    model = built(next(c for c in CASES if c.name == "HF GPT-2"))
    family = families_of(model)["text"]
    for lacks in ("norm", "head"):
        with pytest.raises(ValueError, match="text tower names no norm and head"):
            vlmlab.capture.reader(model, family=dataclasses.replace(family, **{lacks: ""}))
