"""`explore`: what is linked to what, what is drawn again, and that its code draws the same."""

import base64
import dataclasses
import io
import shutil

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import vlmlab
from vlmlab import plots
from vlmlab.studies.pages.provenance import read_provenance
from vlmlab.train.evaluate import predict
from vlmlab.widgets import attending, drawing, explorer, looking, reading, slot, watch
from vlmlab.widgets.pane import PANES, Pane


@pytest.mark.parametrize("name", list(PANES))
def test_the_code_of_a_pane_draws_the_same(both, vlm, tuned, press, name, monkeypatch):
    both.choose(7)
    both.looking.layer.value, both.looking.head.value = 8, 2
    shown = both.slots[0]
    shown.chooser.value = name
    press(shown, "copy as code")
    assert both.code.layout.display == "flex"
    monkeypatch.setattr(plt, "show", lambda: None)
    monkeypatch.setattr(vlmlab, "load", {"tiny": vlm}.__getitem__)
    names = {"model": tuned}
    exec(both.code.value, names)
    again = drawing.painted(names["fig"], drawing.DPI)
    plt.close(names["fig"])
    there = shown.drawing.marked(8)
    assert again.shape == there.shape
    differ = (again != there).any(axis=(0, 2))  # columns: a mark is drawn finer in the static figure
    assert differ.sum() <= (12 if PANES[name].marks else 0)
    assert again.std() > 10  # something is on it


def test_a_block_further_only_marks_are_moved(both, monkeypatch):
    made, captured = [], []
    monkeypatch.setattr(Pane, "figure", lambda *a: made.append(a))
    monkeypatch.setattr(reading, "capture", lambda *a, **k: captured.append(a))
    before = [s.image.value for s in both.slots], both.looking.views[0].image.value
    both.looking.layer.value = 5
    assert [s.image.value for s in both.slots] != before[0] and both.looking.views[0].image.value != before[1]
    assert made == captured == []


def test_another_image_is_read_once(both, monkeypatch):
    both.choose(3)
    first = [s.image.value for s in both.slots]
    both.choose(4)
    assert [s.image.value for s in both.slots] != first
    monkeypatch.setattr(reading, "capture", None)  # it would be called
    monkeypatch.setattr(Pane, "figure", None)
    both.choose(3)
    assert [s.image.value for s in both.slots] == first


def test_a_click_on_a_patch_makes_it_look(both):
    before = both.looking.views[1].image.value
    both.looking.views[0].cells[2 * 8 + 5].click()
    assert (
        both.looking.query.value == ("patch", 21) and both.looking.query.label == "patch in row 3, column 6"
    )
    assert both.looking.views[1].image.value != before
    assert "looks at" in both.looking.caption.value


def test_a_token_that_a_block_does_not_have(both):
    both.looking.query.value = ("prompt", 0)
    both.looking.layer.value = 2  # MMRL++ inserts its prompts later
    assert "MMRL++ has no such token in block 2" in both.looking.caption.value
    both.looking.layer.value = 12
    assert "MMRL++ looks at" in both.looking.caption.value


def test_frozen_models_have_no_prompts_to_look_from(both):
    both.looking.query.value = ("prompt", 0)
    assert "CLIP has no such token" in both.looking.caption.value and both.message.value == ""


def test_the_answers_are_those_of_evaluate(vlm, task, fresh):
    few = {name: test.select(range(0, len(test), 10)) for name, test in task.tests.items()}
    few = dataclasses.replace(task, tests=few)
    ui = vlmlab.explore(vlm, few, samples=10_000)
    scores = vlmlab.evaluate(next(iter(ui.methods.values())), few).query("metric == 'accuracy'")
    scores = scores.set_index("split")["value"]
    right = ui.rows.groupby("test")["right CLIP"].mean() * 100
    assert right["base"] == pytest.approx(scores["base"]) and right["new"] == pytest.approx(scores["new"])


def test_recorded_features_answer_as_the_method_does(both, tuned):
    for (model, name), found in both.readings.items():
        plain = predict(both.methods[model], both.tests[name])
        np.testing.assert_allclose(found.logits, plain, rtol=1e-4, atol=1e-4)


def test_r_is_that_of_the_measure(both, tuned, task):
    test = reading.some(task.new, 6)
    r = vlmlab.measures.norm_ratio(vlmlab.capture(tuned, test, "image.final", progress=False))
    rows = both.rows[both.rows["test"] == "new"]
    np.testing.assert_allclose(rows["r MMRL++"], r, rtol=1e-5)
    assert rows["r CLIP"].isna().all()


