"""What the gallery says of a study, part by part, and its pages of notebooks."""

import base64
import csv
import hashlib
import json
import re

import jinja2
import pytest

from vlmlab.studies import manifest
from vlmlab.studies.pages import about, gallery, notebook_page, words
from vlmlab.studies.pages.provenance import record

STUDY = """[study]
id = "one"
title = "Short: and long"

[[artefact]]
id = "keys"
title = "Keys"
notebook = "a.ipynb"
kind = "figure"

[[artefact]]
id = "table2"
title = "Second"
notebook = "a.ipynb"
kind = "table"

[[artefact]]
id = "table1"
title = "First"
notebook = "a.ipynb"
kind = "table"

[[artefact]]
id = "fig3a"
title = "Pictures"
notebook = "a.ipynb"
kind = "figure"

[profile.demo]
model = "tiny"
"""
NOTE = {"study": "one", "run_keys": ["k2", "k1"], "seeds": [1]}
CLAIM = {
    "id": "c",
    "said": "holds",
    "verdict": "holds",
    "kind": "measured",
    "survives": True,
    "effect": None,
    "unit": "",
    "interval": None,
    "detectable": None,
    "seeds": None,
    "concepts": None,
    "p": None,
    "evidence": [],
}


def claimed(**fields) -> dict:
    return CLAIM | fields


def png(width: int, height: int) -> bytes:
    """As far as the gallery reads one."""
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + width.to_bytes(4) + height.to_bytes(4)


@pytest.fixture
def study(tmp_path):
    folder = tmp_path / "notebooks/one"
    folder.mkdir(parents=True)
    (folder / "study.toml").write_text(STUDY)
    (folder / "a.ipynb").write_text("{}")
    return manifest.load("one", tmp_path / "notebooks")


def entries(study, figures) -> dict[str, dict]:
    return {e["name"]: e for e in gallery.section(study, figures)["entries"]}


def test_a_study_without_files(study, tmp_path):
    found = gallery.section(study, tmp_path / "figures")
    assert [e["name"] for e in found["entries"]] == ["fig3a", "table1", "table2", "keys"]
    assert [e["printed"] for e in found["entries"]] == ["Figure 3a", "Table 1", "Table 2", ""]
    assert (found["short"], found["extras"], found["numbers"], found["profile"]) == (
        "Short",
        "one/keys",
        "",
        "",
    )
    assert found["claims"] == [] and found["verdicts"] == {} and found["survive"] == 0
    assert found["tested"] == {"tested": None, "expected_false": None}
    nothing = {
        "profiles": [],
        "seeds": [],
        "methods": [],
        "tasks": [],
        "runs": 0,
        "commits": [],
        "dirty": False,
    }
    assert found["ran"] == nothing
    for entry in found["entries"]:
        assert entry["missing"] and not entry["image"] and entry["size"] is None and entry["record"] is None
        assert entry["links"] == [("source notebook", "../notebooks/one/a.ipynb")] and entry["tables"] == []
        assert entry["alt"] == f"{entry['title']}."
    assert entries(study, tmp_path / "figures")["table1"]["lacks"] == ["table1.csv", "table1.tex"]


