"""The gallery page: what it links to, what it says, what it never mixes, and that nothing in it runs."""

import csv
import html.parser
import io
import itertools
import json
import re
from pathlib import Path
from urllib.parse import unquote

import matplotlib
import pytest

from vlmlab import cli
from vlmlab.studies import manifest, save_figure, save_table
from vlmlab.studies.claims.evaluations import VERDICTS
from vlmlab.studies.pages import gallery
from vlmlab.studies.pages.gallery_table import comparison

ROOT = Path(__file__).parents[3]
EVIL = '<script>alert("x")</script>'
STUDY = """[study]
id = "one"
title = '<b>One</b> & only'

[[artefact]]
id = "fig1"
title = "A figure"
notebook = "a.ipynb"
kind = "figure"

[[artefact]]
id = "tab1"
title = "A table"
notebook = "a.ipynb"
kind = "table"

[[artefact]]
id = "fig2"
title = "Nobody made it"
notebook = "a.ipynb"
kind = "figure"

[profile.demo]
model = "tiny"
"""
TABLE = """method,task,split,measured_mean,measured_sd,n,published_average
aligned_norm,animals,new,56.574074,1.122626,3,
aligned_norm,average,base,59.126163,0.859279,3,85.46
aligned_norm,average,new,57.762408,0.398517,3,77.79
zero_shot,average,base,52.299965,0.0,3,69.34
zero_shot,average,new,60.100860,0.0,3,
"""
CLAIMS = {
    "profile": "demo",
    "claims": [
        {
            "id": "better",
            "sentence": f"It is better. {EVIL}",
            "source": "Table 1",
            "measurement": "difference",
            "holds": "new is above",
            "threshold": "above 0",
            "verdict": "refuted",
            "effect": -0.8123,
            "unit": "points",
            "spread": 1.4,
            "interval": [-4.3, 2.7],
            "n": 3,
            "evidence": ["tab1"],
            "reason": "",
            "kind": "measured",
        }
    ],
}


def cell(kind: str, text: str, *printed: str) -> dict:
    outputs = [{"output_type": "stream", "name": "stdout", "text": [p]} for p in printed]
    return {"cell_type": kind, "source": [text], "metadata": {}, **({"outputs": outputs} if printed else {})}


def rows_of(text: str) -> list[dict]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """One study with a figure, a table and an artefact that was never made."""
    import pandas as pd

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    root = tmp_path_factory.mktemp("gallery")
    out = root / "figures/one"
    (root / "notebooks/one").mkdir(parents=True)
    (root / "notebooks/one/study.toml").write_text(STUDY)
    (root / "notebooks/one/a.ipynb").write_text("{}")
    fig = plt.figure(figsize=(3.35, 2))
    note = {"study": "one", "profile": "demo", "run_keys": ["k1", "k2"], "seeds": [1, 2]}
    save_figure(fig, out, "fig1", **note, data=pd.DataFrame({"step": [1], "loss": [0.5]}))
    plt.close(fig)
    frame = pd.read_csv(io.StringIO(TABLE))
    save_table(frame, out, "tab1", **note, data=frame)
    (out / "claims.json").write_text(json.dumps(CLAIMS))
    (out / ".state.json").write_text(
        json.dumps(
            {
                "fig1": {
                    "files": {},
                    "parts": {"notebook": "00", "run mmrlpp emoji/food 16-shot seed 1 (abcdef)": "k1 77"},
                }
            }
        )
    )
    (out / "notebooks").mkdir()
    cells = [
        cell("markdown", f"# Title\n\nWhat `r(x)` **is** {EVIL}\n"),
        cell("code", "1", "not this line\n"),
        cell("markdown", "**Reading.**"),
        cell("code", "print()", f"mean 1.0\n{EVIL}\n"),
    ]
    (out / "notebooks/fig1.ipynb").write_text(json.dumps({"cells": cells}))
    gallery.build(root / "figures", root / "notebooks")
    return root