def test_the_thumbnails_choose(both):
    both.gallery.filters["test"].value = "new"
    assert both.gallery.numbers == list(range(6, 12))
    both.gallery.cells.cells[2].click()
    assert both.number == 8 and both.state()["sample"] == 2
    assert "new, " in both.gallery.told.value


def test_the_map_chooses(both):
    view = both.slots[1]
    view.chooser.value = "map of the images"
    cell, there = next((c, s) for c, s in view.spots.items() if 0 not in s)
    assert both.tell(there[0]) in view.map.cells[cell].tooltip
    view.map.cells[cell].click()
    assert both.state()["sample"] == there[0]
    outside = next(c for c in range(slot.ROWS * slot.COLUMNS) if c not in view.spots)
    assert view.map.cells[outside].disabled


def test_the_map_is_a_brush_too(both):
    view = both.slots[1]
    view.chooser.value = "map of the images"
    x = view.drawing.spots[:, 0]
    view.across.value = (0, float(np.median(x)))
    left = np.flatnonzero(x <= view.across.value[1])
    assert 0 < len(left) < len(x) and both.gallery.numbers == left.tolist()  # of the first test
    view.across.value = (0, 1)
    assert len(both.gallery.numbers) == len(both.rows)
    view.up.value = (0, 0.01)
    assert both.gallery.numbers == [] and both.message.value == ""
    view.chooser.value = "r(x)"
    assert len(both.gallery.numbers) == len(both.rows)


def test_what_was_chosen_survives_the_cell(both, vlm, tuned, task, monkeypatch):
    both.choose(5)
    both.looking.layer.value, both.looking.query.value = 4, ("patch", 3)
    both.slots[0].chooser.value = "similarity of blocks"
    both.gallery.filters["answer"].value = "wrong"
    monkeypatch.setattr(reading, "capture", None)  # all is in memory
    again = vlmlab.explore({"CLIP": vlm, "MMRL++": tuned}, task, samples=6)
    assert again is not both and again.number == 5
    assert (again.looking.layer.value, again.looking.query.value) == (4, ("patch", 3))
    assert again.slots[0].chooser.value == "similarity of blocks"
    assert again.gallery.filters["answer"].value == "wrong" and again.message.value == ""


def test_a_still_picture_goes_with_it(both):
    bundle = both._repr_mimebundle_()
    assert {"application/vnd.jupyter.widget-view+json", "image/png", "text/plain"} <= set(bundle)
    picture = Image.open(io.BytesIO(base64.b64decode(bundle["image/png"])))
    assert picture.width > 700 and picture.height > 700
    assert bundle["text/plain"] == "Explorer(CLIP and MMRL++ on base, new)"


def test_stopped_it_goes_on(vlm, task, forgotten, monkeypatch):
    said = []

    class Handle:
        def update(self, data, raw):
            said.append(data["text/plain"])

    def displayed(row, display_id):
        row.children[2].click()  # the button, before anything is read
        return Handle()

    monkeypatch.setattr(watch, "display", displayed)
    assert vlmlab.explore(vlm, task, samples=4) is None
    assert said == ["stopped; 0 of 2 readings are kept, the same call goes on"]
    monkeypatch.setattr(watch, "display", lambda row, display_id: Handle())
    assert vlmlab.explore(vlm, task, samples=4) is not None
    assert "8 images" in said[-1] and said[-1].startswith("read ")


def test_one_model_compares_its_blocks_with_themselves(vlm, task, fresh):
    ui = vlmlab.explore(vlm, task.new, samples=6)
    assert list(ui.methods) == ["CLIP"] and ui.looking.gap is None
    ui.slots[0].chooser.value = "r(x)"
    assert "r(x) is of methods with a prompt branch" in ui.slots[0].why.value
    ui.slots[0].chooser.value = "similarity of blocks"
    assert ui.slots[0].drawing is not None


@pytest.mark.parametrize(
    ("models", "task_", "samples", "said"),
    [
        ({"a": 1, "b": 2, "c": 3}, None, 4, "one model or two side by side, got 3"),
        ({}, None, 4, "one model or two"),
        ("nowhere/run", None, 4, "nowhere/run"),
        (3, None, 4, "a method or a run"),
        (None, "emoji/animals", 4, "expected is what vlmlab.task gives"),
        (None, None, 0, "samples must be a whole number"),
    ],
)
def test_what_cannot_be_looked_at(vlm, task, models, task_, samples, said):
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        vlmlab.explore(vlm if models is None else models, task_ or task, samples=samples)