def test_what_an_artefact_shows_of_its_files(study, tmp_path):
    out = tmp_path / "figures/one"
    (out / "notebooks").mkdir(parents=True)
    (out / "fig3a.png").write_bytes(png(400, 200))
    for profile, name in (("paper", "table1"), ("demo", "table2")):
        (out / f"{name}.tex").write_text(f"%{record(artefact=name, profile=profile, **NOTE)}\n")
        for suffix in ("html", "pdf"):
            (out / f"{name}.{suffix}").write_text("")
        (out / f"{name}.csv").write_text(
            "method,split,measured,published\nb_a,x,5.5,4\nb_a,y,1.5,4\ncoop,x,2.5,1\n"
        )
    parts = {"run coop toy/a 4-shot seed 1 (abc)": "k1 d", "run mmrl toy/b seed 2 (d)": "", "notebook": "k2"}
    (out / ".state.json").write_text(json.dumps({"table1": {"parts": parts}, "table2": 5}))
    (out / "notebooks/fig3a.failed.ipynb").write_text("{}")
    (out / "notebooks/keys.ipynb").write_text("[")
    found = entries(study, tmp_path / "figures")
    figure = found["fig3a"]
    assert (figure["image"], figure["size"], figure["missing"]) == ("one/fig3a.png", (270, 135), False)
    assert figure["lacks"] == ["fig3a.svg"] and figure["rows"] == []
    assert figure["links"] == [
        ("PNG", "one/fig3a.png"),
        ("last failure", "one/notebooks/fig3a.failed.ipynb"),
        ("source notebook", "../notebooks/one/a.ipynb"),
    ]
    assert [name for name, _ in found["keys"]["links"]] == ["executed notebook (.ipynb)", "source notebook"]
    table = found["table1"]
    assert [name for name, _ in table["links"][:-1]] == ["data (CSV)", "LaTeX", "PDF", "HTML"]
    assert table["runs"] == {"k1": "coop toy/a 4-shot seed 1", "k2": ""} and table["methods"] == [
        "b_a",
        "coop",
    ]
    assert found["table2"]["runs"] == {"k1": "", "k2": ""} and not table["missing"]
    assert [t["gain"] and t["gain"]["kinds"] for t in table["tables"]] == [["difference"]]
    assert [t["gain"] for t in found["table2"]["tables"]] == [None]  # other models: no difference
    whole = gallery.section(study, tmp_path / "figures")
    assert whole["ran"]["runs"] == 2 and whole["ran"]["profiles"] == ["demo", "paper"]
    assert whole["ran"]["methods"] == ["coop"] and whole["ran"]["tasks"] == ["toy/a"]
    assert whole["numbers"] == "one/numbers.csv"


def test_verdicts_are_counted_by_kind_best_first():
    told = [("fails", "measured"), ("holds", "published"), ("holds", "measured"), ("open", "measured")]
    told += [("fails", "measured"), ("fails", "published"), ("untestable", "measured")]
    claims = [{"verdict": f"it {s}", "tone": gallery.TONES[s], "kind": k} for s, k in told]
    found = gallery.counted(claims)
    assert [(kind, list(of.items())) for kind, of in found.items()] == [
        (
            "measured",
            [
                (("it holds", "good"), 1),
                (("it fails", "bad"), 2),
                (("it open", "open"), 1),
                (("it untestable", "none"), 1),
            ],
        ),
        ("published", [(("it holds", "good"), 1), (("it fails", "bad"), 1)]),
    ]


def test_claims_stand_in_the_order_of_their_verdicts_and_some_survive(study, tmp_path):
    told = [
        ("open", True),
        ("untestable", True),
        ("fails", True),
        ("holds", False),
        ("holds", True),
        ("fails", None),
    ]
    claims = [claimed(id=f"c{i}", said=said, survives=kept) for i, (said, kept) in enumerate(told)]
    out = tmp_path / "figures/one"
    out.mkdir(parents=True)
    told = {"profile": "demo", "claims": claims, "tested": 4, "expected_false": 0.2, "other": 1}
    (out / "claims.json").write_text(json.dumps(told))
    found = gallery.section(study, tmp_path / "figures")
    assert [c["id"] for c in found["claims"]] == ["c3", "c4", "c2", "c5", "c0", "c1"]
    assert found["survive"] == 2 and found["profile"] == "demo"
    assert found["tested"] == {"tested": 4, "expected_false": 0.2}


def test_a_claim_has_its_numbers_in_words(study):
    raw = claimed(
        said="fails",
        effect=-0.8123,
        unit="points",
        interval=[-1.3, 12.0],
        detectable=1234.0,
        seeds=3,
        concepts=61,
        p=0.00401,
        evidence=["fig3a", "keys", "runs/main"],
    )
    found = gallery.claim(raw, study)
    assert found["numbers"] == {
        "effect": "−0.812 points",
        "95 % interval": "−1.3 to 12",
        "could be seen from": "1.23e+03",
        "seeds": "3",
        "test concepts": "61",
        "p": "0.00401",
    }
    assert found["evidence"] == [("Figure 3a", "one/fig3a"), ("Keys", "one/keys"), ("runs/main", "")]
    assert found["tone"] == "bad"
    assert gallery.claim(claimed(effect=2.0), study)["numbers"] == {"effect": "2"}
    assert gallery.claim(claimed(unit="points"), study)["numbers"] == {}


