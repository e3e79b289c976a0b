"""The gallery in a real browser, opened as a file: pictures, filter, deep links, widths, contrast."""

import json
import re
import shutil
from pathlib import Path

import pytest

from vlmlab.studies.claims.judge import NUMBERS, SAID, WORDS
from vlmlab.studies.pages import gallery

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
SECOND = """[study]
id = "second"
title = "A second study"

[[artefact]]
id = "table1"
title = "All kinds of numbers"
notebook = "table1.ipynb"
kind = "table"

[[artefact]]
id = "fig1"
title = "Never made"
notebook = "table1.ipynb"
kind = "figure"

[profile.demo]
model = "tiny"
"""
TABLE = (
    "method,split,kind,mean,sd,n\n"
    "lafter,new,measured,57.76,0.40,3\nlafter,new,published,77.79,,\nlafter,new,planned,80,,\n"
)
CLAIMS = [
    {
        "id": f"c{i}",
        "sentence": "A sentence that can be tested.",
        "source": "Section 1",
        "kind": "measured",
        "holds": "one number is above another",
        "measurement": "difference",
        "threshold": "above 0",
        "said": said,
        "verdict": WORDS["here"][said],
        "survives": False,
        **dict.fromkeys(NUMBERS),
        "effect": 0.5,
        "unit": "points",
        "interval": [0.1, 0.9],
        "evidence": ["table1"],
        "reason": "as it came out",
    }
    for i, said in enumerate(gallery.TONES)
]
COMMITTED = json.loads((ROOT / "figures/alignednorm/claims.json").read_text(encoding="utf-8"))["claims"]
FOUND = {  # verdict on what was measured -> how often, best first
    WORDS["here"][said]: n
    for said in SAID
    if (n := sum(c.get("said") == said and c["kind"] == "measured" for c in COMMITTED))
}
SHOWN = "[...document.querySelectorAll('article')].filter(a => a.checkVisibility()).map(a => a.id)"
# every text that can be seen, with the contrast of its colour to the nearest background behind it
CONTRAST = """() => {
  const parse = c => c.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] === 1) return c;
    }
    return [255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) {
    const node = walker.currentNode, e = node.parentElement;
    if (!node.data.trim() || !e.checkVisibility() || ['SCRIPT', 'STYLE'].includes(e.tagName)) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    found.push([node.data.trim().slice(0, 40), (a + 0.05) / (b + 0.05)]);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The figures of the repository and a small second study; its table has every kind of number."""
    root = tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "figures", root / "figures")
    shutil.copytree(ROOT / "notebooks", root / "notebooks")
    for folder in ("notebooks/second", "figures/second"):
        (root / folder).mkdir()
    (root / "notebooks/second/study.toml").write_text(SECOND)
    (root / "notebooks/second/table1.ipynb").write_text("{}")
    (root / "figures/second/table1.csv").write_text(TABLE)
    (root / "figures/second/claims.json").write_text(json.dumps({"claims": CLAIMS, "profile": "demo"}))
    return gallery.build(root / "figures", root / "notebooks")


@pytest.fixture(scope="module")
def methods(site) -> dict[str, list[str]]:
    """Artefact -> the methods it shows, from the file itself."""
    text = site.read_text(encoding="utf-8")
    found = re.findall(r'<article[^>]* id="([^"]+)"[^>]* data-methods="([^"]*)"', text)
    return {name: text.split() for name, text in found}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_looks_right(open_page, site, screenshots, width, scheme):
    page = open_page(site, width=width, scheme=scheme).page
    page.screenshot(path=screenshots / f"gallery-{width}-{scheme}.png")
    page.screenshot(path=screenshots / f"gallery-{width}-{scheme}-whole.png", full_page=True)
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width  # also with everything open
    texts = page.evaluate(CONTRAST)
    assert len(texts) > 100 and [t for t in texts if t[1] < 4.5] == []
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", colour))) < 60) == (scheme == "dark")
    plate = page.evaluate("getComputedStyle(document.querySelector('.figure')).backgroundColor")
    assert plate == {"light": "rgb(255, 255, 255)", "dark": "rgb(217, 217, 217)"}[scheme]  # white, dimmed