def test_what_goes_wrong_later_is_said(both, monkeypatch):
    def lost(*args):
        raise FileNotFoundError("images/7.png is gone")

    monkeypatch.setattr(explorer.reading, "attention", lost)
    both.choose(2)
    assert "images/7.png is gone" in both.message.value and 'role="alert"' in both.message.value
    monkeypatch.undo()
    both.choose(1)
    assert both.message.value == ""


def test_the_brush_keeps_what_is_within(both):
    brush, r = both.gallery.brush, both.rows["r MMRL++"]
    assert brush.min <= r.min() and r.max() <= brush.max and both.gallery.r is None
    middle = float(r.median())
    brush.value = (middle, brush.max)
    assert both.gallery.numbers == np.flatnonzero(r >= middle).tolist() and both.kept["r"][
        0
    ] == pytest.approx(middle)
    brush.value = (brush.min, brush.max)
    assert len(both.gallery.numbers) == len(both.rows) and both.message.value == ""


def test_no_brush_without_prompts(vlm, task, fresh):
    ui = vlmlab.explore(vlm, task, samples=6)
    assert ui.gallery.brush.layout.display == "none" and ui.gallery.r is None


def test_a_saved_figure_says_where_it_came_from(vlm, task, tmp_path, fresh, press):
    run = vlmlab.fit("zero_shot", vlm, task, out=tmp_path / "runs")
    ui = vlmlab.explore(run, task, samples=6)
    ui.folder.value = str(tmp_path / "shown")
    ui.looking.layer.value = 5
    press(ui.slots[0], "save figure")
    files = sorted((tmp_path / "shown").iterdir())
    assert [f.suffix for f in files] == [".pdf", ".png", ".svg"] and "block-5" in files[0].stem
    for file in files:
        record = read_provenance(file)
        assert (record["study"], record["run_keys"], record["seeds"]) == ("explorer", [run.key], [1])
    assert "saved " in ui.message.value
    image = Image.open(files[1])
    assert min(image.size) > 200 and np.asarray(image.convert("L")).std() > 10
    (tmp_path / "file").write_text("")
    ui.folder.value = str(tmp_path / "file")
    press(ui.looking, "save figure")
    assert 'role="alert"' in ui.message.value and "cannot write" in ui.message.value


def test_patches_and_curves_say_their_values(both):
    both.looking.layer.value = 3
    row, column, at = 2, 5, both.looking.chosen
    weights = attending.weights_of(both.looking.probs["CLIP"], at["query"], 3, at["head"])
    value = float(attending.as_grid(weights)[row, column])
    assert f"row {row + 1}, column {column + 1}\n{value:.3g}" in both.looking.views[0].says.value
    acts = both.arguments()["acts"]["CLIP"]
    lengths = vlmlab.measures.norm_of_mean(acts["image.resid.post"]).sel(layer=4, role="cls")
    said = both.slots[0].image.says.value
    assert f"class token {float(lengths.mean()):.3g}" in said
    assert f"image, class token {float(lengths[both.state()['sample']]):.3g}" in said


@pytest.mark.parametrize("query", [("patch", 20), ("cls", 0)])
def test_the_fast_picture_of_attention_is_that_of_the_plot(both, query):
    weights = attending.weights_of(both.looking.probs["CLIP"], query, 5, 1)
    picture, size = both.seen()["CLIP"], (208, 208)
    fast = looking.under(picture, weights, size, None)
    figure = Figure(figsize=(2.08, 2.08))
    ax = figure.add_axes((0, 0, 1, 1))
    plots.overlay(picture, weights, ax=ax)
    slow = drawing.painted(figure, 100)
    assert abs(fast.astype(float) - slow).mean() < 4  # of 255; the frame is drawn finer
    alone = looking.under(picture, None, size, None)
    assert abs(alone.astype(float) - slow).mean() > 2 * abs(fast.astype(float) - slow).mean()


def test_two_explorers_do_not_disturb_each_other(both, vlm, task):
    other = vlmlab.explore(vlm, task, samples=6)
    both.looking.layer.value = 3
    other.looking.layer.value = 9
    both.choose(2)
    assert (both.looking.layer.value, other.looking.layer.value, other.number) == (3, 9, 0)
    assert both.message.value == other.message.value == ""


def test_a_run_whose_folder_is_deleted(vlm, task, tmp_path, fresh):
    run = vlmlab.fit("zero_shot", vlm, task, out=tmp_path / "runs")
    shutil.rmtree(tmp_path / "runs")
    ui = vlmlab.explore(run, task, samples=6)  # what it trained is in memory
    assert ui.message.value == "" and "open_run" in ui.codes["models"]
    with pytest.raises(FileNotFoundError, match=r"run\.json"):
        vlmlab.explore(str(run.path), task)