def test_what_was_run_is_told_once(monkeypatch):
    monkeypatch.setattr(gallery, "committed", lambda commit: f"day of {commit[:2]}")
    records = [
        {"profile": "demo", "seeds": [3, 1], "git": {"commit": "bb345678901", "dirty": False}},
        {"profile": "demo", "seeds": [1], "git": {"commit": "aa345678901"}},
        {"profile": "alpha", "seeds": [2], "git": {"commit": None, "dirty": None}},
        {"profile": "demo", "seeds": [2], "git": {"commit": "bb345678901", "dirty": True}},
    ]
    runs = [
        {"k1": "mmrl toy/b 4-shot seed 1"},
        {"k1": "mmrl toy/b", "k2": ""},
        {},
        {"k3": "coop toy/a", "k4": "own"},
    ]
    found = gallery.ran([{"record": r, "runs": k} for r, k in zip(records, runs)])
    assert found == {
        "profiles": ["alpha", "demo"],
        "seeds": [1, 2, 3],
        "methods": ["coop", "mmrl"],
        "tasks": ["toy/a", "toy/b"],
        "runs": 4,
        "commits": [("bb34567890", "day of bb"), ("aa34567890", "day of aa")],
        "dirty": True,
    }
    assert gallery.ran([{"record": records[1], "runs": {}}])["dirty"] is False


def test_numbers_of_all_tables_in_one_file(tmp_path, monkeypatch):
    study = {
        "entries": [
            {"name": "t1", "rows": [{"a": "1", "b": "2"}]},
            {"name": "fig", "rows": []},
            {"name": "t2", "rows": [{"b": "3", "c": "x,y"}]},
        ]
    }
    path = tmp_path / "numbers.csv"
    gallery.save_numbers(study, path)
    assert path.read_bytes() == b'artefact,a,b,c\nt1,1,2,\nt2,,3,"x,y"\n'
    monkeypatch.setattr(gallery, "write", lambda *_: pytest.fail("the same is not written again"))
    gallery.save_numbers(study, path)
    gallery.save_numbers({"entries": study["entries"][1:2]}, tmp_path / "none.csv")
    assert [p.name for p in tmp_path.iterdir()] == ["numbers.csv"]


def test_a_damaged_table_is_read_as_far_as_it_goes(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"a,b,\n1,\xff,3\n4\n")
    assert gallery.read_csv(tmp_path / "t.csv") == [{"a": "1", "b": "\ufffd"}, {"a": "4", "b": ""}]


def test_the_first_whole_record_counts(tmp_path):
    (tmp_path / "a.tex").write_text("% none\n")
    for name in "bc":
        (tmp_path / f"{name}.tex").write_text(f"%{record(artefact=name, profile='demo', **NOTE)}\n")
    assert gallery.provenance([tmp_path / f"{n}.tex" for n in "abc"])["artefact"] == "b"
    assert gallery.provenance([tmp_path / "a.tex"]) is None is gallery.provenance([])


@pytest.mark.parametrize(
    ("rows", "runs", "methods"),
    [
        ([{"method": "b"}, {"method": ""}, {"method": "a"}, {"method": "b"}], {"k": "c toy"}, ["b", "a"]),
        ([{"other": "b"}], {"k": "d toy", "l": "", "m": "c toy", "n": "d toy/b"}, ["c", "d"]),
        ([], {}, []),
    ],
)
def test_methods_are_those_of_the_data_or_else_of_the_runs(rows, runs, methods):
    assert gallery.methods_of(rows, runs) == methods


@pytest.mark.parametrize("data", [None, b"", png(400, 200)[:-1], b"GIF" + bytes(40)])
def test_what_is_no_picture_has_no_size(tmp_path, data):
    path = tmp_path / "a.png"
    path.write_bytes(data or b"")
    assert gallery.size(data and path) is None


