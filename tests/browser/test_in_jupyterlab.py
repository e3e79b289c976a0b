"""vlmlab in a real JupyterLab: what cells show, Tab, Shift-Tab, progress, and the long notebooks."""

import re
from pathlib import Path

import pytest
from lab import Notebook, Server

pytestmark = [pytest.mark.browser, pytest.mark.slow]

LIMIT = 1500  # seconds for the browser
ROOT = Path(__file__).parents[2]
CELLS = [
    "import vlmlab\nfrom vlmlab import progress\nvlm = vlmlab.load('tiny')\nvlm",
    "task = vlmlab.task('emoji/food', protocol='base_to_new', shots=4, seed=1)\ntask",
    "run = vlmlab.fit('coop', vlm, task, epochs=1, batch_size=3, warmup_epochs=0)\nvlmlab.evaluate(run, task)\nrun",
    "run.model",
    "vlmlab.capture(run.model, task.new, 'image.resid.post[6:]', limit=4, progress=False)",
    "for i in progress.bar(range(7), desc='seven steps'):\n    pass",
    "from vlmlab.display import Panel\ntype('Money', (), {'_repr_html_': lambda s: Panel('Money', '$a$', {'in all': '$5 and $6'}).html()})()",
    "",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    found = Server(tmp_path_factory.mktemp("lab"))
    yield found
    found.stop()


@pytest.fixture(scope="module")
def session(browser, server):
    """A notebook that has run; it must have asked for nothing from outside."""
    found = Notebook(browser, server, server.notebook("session.ipynb", CELLS))
    found.run_all(300)
    yield found
    found.context.close()
    assert found.outside == [] and found.errors == []


@pytest.mark.parametrize(
    ("cell", "texts", "parts"),
    [
        (0, ["VLM", "12 blocks × 128", "64 × 64 pixels", "fp32 on cpu"], {"table": 1}),
        (1, ["Task", "emoji/food", "base_to_new", "images", "classes"], {"img": 4, "table": 2}),
        (
            2,
            ["Run", "coop emoji/food seed 1, finished", "balanced_accuracy", "in 4 steps"],
            {"svg polyline": 1},
        ),
        (3, ["CoOp", "settings", "unified"], {"table": 1}),
        (4, ["Record", "image.resid.post", "cls 1, patch 64"], {"table": 1, ".xr-wrap": 1}),
    ],
)
def test_objects_show_what_they_are(session, cell, texts, parts):
    output = session.output(cell)
    for text in texts:
        assert output.get_by_text(text).first.is_visible(), text
    for selector, count in parts.items():
        assert output.locator(f".jp-RenderedHTMLCommon {selector}").count() >= count, selector


def test_they_can_be_read_in_the_dark(session, screenshots):
    """Text of Lab's own colour on Lab's own ground, in both themes."""
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        session.command("apputils:change-theme", theme=theme)
        dark = theme.endswith("Dark")
        session.page.wait_for_function(
            f"() => document.body.dataset.jpThemeLight === '{str(not dark).lower()}'"
        )
        session.page.wait_for_timeout(500)
        session.page.screenshot(path=screenshots / f"lab-{'dark' if dark else 'light'}.png")
        colour = session.output(0).locator("td").nth(1).evaluate("e => getComputedStyle(e).color")
        light = sum(map(int, re.findall(r"\d+", colour)[:3])) / 3
        assert (light > 150) == dark, colour


def test_dollars_are_no_formulas(session):
    output = session.output(6)
    assert "$5 and $6" in output.inner_text() and output.locator("mjx-container, .MathJax").count() == 0


def test_progress_stays_with_its_numbers(session):
    text = session.output(5).inner_text().replace("\u2007", " ")
    assert "seven steps" in text and "7/7" in text
    assert session.output(5).locator(".jupyter-widgets").count() > 0
    assert "4/4" in session.output(2).inner_text()  # of the training


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('vlmlab.task("emoji/fo', "emoji/food"),
        ('vlmlab.load("ti', "tiny"),
        ('vlmlab.fit("aligned', "aligned_norm"),
        ('vlmlab.fit("aligned_norm", vlm, task, w_', "w_proj="),
        ("vlmlab.capture.", "norms"),
        ("vlmlab.studies.", "artefact"),
    ],
)
def test_tab_offers_names(session, text, expected):
    assert any(expected in offered for offered in session.complete(len(CELLS) - 1, text))


@pytest.mark.parametrize("name", ["tour", "gallery_of_measures"])
def test_the_long_notebooks_run(browser, server, name):
    notebook = Notebook(browser, server, server.copied(ROOT / f"notebooks/{name}.ipynb", f"{name}.ipynb"))
    notebook.run_all(900)
    outputs = [o for cell in notebook.cells() for o in cell["outputs"]]
    assert sum("image/png" in o.get("data", {}) for o in outputs) >= 3
    assert notebook.outside == [] and notebook.errors == []
    notebook.context.close()
