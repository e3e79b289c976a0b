"""notebooks/explorer.ipynb in a real JupyterLab and as a Voilà page: what is moved changes what is seen."""

import json
import os
import re
import time
from pathlib import Path

import psutil
import pytest
from lab import Notebook, Server
from voila import Voila

pytestmark = [pytest.mark.browser, pytest.mark.slow]

LIMIT = 1800  # seconds for the browser
ROOT = Path(__file__).parents[2]
WAIT = 120_000  # milliseconds for one picture on a busy machine
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}
LOUD = ("error", "warning")


class Explored:
    """The explorers on a page, found by their own classes."""

    def __init__(self, page):
        self.page, self.said = page, []
        page.set_default_timeout(WAIT)
        page.on("console", lambda m: self.said.append(f"{m.type}: {m.text}") if m.type in LOUD else None)

    def picture(self, name: str):
        return self.page.locator(f"img.{name}, .{name} img").first

    def changes(self, name: str, act) -> float:
        """Seconds from an act until this picture is another one."""
        before, start = self.picture(name).get_attribute("src"), time.monotonic()
        act()
        self.page.wait_for_function(
            "([name, before]) => document.querySelector(`img.${name}, .${name} img`)?.src !== before",
            arg=[name, before],
        )
        return time.monotonic() - start

    def press(self, name: str, key: str):
        """A key on the handle of a slider."""
        self.page.locator(f".{name} .noUi-handle").first.focus()
        self.page.keyboard.press(key)

    def at_the_top(self) -> None:
        """The first explorer begins where the page does."""
        self.page.locator(".vlmlab-frame").first.evaluate("e => e.scrollIntoView()")

    def said_at(self, place) -> str:
        """What is shown while the pointer is over a place."""
        place.scroll_into_view_if_needed()
        place.hover()
        shown = self.page.locator(".vlmlab-values b:visible").first
        shown.wait_for()
        label, box = shown.bounding_box(), place.bounding_box()
        inside = label["x"] < box["x"] + box["width"] + 2 and box["x"] < label["x"] + label["width"] + 2
        near = abs(label["y"] - box["y"]) < box["height"] + label["height"] + 2
        assert inside and near, (label, box)
        return shown.inner_text()

    def messages(self) -> list[str]:
        return [m for m in self.page.locator(".vlmlab-message").all_inner_texts() if m.strip()]


def point(seen: Explored) -> None:
    """Values show where the pointer is, and nowhere else."""
    page = seen.page
    assert re.match(
        r"row 3, column 5\n[\d.e-]+$", seen.said_at(page.locator(".vlmlab-picture-0 button").nth(20))
    )
    assert re.match(r"row 1, column 2\n-?[\d.e-]+$", seen.said_at(page.locator(".vlmlab-gap i").nth(1)))
    curve = seen.said_at(page.locator(".vlmlab-drawing i").nth(3))
    assert curve.startswith("block 4\nclass token ") and "image, class token" in curve, curve
    assert re.match(r".+, block 2: [\d.e-]+$", seen.said_at(page.locator(".vlmlab-patching-map i").nth(1)))
    page.mouse.move(2, 2)
    assert page.locator(".vlmlab-values b:visible").count() == 0


def save(seen: Explored, folder: Path) -> None:
    """The files of a panel are written where the notebook is."""
    seen.page.locator(".vlmlab-save").nth(1).click()
    seen.page.locator(".vlmlab-message", has_text="saved ").first.wait_for()
    found = {path.suffix for path in folder.glob("*norms-by-block*")}
    assert found == {".pdf", ".png", ".svg"}