def cells(*kinds_and_texts) -> list[dict]:
    found = [{"cell_type": kind, "source": list(text)} for kind, text, *_ in kinds_and_texts]
    for cell, (_, _, *outputs) in zip(found, kinds_and_texts):
        cell["outputs"] = [{"name": name, "text": text} for name, text in outputs]
    return found


def test_texts_of_a_notebook():
    made = cells(
        ("code", "1", ("stdout", "before\n")),
        ("markdown", "# Title\n\nWhat it is.\n"),
        ("code", "2", ("stdout", "between\n")),
        ("markdown", "Reading."),
        ("code", "3", ("stderr", "a warning\n"), ("stdout", [" one\n", "\n", "two\n"])),
        ("code", "4", ("stdout", "three")),
    )
    assert gallery.caption(made) == "What it is."
    assert gallery.reading(made) == ["one", "two", "three"]
    assert gallery.reading(made[:3]) == []  # the only text says what it is, not how to read it
    assert gallery.caption(made[:1]) == "" and gallery.reading([]) == []


def test_templates_escape_and_know_their_filters():
    env = gallery.environment()
    assert env.from_string("{% if true %}\n  {{ x }}\n  {% endif %}\nb").render(x="<a>") == "  &lt;a&gt;\nb"
    text = "{{ 'z_p'|inline }} {{ '*a*'|block }} {{ 'coop'|label }}"
    assert env.from_string(text).render() == "z<sub>p</sub> <p><em>a</em></p>\n CoOp"
    with pytest.raises(jinja2.UndefinedError, match="nothing"):
        env.from_string("{{ nothing }}").render()


