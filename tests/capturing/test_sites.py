import types

import pytest
from torch import nn

from vlmlab.capturing.sites import blocks_with, names, resolve, usual
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
        ("image.resid.post[1]", (1,)),
        ("image.resid.post[12]", (12,)),
        ("image.resid.post[-12]", (1,)),
        ("image.resid.post[10::1]", (10, 11, 12)),
        ("image.resid.post[1:7:3]", (1, 4)),
        (" image.resid.post[2 : 4] ", (2, 3)),
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
        ("image.resid.post[2:0]", "block 0 in .* does not exist"),
        ("image.resid.post[-13]", "block -13 in .* does not exist"),
        ("image.resid.post[1:2:3:4]", "not a block number"),
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


def test_blocks_that_have_a_site():
    """A path that no block has is one that the hook must name; cross-attention is in some blocks only."""
    sites = {
        "resid.post": ("", "out"),
        "mlp.out": ("mlp", "out"),
        "mlp.act": ("none", "out"),
        "cross.out": ("none", "out"),
    }
    odd = tower(4, Family("blocks", sites, attention={"attn": "attn", "cross": "none"}))
    for number in (0, 2):
        odd.blocks[number].mlp = odd.blocks[number].attn = nn.Identity()
    expected = {
        "resid.post": (1, 2, 3, 4),
        "mlp.out": (1, 3),
        "attn.q": (1, 3),
        "mlp.act": (1, 2, 3, 4),
        "embed": (1, 2, 3, 4),
    }
    expected |= {"cross.out": (), "cross.q": (), "resid.mid": (), "final": (1, 2, 3, 4)}
    assert {site: blocks_with(site, odd) for site in expected} == expected
    assert [w.layers for w in resolve(["image.mlp.out", "image.mlp.act[:3]"], {"image": odd})] == [
        (1, 3),
        (1, 2),
    ]
    with pytest.raises(ValueError, match=r"blocks \[2\] have no mlp.out; those that have are \[1, 3\]"):
        resolve("image.mlp.out[1:4]", {"image": odd})


def test_the_usual_sites():
    attention = [
        f"{name}.{part}" for name in ("attn", "cross") for part in ("q", "k", "v", "z", "probs", "out")
    ]
    image = ["embed", "resid.pre", "resid.mid", "resid.post", *attention, "mlp.act", "mlp.out", "final"]
    assert usual() == [f"{tower}.{site}" for tower in ("image", "text") for site in image]