def use(seen: Explored) -> dict[str, float]:
    """Move all there is; every time the picture must change. Returns seconds by what was done."""
    page, took = seen.page, {}
    took["a click on a patch"] = seen.changes(
        "vlmlab-picture-0", lambda: page.locator(".vlmlab-picture-0 button").nth(20).click()
    )
    for n in range(3):
        took[f"a block further {n + 1}"] = seen.changes(
            "vlmlab-picture-0", lambda: seen.press("vlmlab-layer", "ArrowLeft")
        )
    took["the mark in a curve"] = seen.changes(
        "vlmlab-drawing", lambda: seen.press("vlmlab-layer", "ArrowLeft")
    )
    took["another head"] = seen.changes("vlmlab-gap", lambda: seen.press("vlmlab-head", "ArrowRight"))
    took["another image"] = seen.changes(
        "vlmlab-picture-1", lambda: page.locator(".vlmlab-sheet button").nth(3).click()
    )
    took["a filter"] = seen.changes(
        "vlmlab-sheet", lambda: page.locator(".vlmlab-order select").select_option("low margin")
    )
    where = page.locator(".vlmlab-where").first
    everything = where.inner_text()
    seen.press("vlmlab-brush", "PageUp")
    page.wait_for_function(
        "before => document.querySelector('.vlmlab-where').innerText !== before", arg=everything
    )
    seen.press("vlmlab-brush", "Home")
    page.wait_for_function(
        "before => document.querySelector('.vlmlab-where').innerText === before", arg=everything
    )
    page.locator(".vlmlab-pane select").nth(1).select_option("map of the images")
    page.locator(".vlmlab-map img").wait_for()
    free = page.locator(".vlmlab-map button:not([disabled])")
    took["a point of the map"] = seen.changes("vlmlab-map", lambda: free.nth(free.count() // 2).click())
    page.locator(".vlmlab-copy").nth(1).click()
    code = page.locator(".vlmlab-code textarea").first
    code.wait_for()
    assert "widgets.streams(model, test)" in code.input_value() and "plots.lines(" in code.input_value()
    took["a block of the swap"] = seen.changes(
        "vlmlab-patching-answers", lambda: seen.press("vlmlab-patching-layer", "ArrowRight")
    )
    took["another text"] = seen.changes(
        "vlmlab-text-looks",
        lambda: (
            page.locator(".vlmlab-text-text input").fill("two green cats"),
            page.keyboard.press("Enter"),
        ),
    )
    took["an epoch of the weights"] = seen.changes(
        "vlmlab-weights-polygon", lambda: seen.press("vlmlab-weights-at", "ArrowLeft")
    )
    took["another layer"] = seen.changes(
        "vlmlab-generation-sight", lambda: seen.press("vlmlab-generation-layer", "ArrowLeft")
    )
    took["without the contrast"] = seen.changes(
        "vlmlab-generation-words", lambda: page.locator(".vlmlab-generation-dola input").click()
    )
    assert seen.messages() == []
    return took


def kernels(of: int) -> list[psutil.Process]:
    """The kernels that a server started."""
    return [p for p in psutil.Process(of).children(recursive=True) if "ipykernel_launcher" in p.cmdline()]


def stops(seen: Explored, server: int) -> None:
    """A kernel that dies is said to be gone on the page, and the last pictures stay."""
    src = seen.picture("vlmlab-picture-0").get_attribute("src")
    assert seen.page.locator(".vlmlab-gone:visible").count() == 0
    for kernel in kernels(server):
        kernel.kill()
    seen.page.locator(".vlmlab-gone").first.wait_for(state="visible")
    assert "The kernel has stopped" in seen.page.locator(".vlmlab-gone").first.inner_text()
    assert seen.picture("vlmlab-picture-0").get_attribute("src") == src


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    os.environ["VLMLAB_PROFILE"] = "smoke"
    found = Server(tmp_path_factory.mktemp("explorer"))
    found.copied(ROOT / "notebooks/explorer.ipynb", "explorer.ipynb")
    yield found
    found.stop()
    del os.environ["VLMLAB_PROFILE"]


@pytest.fixture(scope="module")
def notebook(browser, server):
    found = Notebook(browser, server, "explorer.ipynb", height=1500)
    found.seen = Explored(found.page)
    found.run_all(900)
    found.page.set_default_timeout(WAIT)
    yield found
    found.context.close()
    assert found.outside == [] and found.errors == [] and found.seen.said == []


def cell_with(notebook, text: str) -> int:
    return next(i for i, c in enumerate(notebook.cells()) if text in "".join(c["source"]))


def test_all_that_is_moved_changes_what_is_seen(notebook, screenshots):
    point(notebook.seen)
    save(notebook.seen, notebook.server.work)
    took = use(notebook.seen)
    (screenshots / "explorer_seconds.json").write_text(json.dumps(took, indent=1))
    assert set(took) and all(seconds > 0 for seconds in took.values())


def test_every_explorer_leaves_a_picture(notebook):
    outputs = [o.get("data", {}) for c in notebook.cells() for o in c["outputs"]]
    widgets = [d for d in outputs if "application/vnd.jupyter.widget-view+json" in d and "image/png" in d]
    assert len(widgets) == 5


@pytest.mark.parametrize("width", [1280, 900])
@pytest.mark.parametrize("theme", list(THEMES))
def test_it_fits_and_can_be_read(notebook, screenshots, width, theme):
    page = notebook.page
    page.set_viewport_size({"width": width, "height": 1500})
    notebook.command("apputils:change-theme", theme=THEMES[theme])
    page.wait_for_function(f"() => document.body.dataset.jpThemeLight === '{str(theme == 'light').lower()}'")
    page.wait_for_timeout(700)
    notebook.seen.at_the_top()
    notebook.seen.said_at(page.locator(".vlmlab-picture-0 button").nth(35))
    page.screenshot(path=screenshots / f"explorer-{width}-{theme}.png")
    output = notebook.output(cell_with(notebook, "vlmlab.explore("))
    frames = page.locator(".vlmlab-frame")
    assert frames.count() == 5
    for n, shown in enumerate([output, *frames.all()]):
        spills = shown.evaluate("e => e.scrollWidth - e.clientWidth")
        most = 4 if n else 2  # ipywidgets' own margins, which show nothing
        assert spills <= most, f"{spills} pixels of {n} are beyond the right edge"
        if n > 1:
            shown.screenshot(path=screenshots / f"explorer-{width}-{theme}-{n}.png")
    colour = page.locator(".vlmlab-where").first.evaluate("e => getComputedStyle(e).color")
    light = sum(map(int, re.findall(r"\d+", colour)[:3])) / 3
    assert (light > 150) == (theme == "dark"), colour


def test_the_cell_again_shows_what_was_chosen(notebook):
    page = notebook.page
    told = page.locator(".vlmlab-told").first.inner_text()
    assert "CLIP" in told
    at = cell_with(notebook, "vlmlab.explore(")
    page.evaluate(
        "n => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = n }",
        page.evaluate(
            "n => window.jupyterapp.shell.currentWidget.content.widgets.map((w, i) => [w.model.type, i])"
            ".filter(x => x[0] === 'code')[n][1]",
            at,
        ),
    )
    notebook.command("notebook:run-cell")
    page.locator(".vlmlab-told").first.wait_for()
    assert page.locator(".vlmlab-told").first.inner_text() == told
    order = page.locator(".vlmlab-order select").first.evaluate("e => e.selectedOptions[0].label")
    assert order.replace("\xa0", " ") == "low margin"


def test_a_kernel_that_dies_is_said_to_be_gone(notebook):
    seen = notebook.seen
    assert notebook.errors == [] and seen.said == []
    stops(seen, notebook.server.process.pid)
    notebook.errors.clear()  # what Lab itself says of a kernel that died
    seen.said.clear()


def test_a_kernel_that_is_shut_down_is_said_to_be_gone(browser, server):
    frame = (
        "import ipywidgets\nfrom vlmlab.widgets.frame import Frame\nframe = Frame('x')\nframe.fill()\nframe"
    )
    notebook = Notebook(browser, server, server.notebook("small.ipynb", [frame]))
    notebook.run_all()
    gone = notebook.page.locator(".vlmlab-frame .vlmlab-gone").first
    gone.wait_for(state="attached")
    assert not gone.is_visible()
    notebook.page.evaluate("() => { window.jupyterapp.commands.execute('kernelmenu:shutdown') }")
    gone.wait_for(state="visible")
    notebook.context.close()


@pytest.mark.parametrize("theme", list(THEMES))
def test_the_same_as_a_page(browser, server, screenshots, theme):
    voila = Voila(server, "explorer.ipynb", theme)
    context = browser.new_context(viewport={"width": 1280, "height": 1500}, reduced_motion="reduce")
    try:
        page = context.new_page()
        page.route(
            "**/*",
            lambda r: r.continue_() if r.request.url.startswith((voila.url, "data:", "blob:")) else r.abort(),
        )
        wrong = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.set_default_timeout(600_000)
        page.goto(voila.url, timeout=600_000)
        page.locator(".vlmlab-generation-words").wait_for()
        seen = Explored(page)
        if theme == "light":
            point(seen)
            use(seen)
        seen.at_the_top()
        page.wait_for_timeout(500)
        seen.said_at(page.locator(".vlmlab-picture-0 button").nth(35))
        page.screenshot(path=screenshots / f"voila-{theme}.png", full_page=True)
        assert page.locator("text=Traceback").count() == 0 and wrong == []
        assert [m for m in seen.said if "ERR_FAILED" not in m] == []
        if theme == "dark":
            stops(seen, voila.process.pid)
    finally:
        context.close()
        voila.stop()