@pytest.mark.parametrize(
    ("profile", "badge", "words"), [("smoke", "smoke run", "mean nothing"), ("demo", "demo scale", "on a laptop"),
                                    ("paper", "paper scale", "schedules of the paper"), ("own", "profile own", "")]
)  # fmt: skip
def test_scales_are_explained_and_style_and_script_are_allowed(study, tmp_path, profile, badge, words):
    out = tmp_path / "figures/one"
    out.mkdir(parents=True)
    (out / "table1.tex").write_text(f"%{record(artefact='table1', profile=profile, **NOTE)}\n")
    (out / "table1.csv").write_text("method,planned\ncoop,5\n")
    (out / "claims.json").write_text(json.dumps({"profile": profile, "claims": []}))
    text = gallery.build(tmp_path / "figures", tmp_path / "notebooks").read_text(encoding="utf-8")
    assert f"<strong>{badge}</strong>" in text and words in text
    for tag in ("style", "script"):
        inside = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.S)[1]
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert inside.strip() and f"{tag}-src 'sha256-{digest}'" in text
    with (out / "numbers.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [{"artefact": "table1", "method": "coop", "planned": "5"}]


# ----------------------------------------------------------------------------- pages of notebooks


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ({"data": {"image/jpeg": ["/9j\n", "4"]}}, {"kind": "image", "source": "data:image/jpeg;base64,/9j4"}),
        ({"data": {"image/png": "iV B", "text/html": "<table>"}}, {"kind": "image", "source": "data:image/png;base64,iVB"}),
        ({"data": {"text/plain": ["a", "b"]}}, {"kind": "print", "text": "ab"}),
        ({"text": "said", "data": {"text/plain": "no"}}, {"kind": "print", "text": "said"}),
        ({"name": "stdout", "text": ["a\n"]}, {"kind": "print", "text": "a\n"}),
        ({"name": "stderr", "text": "a"}, {"kind": "warning", "text": "a"}),
        ({"traceback": ["\x1b[0;31mError\x1b[0m", " here"]}, {"kind": "print", "text": "Error here"}),
        ({"text": " \n"}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_what_is_shown_of_an_output(raw, shown):
    assert notebook_page.output(raw) == shown


def test_a_table_keeps_its_words_and_spans():
    page = """<td>no table</td><p>no</p><table class="x"><td>no row</td><caption>no</caption>
    <tr><th colspan="2">a <b>bold</b>\xa0</th><th rowspan="3" style="x">c</th> between </tr>
    <tr><td colspan="x" rowspan>1</td><td></td></tr></table> after <table><tr><td>other</td></tr></table>"""
    one = {"text": "", "colspan": 1, "rowspan": 1}
    assert notebook_page.Tables(page).found == [
        [
            [
                {"tag": "th", "text": "a bold".replace(" ", ""), "colspan": 2, "rowspan": 1},
                {"tag": "th", "text": "c", "colspan": 1, "rowspan": 3},
            ],
            [one | {"tag": "td", "text": "1"}, one | {"tag": "td"}],
        ],
        [[one | {"tag": "td", "text": "other"}]],
    ]


def test_a_page_of_a_notebook_is_written_once(tmp_path, monkeypatch):
    table = "<table><tr><th colspan='2'>a</th><td rowspan='3'>b</td><td>c</td></tr></table>"
    made = [
        {"cell_type": "markdown", "source": ["**text**"], "outputs": [{"text": "of no code"}]},
        {"cell_type": "code", "source": ["for x in y:"], "outputs": [{"data": {"text/html": [table]}}, {}]},
        {"cell_type": "code", "source": ""},
    ]
    (tmp_path / "n.ipynb").write_text(json.dumps({"cells": made}))
    path = tmp_path / "n.html"
    assert notebook_page.save(tmp_path / "n.ipynb", path, "a & b", "x.html#y") == path
    text = path.read_text(encoding="utf-8")
    assert (
        '<th colspan="2">a</th><td rowspan="3">b</td><td>c</td>' in text and "<strong>text</strong>" in text
    )
    assert "of no code" not in text and "<title>a &amp; b</title>" in text and 'href="x.html#y"' in text
    assert '<pre class="code"><code><span class="k">for</span>' in text  # in no element of its own
    style = re.search(r"<style>(.*?)</style>", text, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert ".k" in style and f"style-src 'sha256-{digest}'" in text
    monkeypatch.setattr(notebook_page, "write", lambda *_: pytest.fail("the same is not written again"))
    assert notebook_page.save(tmp_path / "n.ipynb", path, "a & b", "x.html#y") == path
    for damaged in ('{"cells": 1}', "[]", "{}", '{"cells": [{}]}', '{"cells": [1]}'):
        (tmp_path / "n.ipynb").write_text(damaged)
        assert notebook_page.save(tmp_path / "n.ipynb", path, "n", "x") is None


def test_markdown_of_others_is_text_and_tables():
    assert words.block("| a_b |\n|---|\n| z_p |").count("<table>") == 1
    assert "z<sub>p</sub>" in words.block("| a |\n|---|\n| z_p |")
    assert words.block("<b>x</b> ![i](u)") == '<p>&lt;b&gt;x&lt;/b&gt; !<a href="u">i</a></p>\n'
    assert (
        words.block("    x_a\n    y_b") == "<pre><code>x_a\ny_b\n</code></pre>\n"
    )  # code over several lines
    assert words.inline("∇_theta `q_x` r_y") == "∇<sub>theta</sub> <code>q_x</code> r<sub>y</sub>"


def test_names_are_those_of_the_study_or_else_those_of_all(tmp_path):
    path = tmp_path / "published/fake/methods.csv"
    path.parent.mkdir(parents=True)
    path.write_text("id,name\nown,Our Own\ncoop,not this\ndelta,what it gains\n", encoding="utf-8")
    names = about.Names("fake", tmp_path)
    printed = {n: names(n) for n in ("own", "coop", "delta", "mean_of_hm", "other")}
    assert printed == {
        "own": "Our Own",
        "coop": "CoOp",
        "delta": "gain",
        "mean_of_hm": "mean of HMs",
        "other": "other",
    }
    assert names.legend == {"delta": "what it gains"}
    assert about.Names("none", tmp_path).legend == {} and about.Names("none", tmp_path)("delta") == "gain"


def test_a_wrong_gallery_file_is_named_by_line(study):
    study.path.with_name("gallery.toml").write_text('abstract = "x"\n\nreference = 3\n')
    with pytest.raises(ValueError, match=r"gallery\.toml, line 3, gallery\.reference"):
        about.about(study)
    study.path.with_name("gallery.toml").write_text('reference = ["a"]\n[words]\nHM = "x"\n')
    found = about.about(study)
    assert (found.abstract, found.reference, found.words) == ("", ("a",), {"HM": "x"})
