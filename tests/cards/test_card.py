"""The model card: measures on made-up cases, tables against card.csv, floors of the tiny model."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

import vlmlab
from vlmlab import cli
from vlmlab.cards import attention as card_attention
from vlmlab.cards import beside, card
from vlmlab.cards import measures as card_measures
from vlmlab.cards import text as card_text
from vlmlab.models.load import EMBEDDED, embedded
from vlmlab.tasks import retrieval_set

FOLDER, CLIPS = EMBEDDED / "tiny", ("tiny", "small")
SMALL = card_measures.Size(groups=("activities",), seeds=(1,), retrieval=20, scenes=6, objects=4, named=3)

# (quantity, style) -> what the committed model reaches at least; see the rows "target" of card.csv
FLOORS = {
    ("R@1 / chance", "mean"): 239,
    ("balanced accuracy / chance", "mean"): 3.3,
    ("16-shot probe - zero-shot, over tasks", "sources"): 0.04,
    ("attention on object - other mask", "noto"): 0.2,
    ("pointing - other mask", "noto"): 0.4,
    ("relevance on named half - chance", "noto"): 0.08,
}


@pytest.fixture(scope="module")
def vlm():
    return vlmlab.load("tiny", device="cpu")


@pytest.fixture(scope="module")
def bank(vlm):
    return card_measures.Bank(vlm)


@pytest.fixture(scope="module")
def measured(vlm):
    return card.card(vlm, card_measures.UNSEEN[:1], SMALL)


@pytest.fixture(scope="module")
def committed():
    if not (FOLDER / "card.csv").exists():
        pytest.skip("data/models/tiny/card.csv is not there yet; `vlmlab card tiny` makes it")
    return card.read(FOLDER)


@pytest.mark.parametrize(
    ("similarity", "expected"),
    [
        ([[3, 2, 1], [0, 5, 9], [7, 8, 6]], [1, 2, 3]),
        ([[1, 1], [1, 1]], [2, 2]),  # a model that sees no difference has found nothing
        ([[0.0, -1.0], [-1.0, 0.0]], [1, 1]),
    ],
)
def test_ranks(similarity, expected):
    assert card_measures.ranks(torch.tensor(similarity)).tolist() == expected


def test_recalls_in_both_directions():
    texts = torch.eye(20)
    images = texts.roll(-1, 0)  # picture i is closest to text i + 1 and orthogonal to its own
    images[0] = texts[0]  # and so is picture 19: text 0 cannot tell them apart
    rows = card_measures.recalls(("retrieval", "names", "noto", "known"), images @ texts.T)
    rows = {r["metric"]: r for r in rows}
    assert rows["i2t R@1"]["value"] == 1 / 20 and rows["t2i R@1"]["value"] == 0
    assert [rows[f"i2t R@{k}"]["chance"] for k in (1, 5, 10)] == [1 / 20, 5 / 20, 10 / 20]
    assert rows["i2t median rank"]["value"] == 20 and rows["i2t median rank"]["chance"] == 10.5
    assert rows["i2t R@1"]["se"] == pytest.approx((0.05 * 0.95 / 20) ** 0.5)


def test_rates_count_classes_and_concepts():
    correct = np.array([1, 1, 1, 1, 0, 0.0])  # five pictures of class 0, one of class 1
    labels, concepts = np.array([0, 0, 0, 0, 0, 1]), ["a", "a", "b", "b", "c", "d"]
    found = card_measures.rates(correct, labels, concepts)
    assert found["accuracy"][0] == pytest.approx(4 / 6)
    assert found["balanced accuracy"][0] == pytest.approx((4 / 5 + 0) / 2)
    doubled = card_measures.rates(np.tile(correct, 2), np.tile(labels, 2), concepts * 2)
    for metric in found:  # more pictures of a concept prove no more
        assert doubled[metric] == pytest.approx(found[metric])


def test_pictures_are_encoded_once(vlm, monkeypatch):
    bank, seen = card_measures.Bank(vlm, batch=2), []
    encode = bank.encode
    monkeypatch.setattr(bank, "encode", lambda p: seen.append(pictures := list(p)) or encode(pictures))
    ids = retrieval_set("noto", limit=3).ids
    first = bank.images([*ids, ids[0]])
    assert torch.equal(first[0], first[3]) and torch.equal(bank.images(ids), first[:3])
    assert sum(map(len, seen)) == 3


def test_redrawn_asks_the_same_in_another_style():
    split = card_measures.questions("emoji/animals")["known"]
    other = card_measures.redrawn(split, "fluent-3d")
    label = dict(zip(card_measures.hexcodes(split.ids), split.labels, strict=True))
    assert {i.split("/")[0] for i in other.ids} == {"fluent-3d"} and other.classnames == split.classnames
    assert all(label[h] == y for h, y in zip(card_measures.hexcodes(other.ids), other.labels, strict=True))


def test_small_card(measured):
    assert list(measured.columns) == card.COLUMNS
    body = measured[~measured["measure"].isin(["target", "model"])]
    shares = body[~body["metric"].str.contains("rank|KL|over seeds")]
    assert shares["value"].between(0, 1).all() and shares["n"].gt(0).all()
    assert set(body["measure"]) == {
        "zero_shot",
        "overlap",
        "probe",
        "retrieval",
        "scenes",
        "emotions",
        "attention",
    }
    assert set(body["concepts"]) == {"known", "novel"}
    one = body.query("measure == 'zero_shot' and task == 'emoji/activities'")
    assert one["chance"].eq(1 / 3).all()
    assert np.allclose(one["ratio"], one["value"] / one["chance"])


def test_targets_say_what_they_compare(measured):
    rows = measured[measured["measure"] == "target"]
    assert (rows["passed"] == (rows["value"] >= rows["target"])).all()
    recall = measured.query("measure == 'retrieval' and task == 'names' and concepts == 'known'")
    recall = recall[recall["metric"].str.endswith("R@1")]
    mean = rows.query("metric == 'R@1 / chance' and style == 'mean'")["value"].item()
    assert mean == pytest.approx(recall["ratio"].mean())


def test_quick_writes_nothing(monkeypatch, measured, capsys):
    asked = []
    monkeypatch.setattr(card, "card", lambda *args: asked.append(args) or measured)
    monkeypatch.setattr(card, "write", lambda *_: pytest.fail("quick must not write"))
    assert cli.main(["card", "tiny", "--quick"]) == 0
    assert asked[0][1:] == (card_measures.UNSEEN[:1], card_measures.QUICK)
    assert "i2t R@1" in capsys.readouterr().out


def test_unknown_model(capsys):
    assert cli.main(["card", "huge"]) == 2
    assert "no embedded model 'huge'" in capsys.readouterr().err


def test_write_fills_every_table(tmp_path, measured):
    for name in ("README.md", "config.json"):
        (tmp_path / name).write_bytes((FOLDER / name).read_bytes())
    card.write(measured, tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert sorted(m[2] for m in card_text.MARKED.finditer(text)) == sorted(
        set(card_text.PARTS) - {"beside"}
    )  # tiny stands beside no other model
    again = card.read(tmp_path)
    pd.testing.assert_frame_equal(
        again.drop(columns="passed"), measured.drop(columns="passed"), check_dtype=False, rtol=1e-5
    )
    assert card_text.fill(text, again, tmp_path / "config.json") == text
    again.loc[again["metric"] == "i2t R@10", "value"] = 0.123
    assert "12.3" in card_text.fill(text, again, tmp_path / "config.json")
    assert not list(tmp_path.glob("*tmp*"))


def test_unknown_marker_is_named(tmp_path, measured):
    text = "<!-- card:speed -->\n<!-- /card -->"
    with pytest.raises(ValueError, match="'speed'"):
        card_text.fill(text, measured, FOLDER / "config.json")


def test_masks_fit_the_pictures():
    picture, mask = card_attention.on_noise(retrieval_set("noto", limit=1).ids[0])
    grid = card_attention.to_grid(mask[None], 64)
    assert picture.size == (64, 64) and 0.05 < mask.mean() < 0.31
    assert grid.mean().item() == pytest.approx(mask.mean()) and grid.view(8, 8)[0, 0] == mask[:8, :8].mean()


def test_attention_maps_are_shares(vlm):
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    text = vlm.encode_text(["a photo of a dog face.", "a photo of a car."])
    text = torch.nn.functional.normalize(text, dim=-1)
    seen = card_attention.class_attention(vlm, images)
    asked, swapped = card_attention.relevance(vlm, images, [text, text.flip(0)])
    for heat in (seen, asked, swapped):
        assert heat.shape == (2, 64) and heat.min() >= 0 and torch.allclose(heat.sum(1), torch.ones(2))
    assert not torch.allclose(asked, swapped)
    assert all(p.grad is None and not p.requires_grad for p in vlm.parameters())


def test_a_map_that_ignores_the_text_scores_half(bank, monkeypatch):
    def blind(vlm, images, texts):
        heat = torch.rand(len(images), 64, generator=torch.Generator().manual_seed(1))
        return [heat / heat.sum(1, keepdim=True) for _ in texts]

    monkeypatch.setattr(card_attention, "relevance", blind)
    rows = card_attention.named(bank, ["noto"], dataclasses.replace(SMALL, named=10))
    assert [r["value"] for r in rows] == pytest.approx([0.5, 0.5]) and rows[0]["n"] == 20


@pytest.mark.parametrize("name", embedded())
def test_readme_is_made_from_the_csv(name):
    folder = EMBEDDED / name
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert card_text.fill(text, card.read(folder), folder / "config.json") == text, (
        f"run `vlmlab card {name}`"
    )
    assert "-->\n<!-- /card" not in text


@pytest.mark.parametrize("name", CLIPS)
def test_card_is_about_these_weights(name):
    weights = vlmlab.load(name, device="cpu").fingerprint()[:16]
    assert set(card.read(EMBEDDED / name)["weights"]) == {weights}, f"new weights: run `vlmlab card {name}`"


@pytest.mark.parametrize("name", CLIPS)
def test_passed_agrees_with_the_numbers(name):
    committed = card.read(EMBEDDED / name)
    rows = committed[committed["measure"] == "target"]
    assert (rows["passed"].astype(bool) == (rows["value"] >= rows["target"])).all()
    assert len(rows) > 20 and rows["passed"].notna().all()


@pytest.mark.parametrize(("metric", "style"), FLOORS)
def test_floors(committed, metric, style):
    row = committed.query("measure == 'target' and metric == @metric and style == @style")
    assert row["value"].item() >= FLOORS[metric, style] and bool(row["passed"].item())


def test_retrieval_is_alive(bank):
    split = retrieval_set("noto", limit=200)
    images = torch.nn.functional.normalize(bank.images(split.ids), dim=-1)
    rank = card_measures.ranks(images @ bank.texts(split.texts).T)
    assert (rank == 1).float().mean() > 10 / 200


def test_beside_tiny_itself_nothing_is_better(bank, vlm):
    rows = beside.rows(bank, card_measures.Bank(vlm), ["noto"], SMALL)
    assert len(rows) > 8 and all(r["value"] == 0 and r["se"] == 0 for r in rows)


def test_a_difference_counts_the_items_that_one_alone_has_right():
    here, its = torch.eye(4), torch.eye(4)
    here[3], its[0] = torch.tensor([0.0, 0, 2, 1]), torch.tensor([0.0, 2, 2, 0])
    assert beside.first(here, its)["i2t R@1"].tolist() == [1, 0, 0, -1]
    assert beside.first(here, its)["t2i R@1"].tolist() == [1, 1, 0, 0]


def test_the_table_of_differences():
    heads = [("zero_shot", "emoji/food", "balanced accuracy"), ("retrieval", "names", "i2t R@1")]
    rows = [
        card_measures.row(f"{m}{end}", task, "noto", "known", metric, value, np.nan, 10, 0.02)
        for m, task, metric in heads
        for end, value in (("", 0.5), (" - tiny", 0.1))
    ]
    table = beside.beside(pd.DataFrame(rows), FOLDER)
    assert "| zero-shot, subgroup classes | known | 50.0 | 40.0 | +10.0 ± 2.0 | 5.0 |" in table
    assert len(table.splitlines()) == 4


@pytest.mark.parametrize(
    ("measure", "kind", "metrics"),
    [
        ("zero_shot", "fine", ("accuracy",)),
        ("retrieval", "names", ("i2t R@1", "t2i R@1")),
        ("scenes", "names", ("i2t R@1", "t2i R@1")),
    ],
)
def test_the_teacher_knows_more_than_its_student(measure, kind, metrics):
    found = beside.asked(card.read(EMBEDDED / "small"), f"{measure} - tiny", kind, metrics, "known")
    gain, error = beside.mean(found)
    # two errors would be clear; the scenes, which are distilled, come nearest
    assert gain > 0 < error and (measure != "scenes" or gain > 1.5 * error)
