"""Coupled branches, systems and records of files on parts made by hand."""

import json
import platform
import types

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from PIL import Image

import vlmlab
from vlmlab.studies.pages import coupled, inside, provenance, systems
from vlmlab.systems.system import System
from vlmlab.tasks.shapes import scenes

NOTE = {"study": "s", "profile": "p", "run_keys": ["k"], "seeds": [1]}


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture
def branches(monkeypatch):
    """Features (sample, branch, joint) of six images in three classes, whoever is asked."""
    z = np.random.default_rng(0).normal(size=(6, 2, 4))
    about = {
        "id": ("sample", list("abcdef")),
        "label": ("sample", [0, 0, 1, 1, 2, 2]),
        "branch": ["cls", "prompt"],
    }
    array, asked = xr.DataArray(z, about, ("sample", "branch", "joint")), []

    def capture(model, images, site, limit, progress):
        asked.append((model, site, limit, progress))
        return {site: array}

    monkeypatch.setattr(coupled, "capture", capture)
    return z, asked


def test_fields_of_images_by_hand(branches):
    z, asked = branches
    images = types.SimpleNamespace(concept=lambda id: f"of {id}")
    model = types.SimpleNamespace(config=types.SimpleNamespace(prompt_weight=0.3))
    anchor = coupled.frozen("frozen", images, 6)
    assert anchor.values == pytest.approx(unit(z[:, 0])) and anchor.dims == ("sample", "joint")
    assert {*anchor.coords} == {"id", "label"}  # of no branch any more
    found, f_c, u = coupled.field(types.SimpleNamespace(model=model), images, 5, anchor)
    field = 0.3 * (unit(z[:, 1]) - unit(z[:, 0]))
    assert asked == [("frozen", "image.final", 6, False), (model, "image.final", 5, False)]
    assert u.values == pytest.approx(field) and f_c.values == pytest.approx(unit(z[:, 0]))
    assert found["norm"].to_numpy() == pytest.approx(np.linalg.norm(field, axis=1))
    assert found["anchor"].to_numpy() == pytest.approx(1) and found["doubled"].to_numpy() == pytest.approx(
        0, abs=1e-6
    )
    assert found["concept"].tolist() == [f"of {id}" for id in "abcdef"]
    labels = np.array([0, 0, 1, 1, 2, 2])
    others = np.array([field[labels != label].sum(0) for label in labels])
    assert found["cosine"].to_numpy() == pytest.approx((unit(field) * unit(others)).sum(1))
    base = u.isel(sample=slice(2)) + 1
    found, *_ = coupled.field(types.SimpleNamespace(model=model), images, 5, anchor, base)
    assert found["cosine"].to_numpy() == pytest.approx(unit(field) @ unit(base.values.sum(0)))


def test_heads_of_a_block_by_hand():
    images, count, n, d = 2, 2, 6, 3
    q, k, v, z, of_k, of_z = torch.randn(
        6, images, 2, n, d, generator=torch.Generator().manual_seed(0)
    ).double()
    logits = q @ k.transpose(-1, -2) / d**0.5
    probs = logits.softmax(-1)
    found = coupled.heads(types.SimpleNamespace(probs=probs, q=q, k=k, v=v, z=z), of_k, of_z, count)
    assert found["head"].tolist() == [0, 1] and len(found.columns) == 9
    others, at = (0, 3, 4, 5), (1, 2)
    length = lambda x: float(x.norm())
    p = lambda i, h: np.mean([sum(float(probs[i, h, a, t]) for t in at) for a in others])

    def gate(i, h):
        top = logits[i, h].amax(-1)
        return np.mean([sum(float((logits[i, h, a, t] - top[a]).exp()) for t in at) for a in others])

    def squares(i, h):
        cosine = lambda a, t: float(q[i, h, a] @ k[i, h, t]) / length(q[i, h, a]) / length(k[i, h, t])
        return np.sqrt(np.mean([cosine(a, t) ** 2 for a in others for t in at]))

    def bound(i, h):
        of = lambda a: length(q[i, h, a]) * length(of_z[i, h, a])
        term = lambda a, t: float(probs[i, h, a, t]) * of(a) * (length(v[i, h, t]) + length(z[i, h, a]))
        return np.mean([sum(term(a, t) for a in range(n)) / d**0.5 for t in at])

    for h, row in enumerate(found.itertuples()):
        pick = lambda f, h=h: np.mean([f(i, h) for i in range(images)])
        assert row.attention == pytest.approx(pick(p)) and row.gated == pytest.approx(pick(gate))
        assert row.gated_over_n == pytest.approx(pick(gate) / n) and row.even == pytest.approx(2 / 6)
        assert row.random_cosine == pytest.approx(d**-0.5) and row.cosine == pytest.approx(pick(squares))
        assert row.key_gradient == pytest.approx(
            pick(lambda i, h: np.mean([length(of_k[i, h, t]) for t in at]))
        )
        assert row.bound == pytest.approx(pick(bound))


