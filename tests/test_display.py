"""What a cell shows of models, tasks, runs, learners and records."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

import vlmlab
from vlmlab.display import Panel, curve, pictures, some, table
from vlmlab.tasks.split import Split
from vlmlab.tasks.task import Task

EVIL = '<script>$x$ & "y"</script>'


class Parsed(HTMLParser):
    """Tags and text of a piece of HTML; open tags are closed in order."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.words, self.open = [], [], []
        self.feed(text)
        self.text = " ".join("".join(self.words).split())
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.words.append("" if tag == "span" else " ")
        if tag not in ("img", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def shown(thing) -> tuple[str, Parsed]:
    return repr(thing), Parsed(thing._repr_html_())


@pytest.fixture(scope="module")
def vlm():
    return vlmlab.load("tiny", device="cpu")


@pytest.fixture(scope="module")
def task():
    return vlmlab.task("emoji/food", protocol="base_to_new", shots=1, seed=1)


@pytest.fixture(scope="module")
def run(vlm, task, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    run = vlmlab.fit("coop", vlm, task, out=out, max_steps=3, epochs=4, batch_size=2, warmup_epochs=0)
    run.save_results(
        [{"task": task.id, "split": "new", "rule": "unified", "metric": "accuracy", "value": 41.25, "n": 9}]
    )
    return run


def made_by_hand(classes: int, asked: list) -> Task:
    """A task of so many classes with one image each; every fourth name is nasty. asked: which images were read."""
    names = tuple(EVIL if i % 4 == 0 else f"class_{i}" for i in range(classes))

    def read(id, rng):
        asked.append(id)
        if id == "missing":
            raise OSError("gone")
        return Image.new("RGB", (300, 20), "red")

    ids = ["missing", *(f"{i}" for i in range(1, classes))]
    split = Split(ids, np.arange(classes), names, "a {}.", read=read, content=str.encode)
    return Task("hand", "zero_shot", None, 1, "a {}.", split, None, {"test": split})


def test_a_model_is_a_short_line_and_a_table(vlm):
    line, page = shown(vlm)
    assert line == "VLM(tiny, fp32 on cpu)"
    for text in (
        "12 blocks × 128, 4 heads",
        "64 × 64 pixels as 1 cls + 8 × 8 patch tokens",
        "texts of at most 32",
    ):
        assert text in page.text
    count = sum(p.numel() for p in vlm.parameters())
    assert f"{count / 1e6:.2f} M" in page.text and "name=tiny" in page.text
    assert repr(vlm.image).startswith("ImageTower(12 blocks") and repr(vlm.text).startswith(
        "TextTower(12 blocks"
    )
    assert "tensors of them train" in vlm.thaw("visual.proj")._repr_html_()


def test_a_task_shows_classes_counts_and_four_images(task):
    line, page = shown(task)
    assert line.startswith("Task(emoji/food, base_to_new, shots 1, seed 1: train 3") and "\n" not in line
    for name, part in (("base", task.base), ("new", task.new)):
        assert f"{name} Split {len(part):,} {len(part.classnames)}" in page.text
    images = [a["src"] for tag, a in page.tags if tag == "img"]
    assert len(images) == 3 and all(src.startswith("data:image/png;base64,") for src in images)
    assert all(name.replace("_", " ") in page.text for name in task.train.classnames)


def test_captions_show_their_texts():
    task = vlmlab.task("emoji/captions", protocol="retrieval")
    page = shown(task)[1]
    assert len([tag for tag, _ in page.tags if tag == "img"]) == 4
    assert task.train.texts[0][:40] in page.text


def test_many_classes_and_nasty_names_are_no_trouble():
    asked = []
    line, page = shown(made_by_hand(1000, asked))
    assert len(asked) == 4  # only a notebook reads images
    assert "and 992 more" in page.text and len(page.text) < 3000 and "\n" not in line
    assert EVIL in page.text and "script" not in [tag for tag, _ in page.tags]
    assert len([tag for tag, _ in page.tags if tag == "img"]) == 3  # one of the four cannot be read


def test_two_dollars_are_no_formula():
    page = Panel("A", "$x$", {"price": "$5 or $6"}, lambda: [table(["$a$"], [["$b$"]])]).html()
    assert not re.search(r"\$[^<]*\$", page) and page.count("<span>&#36;</span>") == 8


def test_a_run_shows_status_curve_scores_and_settings(run):
    line, page = shown(run)
    assert line == f"Run(coop emoji/food seed 1, finished, {run.path})"
    assert (
        "new unified accuracy 41.25 9" in page.text
        and "max_steps=3" in page.text
        and "vlm: tiny" in page.text
    )
    steps = len(run.metrics)
    assert f"in {steps} steps" in page.text and f"{steps} steps in" in page.text
    (points,) = [attrs["points"] for tag, attrs in page.tags if tag == "polyline"]
    assert len(points.split()) == steps > 1


def test_a_damaged_run_says_so(run, tmp_path):
    (tmp_path / "run.json").write_text("{")
    line, page = shown(vlmlab.Run(tmp_path))
    assert line == f"Run({tmp_path}, damaged)" and "run.json is damaged" in page.text


def test_a_learner_shows_what_trains(run):
    line, page = shown(run.model)
    count = sum(p.numel() for p in run.model.trainable().values())
    assert line == f"CoOp({count:,} numbers in {len(run.model.trainable())} tensors)"
    assert (
        "tiny" in page.text
        and "unified" in page.text
        and run.model.classnames[0].replace("_", "_") in page.text
    )


def test_a_record_shows_sites_roles_and_size(vlm, task):
    sites = ["image.resid.post[2:4]", "image.attn.probs[-1]", "image.final"]
    acts = vlmlab.capture(vlm, task.new, sites, limit=2, progress=False)
    line, page = shown(acts)
    kilobytes = sum(a.nbytes for a in acts.data_vars.values()) / 1e3
    assert line.startswith(f"Record(3 sites of 2 samples, {kilobytes:,.1f} kB)\n") and "xarray" in line
    assert "2 layer × 2 sample × 65 token × 128 feature 2 to 3 cls 1, patch 64" in page.text
    assert "1 layer × 2 sample × 4 head × 65 query × 65 token 12 cls 1, patch 64" in page.text
    texts = vlmlab.capture(vlm, ["a cat", "two dogs"], "text.resid.post[1]", progress=False)
    assert "eos, sos, word" in shown(texts)[1].text


@pytest.mark.parametrize("values", [[], [1.0], [float("nan")] * 3])
def test_no_curve_without_a_course(values):
    assert curve(values, "loss") == ""


def test_a_long_curve_is_drawn_with_few_points():
    page = Parsed(curve([1.0, float("inf"), *range(5000)], "loss"))
    (points,) = [attrs["points"] for tag, attrs in page.tags if tag == "polyline"]
    numbers = [tuple(map(float, p.split(","))) for p in points.split()]
    assert 150 < len(numbers) <= 202 and numbers[-1] == (300.0, 4.0)
    assert "5,002 steps, lowest 0" in page.text


def test_names_are_cut_short():
    assert some("abc") == "a, b, c" and some(range(11)) == "0, 1, 2, 3, 4, 5, 6, 7 and 3 more"


def test_pictures_are_small():
    page = Parsed(pictures([(Image.new("RGB", (4000, 1000)), EVIL)]))
    assert len(next(a["src"] for tag, a in page.tags if tag == "img")) < 5000