class Page(html.parser.HTMLParser):
    """What a test asks of a page: tags with their attributes, and the text."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    def all(self, name: str) -> list[str]:
        return [attrs[name] for _, attrs in self.tags if attrs.get(name)]


@pytest.fixture(scope="module")
def page(project) -> Page:
    return Page((project / "figures/index.html").read_text(encoding="utf-8"))


def part(project: Path, name: str) -> str:
    """The text of one article."""
    text = (project / "figures/index.html").read_text(encoding="utf-8")
    return Page(re.search(rf'<article[^>]* id="{name}".*?</article>', text, re.S)[0]).text


def test_the_same_files_give_the_same_bytes(project):
    path = project / "figures/index.html"
    before = path.read_bytes()
    assert gallery.build(project / "figures", project / "notebooks") == path
    assert path.read_bytes() == before
    assert sorted(p.name for p in path.parent.iterdir()) == ["index.html", "one"]  # nothing temporary stays


def test_all_links_lead_to_files_or_places_in_the_page(project, page):
    links = {*page.all("src"), *page.all("href")} - {"data:,"}
    assert links >= {"one/fig1.svg", "one/notebooks/fig1.ipynb", "../notebooks/one/a.ipynb", "one/tab1.csv"}
    assert "one/notebooks/tab1.ipynb" not in links  # there is none
    for link in links:
        if link.startswith("#"):
            assert link[1:] in page.all("id"), link
        else:
            assert (project / "figures" / unquote(link)).is_file(), link


def test_texts_of_others_stay_texts(project, page):
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert page.text.count(EVIL) == 3  # claim, caption, reading
    assert "<b>One</b> & only" in page.text and "b" not in [tag for tag, _ in page.tags]


def test_html_is_in_order(page):
    ids = page.all("id")
    assert len(ids) == len(set(ids))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and all(b <= a + 1 for a, b in itertools.pairwise(levels))
    alts = [attrs.get("alt") for tag, attrs in page.tags if tag == "img"]
    assert len(alts) == 1 and alts[0].startswith("A figure. mean 1.0") and EVIL in alts[0]


def test_missing_artefacts_are_named(project, page):
    assert "2 of 3 artefacts made; missing: fig2" in page.text
    text = part(project, "one/fig2")
    assert "Not made yet: there is no fig2.svg and no fig2.png" in text
    assert "vlmlab reproduce one --only fig2" in text


def test_a_figure_says_what_it_shows_and_where_it_comes_from(project):
    text = part(project, "one/fig1")
    assert "demo scale" in text and "What r(x) is" in text and "mean 1.0" in text
    assert "not this line" not in text
    assert "seeds 1, 2" in text and "k1 mmrlpp emoji/food 16-shot seed 1" in text
    assert "2 runs" in text and "matplotlib" in text


def test_methods_come_from_the_data_or_from_the_runs(page):
    found = {a["id"]: a["data-methods"] for tag, a in page.tags if tag == "article"}
    assert found == {"one/fig1": "mmrlpp", "one/tab1": "aligned_norm zero_shot", "one/fig2": ""}
    choices = [a["value"] for tag, a in page.tags if tag == "input" and a["name"] == "method"]
    assert choices == ["", "aligned_norm", "zero_shot", "mmrlpp"]  # AlignedNorm, CLIP, MMRL++


def test_a_claim_has_its_verdict_in_words_with_numbers(page):
    for text in (
        "refuted",
        "effect −0.812 points",
        "spread 1.4",
        "95 % interval −4.3 to 2.7",
        "n 3",
        "Holds if new is above (difference above 0 points)",
        ": 1 refuted",
    ):
        assert text in page.text
    assert "#one/tab1" in page.all("href") and tuple(gallery.TONES) == VERDICTS


def test_a_file_without_a_record_is_not_trusted(project, tmp_path):
    out = tmp_path / "figures/one"
    out.mkdir(parents=True)
    (out / "fig1.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    gallery.build(tmp_path / "figures", project / "notebooks")
    text = part(tmp_path, "one/fig1")
    assert "Incomplete: there is no fig1.png" in text and "do not say where they came from" in text
    assert "demo scale" not in text


def test_differences_stand_only_where_both_are_known():
    compared, rest = comparison(rows_of(TABLE))
    assert compared["kinds"] == ["measured", "published"] and compared["difference"] and compared["counted"]
    assert compared["same"] == [("task", "average")] and compared["columns"] == ["split"]
    (line, new), (clip,) = (lines for _, lines in compared["groups"])
    assert line["numbers"] == {
        "measured": {"value": "59.13", "spread": "0.86", "n": "3"},
        "published": {"value": "85.46"},
        "difference": {"value": "−26.33"},
    }
    assert new["numbers"]["difference"]["value"] == "−20.03" and clip["method"] == "zero_shot"
    assert rest["kinds"] == ["measured"] and not rest["difference"] and rest["count"] == 2


def test_tidy_numbers_stand_side_by_side_where_they_agree():
    tidy = rows_of(
        "method,split,shots,kind,mean,sd,n,note\n"
        "a,new,,published,77.79,,,as printed\na,new,16.0,measured,57.762408,0.398517,3.0,\n"
        "b,new,,planned,80,,,\nb,new,16.0,measured,,,,\n"
        "c,new,,published,70,,,\nc,new,4.0,measured,50,1,3.0,\nc,new,16.0,measured,60,1,3.0,\n"
    )
    compared, rest, stated = comparison(tidy)
    assert compared["kinds"] == ["measured", "published"] and stated["kinds"] == ["published", "planned"]
    a, b, c = (line["numbers"] for p in (compared, stated) for _, lines in p["groups"] for line in lines)
    assert a == {
        "measured": {"value": "57.76", "spread": "0.40", "n": "3"},
        "published": {"value": "77.79", "note": "as printed"},
        "difference": {"value": "−20.03"},
    }
    assert b == {"planned": {"value": "80"}}
    assert c == {"published": {"value": "70"}} and rest["count"] == 2  # 4 or 16 shots? nobody says


@pytest.mark.parametrize(
    ("value", "text"), [("0.04217", "0.0422"), ("7.0", "7.000"), ("-12.5", "−12.50"), ("nan", "nan")]
)
def test_measured_numbers_have_digits_by_their_size(value, text):
    (block,) = comparison(rows_of(f"method,measured_mean\na,{value}\n"))
    assert block["groups"][0][1][0]["numbers"]["measured"]["value"] == text


def test_what_all_rows_share_is_said_once():
    head, rest = "method,split,shots,kind,mean,sd,n,note\n", ",16.0,measured,57.7,0.4,3.0,balanced accuracy\n"
    text = f"{head}a,base{rest}a,new{rest}a,base,,published,71.7,,,\na,new,,published,8,,,\n"
    (block,) = comparison(rows_of(text))
    assert block["same"] == [("method", "a"), ("shots", "16"), ("measured", "balanced accuracy")]
    base, new = (line["numbers"] for line in block["groups"][0][1])
    assert "note" not in base["measured"] and base["published"]["value"] == "71.70"
    assert new["published"]["value"] == "8"


def test_an_empty_table_shows_nothing():
    assert comparison([]) == []


def test_the_command(project, capsys):
    places = ["--figures", str(project / "figures"), "--notebooks", str(project / "notebooks")]
    assert cli.main(["gallery", *places]) == 0
    assert "index.html" in capsys.readouterr().out
    assert cli.main(["gallery", "--notebooks", str(project / "nowhere")]) == 2
    assert "no study in" in capsys.readouterr().err


def test_the_figures_of_this_repository(tmp_path):
    """Every artefact that has files is shown; what is shown has a record."""
    (tmp_path / "figures").mkdir()
    for study in (ROOT / "figures").iterdir():
        if study.is_dir():
            (tmp_path / "figures" / study.name).symlink_to(study)
    text = gallery.build(tmp_path / "figures", ROOT / "notebooks").read_text(encoding="utf-8")
    page = Page(text)
    listed = {
        f"{study}/{a}.svg"
        for study in manifest.names(ROOT / "notebooks")
        for a in manifest.load(study, ROOT / "notebooks").artefacts
    }
    pictures = {name for name in listed if (ROOT / "figures" / name).is_file()}
    assert {unquote(src) for src in page.all("src")} == pictures and pictures
    assert "do not say where they came from" not in page.text


def test_reproduce_ends_with_the_page(module_project):
    module_project.study(module_project.artefact("fig1"), module_project.artefact("tab1", kind="table"))
    module_project.reproduce(only=["fig1"])
    text = (module_project.root / "figures/index.html").read_text(encoding="utf-8")
    assert 'src="fake/fig1.svg"' in text and "missing: tab1" in Page(text).text