def test_the_plane_is_of_all_fields_and_its_first_axis_of_the_base():
    rng = np.random.default_rng(1)
    base, new = rng.normal(size=(5, 4)) + [3, 0, 0, 0], rng.normal(size=(7, 4)) * [1, 1, 5, 1] + [0, 2, 0, 0]
    found = coupled.plane(*(xr.DataArray(x, dims=("sample", "joint")) for x in (base, new)))
    first = unit(base.mean(0))
    both = np.concatenate([base, new])
    rest = both - both.mean(0)
    rest = rest - np.outer(rest @ first, first)
    values, vectors = np.linalg.eigh(rest.T @ rest)
    assert found.dims == ("axis", "joint") and found.values[0] == pytest.approx(first)
    assert abs(found.values[1] @ vectors[:, values.argmax()]) == pytest.approx(1)


# ----------------------------------------------------------------------------- systems


def learner(cls=System, **offers):
    made = object.__new__(type("Made", (cls,), offers))
    torch.nn.Module.__init__(made)
    return made


@pytest.mark.parametrize(
    ("offers", "told"),
    [
        ({"generate": lambda self, images, texts, how: [f"{images} {texts} {how}"]}, ("word by word, about an image", "x [''] greedy")),
        ({"translate": lambda self, texts, how: [f"{texts} {how}"]}, ("word by word, from a text", "['a red heart'] greedy")),
        ({"fill": lambda self, images, texts: texts}, ("a word in a gap", "a [MASK] heart")),
        ({"fill": lambda self, images, texts: texts, "translate": lambda self, texts, how: texts}, ("word by word, from a text", "a red heart")),
        ({"generate": None}, ("no", "")),
        ({}, ("no", "")),
    ],
)  # fmt: skip
def test_how_a_system_writes(offers, told):
    assert systems.written(learner(**offers), "x", "a red heart") == told
    assert systems.written(types.SimpleNamespace(fill=1), "x", "a") == ("no", "")  # no system


@pytest.mark.parametrize(
    ("offers", "tokens"),
    [
        ({"look": lambda self, images: torch.zeros(1, 5, 2)}, 5),
        ({"look": lambda self, images: None}, None),
        ({"fill": 1, "online": types.SimpleNamespace(see=lambda images: torch.zeros(1, 7, 2))}, 7),
        ({"fill": 1}, None),
        ({"online": types.SimpleNamespace(see=lambda images: torch.zeros(1, 7, 2))}, None),
    ],
)
def test_what_a_text_side_is_given_of_an_image(offers, tokens):
    assert systems.seen(learner(**offers), torch.zeros(1, 3, 4, 4)) == tokens


@pytest.mark.parametrize(
    ("text", "gap"), [("a red heart here", "a [MASK] heart here"), ("one", "one [MASK]"), ("", "[MASK]")]
)
def test_the_second_word_is_hidden(text, gap):
    assert systems.gap(text) == gap


