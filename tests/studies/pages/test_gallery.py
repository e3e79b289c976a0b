"""The gallery page: what it links to, what it says, what it never mixes, and that nothing in it runs."""

import csv
import html.parser
import io
import itertools
import json
import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import matplotlib
import pytest

from vlmlab import cli
from vlmlab.git import committed
from vlmlab.studies import manifest, save_figure, save_table
from vlmlab.studies.claims.judge import SAID
from vlmlab.studies.pages import gallery, notebook_page
from vlmlab.studies.pages.gallery_table import comparison
from vlmlab.studies.pages.words import inline

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
ABOUT = """abstract = "AlignedNorm *teaches*."
reference = ["zero_shot"]

[words]
HM = "harmonic mean"
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
            "said": "fails",
            "verdict": "does not hold here",
            "survives": True,
            "effect": -0.8123,
            "unit": "points",
            "interval": [-1.3, -0.3],
            "by_seed": 0.2,
            "by_concept": 0.1,
            "seeds": 3,
            "concepts": 61,
            "detectable": 0.71,
            "p": 0.004,
            "evidence": ["tab1"],
            "reason": "",
            "kind": "measured",
        }
    ],
    "tested": 1,
    "expected_false": 0.05,
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
    (root / "notebooks/one/gallery.toml").write_text(ABOUT)
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
    alts = [alt for alt in alts if alt]  # the frame for large pictures is empty
    assert len(alts) == 1 and alts[0].startswith("A figure. mean 1.0") and EVIL in alts[0]


def test_missing_artefacts_are_named(project, page):
    assert "2 of 3 artefacts made; missing: Figure 2" in page.text
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
    assert choices == ["aligned_norm", "zero_shot", "mmrlpp"]  # AlignedNorm, CLIP, MMRL++


def test_a_claim_has_its_verdict_in_words_with_numbers(page):
    for text in (
        "does not hold here",
        "effect −0.812 points",
        "95 % interval −1.3 to −0.3",
        "could be seen from 0.71",
        "seeds 3",
        "test concepts 61",
        "p 0.004",
        "(survives correction)",
        "1 of 1 tests with an error keep their verdict",
        "Holds if new is above (difference above 0 points)",
        "1 does not hold here",
    ):
        assert text in page.text
    assert "#one/tab1" in page.all("href") and tuple(gallery.TONES) == SAID


def test_verdicts_stand_before_the_figures(page):
    assert page.text.index("1 does not hold here") < page.text.rindex("A figure")


def test_the_page_says_what_was_run(page):
    assert (
        "AlignedNorm teaches" in page.text and "Glossary: HM" in page.text and "2 runs of MMRL++" in page.text
    )
    assert "seeds 1, 2" in page.text and "numbers of all tables (CSV)" in page.text


def test_all_tables_are_in_one_file(project):
    with (project / "figures/one/numbers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert (
        len(rows) == 5
        and {row["artefact"] for row in rows} == {"tab1"}
        and rows[1]["published_average"] == "85.46"
    )


def test_executed_notebooks_are_pages(project):
    text = (project / "figures/one/notebooks/fig1.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.all("href") == ["data:,", "../../index.html#one/fig1"]
    assert "What r(x) is" in page.text and page.text.count(EVIL) == 2 and "mean 1.0" in page.text
    assert not {"script", "link"} & {tag for tag, _ in page.tags} - {"link"} and "default-src 'none'" in text


def test_a_notebook_page_shows_pictures_tables_and_text_only(tmp_path):
    outputs = [
        {"output_type": "display_data", "data": {"image/png": "iVBO\nRw==\n", "text/plain": "<Figure>"}},
        {
            "output_type": "execute_result",
            "data": {
                "text/html": f"<style>x</style><table><tr><th>a</th><td>1{EVIL}</td></tr></table><img src=x onerror=y>",
                "text/plain": "no",
            },
        },
        {"output_type": "execute_result", "data": {"text/html": EVIL, "text/plain": "plain"}},
        {"output_type": "stream", "name": "stderr", "text": ["\x1b[31mred\x1b[0m"]},
    ]
    cells = [
        {"cell_type": "code", "source": "1 < 2", "outputs": outputs},
        cell("markdown", f"*z_p* {EVIL} ![x](http://a/b)"),
    ]
    (tmp_path / "n.ipynb").write_text(json.dumps({"cells": cells}))
    notebook_page.save(tmp_path / "n.ipynb", tmp_path / "n.html", "n", "x.html")
    page = Page((tmp_path / "n.html").read_text(encoding="utf-8"))
    tags = [tag for tag, _ in page.tags]
    assert (
        page.all("src") == ["data:image/png;base64,iVBORw=="]
        and "script" not in tags
        and tags.count("em") == 1
    )
    assert not any("onerror" in attrs or "style" in attrs for _, attrs in page.tags)
    assert "1 < 2" in page.text and "plain" in page.text and "red" in page.text and "[31m" not in page.text
    (tmp_path / "n.ipynb").write_text("{")
    assert notebook_page.save(tmp_path / "n.ipynb", tmp_path / "n.html", "n", "x.html") is None


def test_contents_and_filters_say_what_things_are_called(project, page):
    text = (project / "figures/index.html").read_text(encoding="utf-8")
    contents = Page(re.search(r"<nav.*?</nav>", text, re.S)[0]).text
    assert "Figure 1" in contents and "fig1" not in contents
    assert [gallery.printed(id) for id in ("fig3a", "table11", "keys")] == ["Figure 3a", "Table 11", ""]
    assert re.search(r'name="method" value="mmrlpp"><span>MMRL\+\+</span>', text)


def test_a_study_is_filtered_by_its_name(tmp_path):
    for id, title in (("one", "First: a study of one"), ("two", "")):
        (tmp_path / f"notebooks/{id}").mkdir(parents=True)
        named = STUDY.replace('id = "one"', f'id = "{id}"').replace("<b>One</b> & only", title)
        (tmp_path / f"notebooks/{id}/study.toml").write_text(named)
        (tmp_path / f"notebooks/{id}/a.ipynb").write_text("{}")
    text = gallery.build(tmp_path / "figures", tmp_path / "notebooks").read_text(encoding="utf-8")
    assert re.findall(r'name="study" value="(\w*)"(?: checked)?><span>(\w+)</span>', text) == [
        ("", "all"),
        ("one", "First"),
        ("two", "two"),
    ]


def test_the_papers_order_comes_first():
    ids = ["training", "fig10", "table2", "fig3b", "fig3a", "keys", "table11", "fig1"]
    expected = ["fig1", "fig3a", "fig3b", "fig10", "table2", "table11", "training", "keys"]
    assert sorted(ids, key=gallery.in_order) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "|z_p| of *one* **two** `a_b`",
            "|z<sub>p</sub>| of <em>one</em> <strong>two</strong> <code>a_b</code>",
        ),
        ("L_proj, w_token, aligned_norm, a/b_c", "L<sub>proj</sub>, w<sub>token</sub>, aligned_norm, a/b_c"),
        ("<b>&</b> [x](javascript:y) 2 * 3 * 4", "&lt;b&gt;&amp;&lt;/b&gt; [x](javascript:y) 2 * 3 * 4"),
    ],
)
def test_words_are_rendered(text, expected):
    assert inline(text) == expected


def test_a_wrong_gallery_file_is_named(project, tmp_path):
    shutil.copytree(project / "notebooks", tmp_path / "notebooks")
    (tmp_path / "notebooks/one/gallery.toml").write_text("abstrct = 'x'")
    with pytest.raises(ValueError, match=r"gallery\.toml.*did you mean abstract"):
        gallery.build(tmp_path / "figures", tmp_path / "notebooks")


def test_a_commit_of_a_record_is_no_option_of_git():
    assert committed("--output=x") == "" == committed("0" * 40)


def test_a_file_without_a_record_is_not_trusted(project, tmp_path):
    out = tmp_path / "figures/one"
    out.mkdir(parents=True)
    (out / "fig1.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    gallery.build(tmp_path / "figures", project / "notebooks")
    text = part(tmp_path, "one/fig1")
    assert "Incomplete: there is no fig1.png" in text and "do not say where they came from" in text
    assert "demo scale" not in text


def numbers_of(table: dict, name: str) -> list[str | None]:
    """The values in one row, gains included."""
    cells = next(row["cells"] for row in table["rows"] if row["name"] == name)
    return [cell and cell["value"] for _, cell in cells]


def test_a_table_stands_as_in_a_paper():
    """Methods below each other, base and new side by side, measured and published apart, averages first."""
    average, animals = comparison(rows_of(TABLE), ["zero_shot"])
    assert average["columns"] == [
        ("measured", "base"),
        ("measured", "new"),
        ("published", "base"),
        ("published", "new"),
    ]
    assert (
        average["title"] == "average" and average["same"][0] == ("task", "average") and not average["folded"]
    )
    assert average["gain"] == {"over": "zero_shot", "column": "new", "kinds": ["measured"]}
    assert numbers_of(average, "aligned_norm") == ["59.13", "57.76", "85.46", "77.79", "−2.34"]
    assert numbers_of(average, "zero_shot") == ["52.30", "60.10", "69.34", None, None]
    assert animals["folded"] and numbers_of(animals, "aligned_norm") == ["56.57"]


def test_measured_minus_published_only_where_models_and_data_are_the_same():
    for same in (False, True):
        average, _ = comparison(rows_of(TABLE), ["zero_shot"], same)
        found = numbers_of(average, "aligned_norm")
        assert ("−20.03" in found) == ("difference" in average["gain"]["kinds"]) == same


def test_the_best_is_marked_where_the_spread_allows_it():
    head = "method,split,kind,mean,sd,n\n"
    (table,) = comparison(
        rows_of(head + "a,new,measured,50,1,3\nb,new,measured,52,1,3\ndelta,new,measured,99,0,3\n")
    )
    assert [bool(row["cells"][0][1].get("best")) for row in table["rows"]] == [False, True, False]
    for other in ("b,new,measured,50.5,1,3", "b,new,measured,52,1,1", "b,new,published,90,,"):
        found = comparison(rows_of(f"{head}a,new,measured,50,1,3\n{other}\n"))
        assert not [c for t in found for row in t["rows"] for _, c in row["cells"] if c and c.get("best")], (
            other
        )
    (cost,) = comparison(
        rows_of("method,metric,kind,mean,sd,n\na,s,measured,1,0,3\nb,s,measured,9,0,3\nb,m,measured,9,0,3\n")
    )
    assert not [
        c for row in cost["rows"] for _, c in row["cells"] if c and c.get("best")
    ]  # seconds: less is better


def test_other_tasks_are_other_tables():
    """Numbers of a paper about other data stand in a table of their own, with their tasks side by side."""
    found = comparison(
        rows_of(
            "method,task,split,kind,mean,sd,n,note\n"
            "a,food,source,measured,50,1,3,\na,noise,target,measured,40,1,3,\n"
            "a,imagenet,source,published,71.2,,,\na,average,target,published,60,,,\na,pets,target,published,90,,,\n"
        )
    )
    columns = [[name for _, name in table["columns"]] for table in found]
    assert columns == [["food", "noise"], ["imagenet", "pets", "average"]]
    assert [table["folded"] for table in found] == [False, False]


def test_tidy_numbers_stand_side_by_side_where_they_agree():
    tidy = rows_of(
        "method,split,shots,kind,mean,sd,n,note\n"
        "a,new,,published,77.7,,,as printed\na,new,16.0,measured,57.762408,0.398517,3.0,\n"
        "a,hm,,published,77.7912345678,,,\na,hm,16.0,measured,50,1,3.0,\n"
        "b,new,,planned,80,,,\nb,new,16.0,measured,,,,\n"
    )
    first, planned = comparison(tidy)
    assert numbers_of(planned, "b") == ["80"]
    assert numbers_of(first, "a") == ["57.76", "50.00", "77.70", "77.79"]
    new = first["rows"][0]["cells"]
    assert new[0][1]["spread"] == "0.40" and new[2][1]["mark"] == 1 and first["notes"] == ["as printed"]


def test_a_median_stands_with_its_quartiles_where_it_has_both():
    tidy = rows_of(
        "method,metric,kind,median,q1,q3,mean,sd,n,note\n"
        "a,s,measured,2.5,2.25,16.25,7,9,3,\nb,s,measured,1.5,1.25,,7,9,3,\nc,s,measured,,,,7,0.5,3,\n"
    )
    (table,) = comparison(tidy)
    cells = {row["name"]: row["cells"][0][1] for row in table["rows"]}
    assert [cells[m]["value"] for m in "abc"] == ["2.500", "1.500", "7.000"]
    assert [cells[m].get("spread") for m in "abc"] == ["2.250 to 16.250", None, "0.500"]


@pytest.mark.parametrize(
    ("value", "text"), [("0.04217", "0.0422"), ("7.0", "7.000"), ("-12.5", "−12.50"), ("nan", "nan")]
)
def test_measured_numbers_have_digits_by_their_size(value, text):
    (table,) = comparison(rows_of(f"method,measured_mean\na,{value}\n"))
    assert numbers_of(table, "a") == [text]


def test_what_all_numbers_share_is_said_once():
    head, rest = "method,split,shots,kind,mean,sd,n,note\n", ",16.0,measured,57.7,0.4,3.0,balanced accuracy\n"
    (table,) = comparison(rows_of(f"{head}a,base{rest}a,new{rest}b,base{rest}b,new{rest}"))
    assert table["same"] == [("shots", "16"), ("measured", "balanced accuracy"), ("seeds", "3")]
    assert table["notes"] == [] and len(table["rows"]) == 2


def test_a_list_without_kinds_is_shown_as_it_stands():
    (table,) = comparison(rows_of("dataset,classes,template\npets,37.0,a {}.\ndtd,47.0,{} texture.\n"))
    assert [name for _, name in table["columns"]] == ["classes", "template"]
    assert numbers_of(table, "dtd") == ["47", "{} texture."]


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
    shutil.copytree(ROOT / "figures", tmp_path / "figures")
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


@pytest.mark.parametrize(
    "claims", ["[1]", '[{"id": "a"}]', '{"a": 1}', "7", '[{"id": "a", "said": "maybe"}]']
)
def test_damaged_verdicts_are_named_by_file(tmp_path, claims):
    (tmp_path / "alignednorm").mkdir()
    (tmp_path / "alignednorm/claims.json").write_text(f'{{"claims": {claims}}}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"alignednorm/claims.json is damaged .*vlmlab claims alignednorm"):
        gallery.build(tmp_path, ROOT / "notebooks")


def test_rows_without_a_number_are_left_to_the_csv():
    """A group of them has no table, and the others keep theirs."""
    rows = [
        {"method": "a", "task": "x", "measured": "1.5"},
        {"method": "b", "task": "x", "measured": "2.5"},
        {"method": "c", "task": "y", "measured": ""},
    ]
    (found,) = comparison(rows)
    assert [row["name"] for row in found["rows"]] == ["a", "b"] and found["title"] == "x"
