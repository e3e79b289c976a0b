import types

import pytest
from torch import nn

from vlmlab.capturing.sites import names, resolve
from vlmlab.models.families import FAMILIES, Family


def tower(depth, family, block=nn.Identity):
    return types.SimpleNamespace(blocks=[block() for _ in range(depth)], family=family)


TOWERS = {"image": tower(12, FAMILIES["open_clip ViT"]), "text": tower(4, FAMILIES["open_clip text"])}


@pytest.mark.parametrize(
    ("pattern", "layers"),
    [
        ("image.resid.post", tuple(range(1, 13))),
        ("image.resid.post[3]", (3,)),
        ("image.resid.post[-1]", (12,)),
        ("image.resid.post[2:6]", (2, 3, 4, 5)),
        ("image.resid.post[6:13]", (6, 7, 8, 9, 10, 11, 12)),
        ("image.resid.post[6:]", (6, 7, 8, 9, 10, 11, 12)),
        ("image.resid.post[-4:]", (9, 10, 11, 12)),
        ("image.resid.post[:-10]", (1, 2)),
        ("image.resid.post[::4]", (1, 5, 9)),
        ("text.attn.probs[-1]", (4,)),
        ("image.final", None),
    ],
)
def test_layers_are_block_numbers(pattern, layers):
    (wanted,) = resolve(pattern, TOWERS)
    assert wanted.layers == layers


def test_globs_and_merging():
    found = resolve(["image.resid.*[2]", "image.resid.post[5]"], TOWERS)
    assert {w.name: w.layers for w in found} == {
        "image.resid.pre": (2,),
        "image.resid.mid": (2,),
        "image.resid.post": (2, 5),
    }
    assert [w.name for w in resolve("*.attn.q", TOWERS)] == ["image.attn.q", "text.attn.q"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("image.resid.pots", "image.resid.post"),  # the list of what there is
        ("resid.post", "no site 'resid.post'"),
        ("image.resid.post[13]", "blocks are 1 to 12"),
        ("image.resid.post[0]", "does not exist"),
        ("image.resid.post[6:14]", "does not exist"),
        ("image.resid.post[7:7]", "empty"),
        ("image.resid.post[a]", "not a block number"),
        ("image.resid.post[]", "not a block number"),
        ("image.resid.post[3", "not a name"),
        ("image.resid.post[2:6:0]", "at least 1"),
        ("image.final[3]", "has no layers"),
    ],
)
def test_wrong_sites_say_what_there_is(pattern, message):
    with pytest.raises(ValueError, match=message):
        resolve(pattern, TOWERS)


def test_nothing_asked_for():
    with pytest.raises(ValueError, match=names(TOWERS)[0]):
        resolve([], TOWERS)


def test_only_the_sites_of_the_family_are_there():
    family = Family("blocks", {"resid.post": ("", "out")})
    towers = {"image": tower(2, family)}
    tapped = [f"image.attn.{x}" for x in ("q", "k", "v", "z", "probs")]
    assert names(towers) == ["image.embed", "image.resid.post", *tapped, "image.final"]
    for pattern in ("image.mlp.act", "text.resid.post"):
        with pytest.raises(ValueError, match=f"no site '{pattern}'; it has image.embed, image.resid.post"):
            resolve(pattern, towers)