def test_terms_are_those_of_each_stages_first_row(monkeypatch):
    log = [
        {"step": 0, "stage": "a", "lr": 1, "x": 1, "y": 2, "loss": 3, "more": 4},
        {"step": 1, "stage": "a", "lr": 1, "z": 1, "loss": 3},
        {"step": 2, "stage": "b", "lr": 1, "z": 1, "loss": 3},
    ]
    monkeypatch.setattr(systems, "RunFolder", lambda path: types.SimpleNamespace(read_log=lambda: log))
    assert systems.terms(types.SimpleNamespace(path="p")) == {"a": ["x", "y"], "b": ["z"]}


def test_a_row_of_the_table_is_read_off_its_run(tmp_path):
    task = vlmlab.task("shapes/one", protocol="few_shot", shots=1)
    tiny = vlmlab.load("tiny", device="cpu")
    run = vlmlab.fit("zero_shot", tiny, task, out=tmp_path)
    info = {"steps": 7, "seconds": [1.26, 2.51]}
    found = systems.facts(types.SimpleNamespace(model=run.model, info=info, path=run.path), task)
    assert (found["seconds"], found["steps"], found["trained"]) == (3.8, 7, 0)
    assert found["frozen"] == sum(p.numel() for p in tiny.parameters())
    assert found["data"] == f"shapes/one, {len(task.train):,} images" and found["losses"] == ""
    assert (found["writes"], found["example"], found["tokens"]) == ("no", "", None)


# ----------------------------------------------------------------------------- inside of systems


def test_where_words_point_is_counted_on_their_own_object_and_on_the_other(monkeypatch):
    test, asked = scenes(3, 11, "pairs", "test"), []

    def word_maps(model, pixels, texts, places):
        asked.append(places)
        heat = np.zeros((3, 64, 64))
        for i in range(3):  # at the first pixel of the first object
            heat[(i, *np.argwhere(test.masks(i)[0])[0])] = 1
        return heat

    monkeypatch.setattr(inside, "word_maps", word_maps)
    rows, shown = inside.pointed("model", test, "pixels")
    assert [*shown] == [(thing, kind) for thing in (0, 1) for kind in ("size", "colour", "shape")]
    for (thing, kind), (_, places) in shown.items():
        for text, names, place in zip(test.texts, test.shows, places):
            words = [w.strip(",") for w in text.replace(",", " , ").split()]
            assert words[place] == names[thing].split()[("size", "colour", "shape").index(kind)]
    assert (
        len(rows) == 2 * 3 * 2 * 3
        and [*rows.index] == list(range(36))
        and rows["sample"].tolist() == [0, 1, 2] * 12
    )
    chance = [[100 * test.masks(i)[k].mean() for i in range(3)] for k in (0, 1)]
    for n, (thing, kind, which) in enumerate(
        (t, k, w) for t in (0, 1) for k in inside.WORDS for w in ("own", "other")
    ):
        own = rows[3 * n : 3 * n + 3]
        aimed = thing if which == "own" else 1 - thing
        assert set(own["metric"]) == {f"{kind} on {which}"} and own["chance"].tolist() == pytest.approx(
            chance[aimed]
        )
        assert own["value"].tolist() == [
            100.0 * test.masks(i)[aimed][tuple(np.argwhere(test.masks(i)[0])[0])] for i in range(3)
        ]