def test_all_pictures_load(open_page, site):
    page = open_page(site).page
    widths = page.evaluate(
        "[...document.querySelectorAll('main img')].map(i => i.complete && i.naturalWidth)"
    )
    assert len(widths) == site.read_text(encoding="utf-8").count("<img src") and min(widths) > 0


def test_filter_by_method_and_back(open_page, site, methods):
    page = open_page(site).page
    assert page.evaluate(SHOWN) == list(methods)
    assert not page.get_by_label("LaFTer", exact=True).is_visible()  # a phone's first screen is for the paper
    page.get_by_text("Methods", exact=True).click()
    assert page.locator("input[value=aligned_norm_proj_hinge]").count() == 0  # no variants of an ablation
    page.get_by_label("LaFTer", exact=True).check()
    only = [name for name, found in methods.items() if "lafter" in found]
    assert page.evaluate(SHOWN) == only and "second/table1" in only
    assert page.locator("output").inner_text() == f"{len(only)} of {len(methods)} shown"
    page.get_by_role("checkbox", name="AlignedNorm", exact=True).check()
    both = [name for name, found in methods.items() if {"aligned_norm", "lafter"} & {*found}]
    assert page.evaluate(SHOWN) == both and "second/table1" in both
    page.get_by_label("LaFTer", exact=True).uncheck()
    expected = [name for name, found in methods.items() if "aligned_norm" in found]
    assert page.evaluate(SHOWN) == expected and 1 < len(expected) < len(methods)
    assert not page.locator("section#second").is_visible()
    page.get_by_role("button", name="show all").click()
    page.wait_for_function(f"{SHOWN}.length === {len(methods)}")


def test_filter_by_study_with_the_keyboard(open_page, site, methods):
    page = open_page(site).page
    page.get_by_role("group", name="Study").get_by_label("all", exact=True).focus()
    for study in [*dict.fromkeys(name.split("/")[0] for name in methods)]:
        page.keyboard.press("ArrowDown")
        assert page.evaluate(SHOWN) == [name for name in methods if name.startswith(f"{study}/")]


def test_a_deep_link_leads_to_its_figure(open_page, site):
    page = open_page(site, fragment="alignednorm/fig3c").page
    top = "document.getElementById('alignednorm/fig3c').getBoundingClientRect().top"
    assert 0 <= page.evaluate(top) < 60 and page.evaluate("scrollY") > 500
    page.get_by_text("Methods", exact=True).click()
    page.get_by_label("LaFTer", exact=True).check()
    assert not page.locator("[id='alignednorm/fig3c']").is_visible()
    page.evaluate("location.hash = ''; location.hash = 'alignednorm/fig3c'")  # as from a link: it shows again
    page.locator("[id='alignednorm/fig3c']").wait_for()
    assert 0 <= page.evaluate(top) < 60


def test_the_first_screen_says_what_was_found(open_page, site):
    page = open_page(site, width=1280, height=900).page
    for text in (
        "adapts a frozen CLIP",
        "demo scale",
        "seeds 1, 2, 3",
        "Glossary",
        *[f"{n} {word}" for word, n in FOUND.items()][:2],
    ):
        assert (
            page.locator("section#alignednorm")
            .get_by_text(text)
            .first.evaluate("e => e.getBoundingClientRect().bottom < innerHeight")
        ), text


def test_verdicts_filter_the_sentences(open_page, site):
    page = open_page(site).page
    claims = page.locator("[id='second/claims'] .claim:visible")
    total = len(gallery.TONES)
    assert claims.count() == total - 2  # what is open or not testable is folded
    page.locator("[id='second/claims'] form").get_by_label("not decided").check()
    assert [c.get_attribute("data-verdict") for c in claims.all()] == ["not decided"]
    page.locator("[id='second/claims'] form").get_by_label("does not hold here").check()
    assert sorted(c.get_attribute("data-verdict") for c in claims.all()) == [
        "does not hold here",
        "not decided",
    ]
    assert page.locator("[id='alignednorm/claims'] .claim:visible").count() > 2  # another study's stay