def test_what_a_closed_gate_costs_is_told_gate_by_gate(monkeypatch):
    blocks = [
        {"cross": torch.tensor([0.5]), "mlp": torch.tensor([-2.0])},
        {"cross": torch.tensor([1.0]), "mlp": torch.tensor([0.0])},
    ]
    monkeypatch.setattr(inside, "gates", lambda block: block)

    def log_likelihood(pixels, texts):
        total = sum(float(g) for block in blocks for g in block.values())
        return torch.tensor([total, 2 * total]), torch.tensor([2, 4])  # half of the gates, a word

    rows = inside.closed_gates(
        types.SimpleNamespace(gated=blocks, log_likelihood=log_likelihood), None, ["a", "b"]
    )
    assert rows[["block", "gate"]].to_numpy().tolist() == [[1, "cross"], [1, "mlp"], [2, "cross"], [2, "mlp"]]
    gates = [0.5, -2.0, 1.0, 0.0]
    assert rows["tanh"].tolist() == pytest.approx(np.tanh(gates)) and rows["size"].tolist() == pytest.approx(
        abs(np.tanh(gates))
    )
    assert rows["value"].tolist() == pytest.approx([g / 2 for g in gates])  # what it adds is lost
    assert [float(g) for block in blocks for g in block.values()] == gates


def test_captions_are_matched_again_among_the_best_by_cosine(monkeypatch):
    texts = [f"text {i}" for i in range(4)]
    cosines = torch.tensor([[4.0, 3, 2, 1], [4, 3, 2, 1], [4, 3, 2, 1], [1, 2, 3, 4]])
    model = types.SimpleNamespace(encode_image=lambda pixels: cosines, encode_text=lambda given: torch.eye(4))
    asked = []

    def scores(model, pixels, images, words):
        asked.extend(zip(images.tolist(), words))
        return np.array([float(word == f"text {i}") for i, word in zip(images, words)])

    monkeypatch.setattr(inside.capfilt, "scores", scores)
    test = type("T", (), {"texts": texts, "__len__": lambda self: 4})()
    found = inside.rematched(model, test, torch.zeros(4), k=2)
    assert [*found] == ["sample", "metric", "value", "chance"] and (found["chance"] == 25).all()
    assert found["metric"].tolist() == ["R@1 by cosine"] * 4 + ["R@1 matched again"] * 4
    assert found["value"].tolist() == [
        100,
        0,
        0,
        100,
        100,
        100,
        0,
        100,
    ]  # the third is not among the best two
    assert {i: sorted(t for j, t in asked if j == i) for i in range(4)} == {
        0: texts[:2],
        1: texts[:2],
        2: texts[:2],
        3: texts[2:],
    }


# ----------------------------------------------------------------------------- records of files


def test_a_picture_has_200_dots_an_inch_and_large_ones_are_not_read(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    paths = provenance.save_figure(
        Figure(figsize=(3, 2)), tmp_path, "fig", **NOTE, data=pd.DataFrame({"a": [1]}, index=["x"])
    )
    with Image.open(paths[1]) as image:
        assert image.size == (600, 400)
    assert paths[3].read_bytes() == b",a\nx,1\n"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match=r"fig\.png does not say where it came from"):
        provenance.read_provenance(paths[1])


def test_versions_are_those_of_what_shapes_numbers_and_pictures():
    found = json.loads(provenance.record(artefact="a", **NOTE))
    libraries = ["matplotlib", "numpy", "open_clip_torch", "pandas", "torch", "xarray"]
    assert sorted(found["versions"]) == sorted([*libraries, "python", "vlmlab"])
    assert (found["versions"]["python"], found["versions"]["vlmlab"]) == (
        platform.python_version(),
        vlmlab.__version__,
    )
    assert found["versions"]["numpy"] == np.__version__
    assert sorted(found) == ["artefact", "git", "profile", "run_keys", "seeds", "study", "versions"]


def test_the_record_of_a_table_of_numbers_is_that_beside_it(tmp_path):
    (tmp_path / "a.csv").write_text("x\n")
    with pytest.raises(
        ValueError, match=r"a\.csv holds numbers alone; there is no \.svg, \.png, \.pdf, \.tex, \.html"
    ):
        provenance.read_provenance(tmp_path / "a.csv")
    (tmp_path / "a.html").write_text("nothing")
    (tmp_path / "a.tex").write_text(f"%{provenance.record(artefact='own', **NOTE)}\n")
    assert provenance.read_provenance(tmp_path / "a.csv")["artefact"] == "own"