def test_search_finds_figures_and_sentences(open_page, site):
    page = open_page(site).page
    page.get_by_label("Search").fill("uniformity Tolerance")
    assert "alignednorm/fig5" in page.evaluate(SHOWN) and len(page.evaluate(SHOWN)) < 6
    page.get_by_label("Search").fill("numbers kinds")
    assert page.evaluate(SHOWN) == ["second/table1"]
    assert not page.locator("section#alignednorm").is_visible()
    page.get_by_role("button", name="show all").click()
    page.wait_for_function(f"{SHOWN}.length > 20")


def test_a_figure_is_enlarged_by_a_tap(open_page, site):
    page = open_page(site, width=390, height=844).page
    page.locator("[id='alignednorm/fig6'] a.figure").click()
    large = page.locator("dialog img")
    large.wait_for()
    assert large.evaluate("i => i.complete && i.getBoundingClientRect().width") > 900
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.get_by_role("button", name="Close").click()
    assert not page.locator("dialog").is_visible()


def test_wide_tables_say_so_on_a_phone(open_page, site):
    page = open_page(site, width=390, height=844, fragment="alignednorm/table1").page
    box = page.locator("[id='alignednorm/table1'] .scroll").first
    hint = "e => getComputedStyle(e, '::before').content"
    assert "more to the right" in box.evaluate(hint)
    name = box.locator("tbody th").first
    before = name.evaluate("e => e.getBoundingClientRect().left")
    box.evaluate("e => { e.scrollLeft = e.scrollWidth }")
    page.wait_for_function("() => document.querySelector('.scroll.wide.end')")
    assert name.evaluate("e => e.getBoundingClientRect().left") == before  # the methods stay in sight


def test_links_can_be_copied(open_page, site):
    watched = open_page(site)
    page = watched.page
    page.locator("[id='alignednorm/fig5'] .copy").click()
    page.wait_for_function(
        "() => [...document.querySelectorAll('.copy')].some(b => b.textContent !== 'copy link')"
    )


@pytest.mark.parametrize("name", ["fig6", "table1"])
def test_executed_notebooks_can_be_read(open_page, site, screenshots, name):
    page = open_page(site, fragment=f"alignednorm/{name}").page
    page.locator(f"[id='alignednorm/{name}'] .links a", has_text="executed notebook").first.click()
    page.wait_for_url("**/notebooks/*.html")
    assert page.locator("h1").count() == 1 and page.locator("pre.code").count() > 3
    assert page.locator("img" if name == "fig6" else "table").count() > 0
    page.screenshot(path=screenshots / f"notebook-{name}.png", full_page=True)
    page.get_by_role("link", name="gallery").click()
    page.wait_for_url(f"**/index.html#alignednorm/{name}")


def test_without_script_everything_is_there(browser, site, methods):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(site.as_uri())
    assert page.locator("article:visible").count() == len(methods)
    assert page.locator("form:visible, button:visible").count() == 0
    assert page.get_by_text(", ".join(f"{n} {word}" for word, n in FOUND.items())).first.is_visible()
    context.close()


def test_what_comes_from_outside_is_stopped_and_noticed(open_page, site, tmp_path):
    load = (
        "new Promise(done => { const i = new Image(); i.onerror = () => done('stopped');"
        " i.onload = () => done('loaded'); i.src = 'http://127.0.0.1:9/x.png' })"
    )
    gallery_page = open_page(site)
    assert gallery_page.page.evaluate(load) == "stopped"
    assert "Content Security Policy" in " ".join(gallery_page.problems)  # the page itself forbids it
    other = tmp_path / "other.html"
    other.write_text("<p>a page that forbids nothing</p>")
    other_page = open_page(other)
    assert other_page.page.evaluate(load) == "stopped"
    assert "outside: http://127.0.0.1:9/x.png" in other_page.problems
    gallery_page.problems.clear()
    other_page.problems.clear()
