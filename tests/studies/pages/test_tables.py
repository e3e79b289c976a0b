"""Tidy numbers become printed tables: what is marked, what never mixes, what is escaped."""

import re

import pandas as pd
import pytest

from vlmlab.studies import read_provenance, save_table
from vlmlab.studies.pages import by_seed, tables

NOTE = {"study": "alignednorm", "profile": "demo", "run_keys": ["b2", "a1"], "seeds": [2, 1]}


def results(**values):
    """Rows as `vlmlab.results` gives them: (base, new) per 'method, rule, task, seed'."""
    lines = []
    for name, pair in values.items():
        method, rule, task, seed = name.split("__")
        hm = 2 * pair[0] * pair[1] / sum(pair)
        lines += [
            {
                "method": method,
                "task": f"toy/{task}",
                "protocol": "base_to_new",
                "split": split,
                "shots": 4,
                "seed": int(seed),
                "rule": rule,
                "metric": "accuracy",
                "value": value,
            }
            for split, value in zip(("base", "new", "hm"), (*pair, hm))
        ]
    return pd.DataFrame(lines)


def tidy(*numbers, kind="measured", task="average"):
    """One row of a table: (method, mean, sd, n)."""
    lines = [(m, task, kind, mean, sd, n, "") for m, mean, sd, n in numbers]
    return tables.together(pd.DataFrame(lines, columns=["method", "task", *tables.NUMBERS]))


def listed(**values):
    """Numbers one by one: method -> its values by seed."""
    lines = [(m, "average", s, float(v)) for m, each in values.items() for s, v in enumerate(each, 1)]
    return pd.DataFrame(lines, columns=["method", "task", "seed", "value"])


def marks(**values):
    """What is marked of methods with these values by seed."""
    lower = values.pop("lower", ())
    each = listed(**values)
    frame = tables.together(by_seed.measured(each, ["method", "task"]))
    found = tables.printed(frame, ["task"], ["kind", "method"], each=each, lower=lower)[1]
    return found.iloc[0].tolist()


def test_methods_are_called_as_in_the_published_tables():
    found = by_seed.per_seed(
        results(
            mmrlpp__unified__a__1=(80, 60),
            mmrlpp__decoupled__a__1=(80, 70),
            aligned_norm__unified__a__1=(80, 65),
        ),
        "alignednorm",
    )
    assert set(found["method"]) == {"mmrlpp_unified", "mmrlpp", "aligned_norm"}
    few = by_seed.per_seed(results(mmrlpp__unified__a__1=(80, 60)), "alignednorm", "table4")
    assert set(few["method"]) == {"mmrlpp"}  # few-shot has no other rule, and its table one MMRL++


def test_variants_of_a_method_are_told_apart():
    rows = results(one__unified__a__1=(80, 60), two__unified__a__1=(70, 50)).assign(method="one")
    rows["variant"] = [""] * 3 + ["long"] * 3
    found = by_seed.per_seed(rows, "none")
    assert set(found["method"]) == {"one", "one_long"}
    assert by_seed.measured(found, ["method", "task", "split"])["n"].tolist() == [1] * len(found)


def test_the_average_is_that_of_papers():
    """The harmonic mean of the means, not the mean of the harmonic means."""
    found = by_seed.per_seed(results(one__unified__a__1=(90, 10), one__unified__b__1=(50, 70)), "none")
    average = found[found["task"] == "average"].set_index("split")["value"]
    assert average.to_dict() == {"base": 70, "new": 40, "hm": pytest.approx(2 * 70 * 40 / 110)}
    assert average["hm"] != pytest.approx(found[found["split"] == "hm"]["value"][:2].mean())


def test_an_average_over_some_tasks_only_is_an_error():
    with pytest.raises(ValueError, match="two has numbers for 1 of 2 tasks"):
        by_seed.per_seed(
            results(one__unified__a__1=(90, 10), one__unified__b__1=(50, 70), two__unified__a__1=(90, 10)),
            "none",
        )
    with pytest.raises(ValueError, match="one metric, got accuracy, other"):
        one = results(one__unified__a__1=(90, 10))
        by_seed.per_seed(pd.concat([one, one.assign(metric="other")]), "none")


def test_targets_have_an_average_and_their_source_has_none():
    """Trained on toy/a, tested on it and on two others: the average is that of the others."""
    lines = results(one__unified__a__1=(90, 10)).assign(protocol="cross_dataset")
    lines["split"] = ["toy/a", "toy/b", "toy/c"][: len(lines)]
    found = by_seed.per_seed(lines, "none").set_index(["split", "task"])["value"]
    assert found["source"].to_dict() == {"toy/a": 90}
    others = lines.set_index("split")["value"].drop("toy/a")
    assert found["target"].to_dict() == {**others, "average": others.mean()}


def test_the_mean_of_harmonic_means_has_a_row_of_its_own():
    seeds = by_seed.per_seed(results(one__unified__a__1=(90, 10), one__unified__b__1=(50, 70)), "none")
    found = by_seed.mean_of_hm(seeds).query("task == 'average'").set_index("split")["value"]
    assert found["mean_of_hm"] == pytest.approx((18 + 2 * 50 * 70 / 120) / 2)
    assert found["hm"] == pytest.approx(2 * 70 * 40 / 110)
    printed = by_seed.mean_of_hm(tables.published("alignednorm", "table1"))
    ours = printed[(printed["split"] == "mean_of_hm") & (printed["method"] == "aligned_norm")]
    assert ours["mean"].item() == pytest.approx(81.28, abs=0.01) and ours["kind"].item() == "published"


@pytest.mark.parametrize(
    ("gains", "wanted"),
    [
        ((1.0, 1.5, 2.0, 1.2, 1.4, 1.5), "a gain"),
        ((-1.0, -1.5, -2.0, -1.2, -1.4, -1.5), "a loss"),
        ((0.1, 3.0, 0.1, 3.0, 0.1, 3.0), "neither gain nor loss shown"),  # the seeds agree, the tasks do not
        ((0.1, 0.1, 2.0, 2.0, 4.0, 4.0), "neither gain nor loss shown"),  # three seeds, not six pairs
        ((0, 0, 0, 0, 0, 0), "neither gain nor loss shown"),
    ],
)
def test_a_gain_must_hold_over_pairs_and_over_seeds(gains, wanted):
    pairs = [(task, seed) for seed in (1, 2, 3) for task in "ab"]
    rows = [("one", task, seed, 50 + 10 * seed) for task, seed in pairs]
    rows += [("two", task, seed, 50 + 10 * seed + gain) for (task, seed), gain in zip(pairs, gains)]
    frame = pd.DataFrame(rows, columns=["method", "task", "seed", "value"])
    found = by_seed.compared(frame, "two", "one")
    assert found.endswith(f": {wanted}") and "over 6 pairs" in found and "(3 seeds)" in found
    assert f"{sum(gains) / 6:+.1f} points" in found and f"above 0 in {sum(g > 0 for g in gains)}" in found
    assert by_seed.compared(frame[frame["seed"] == 1], "two", "one").endswith("one seed shows nothing")


def test_measured_summaries():
    seeds = by_seed.per_seed(
        results(one__unified__a__1=(1, 2), one__unified__a__2=(3, 2), one__unified__a__3=(8, 2)), "none"
    )
    found = by_seed.measured(seeds, note="accuracy").set_index(["task", "split"])
    base = found.loc["toy/a", "base"]
    assert (base["mean"], base["n"], base["kind"], base["note"]) == (4, 3, "measured", "accuracy")
    assert base["sd"] == pytest.approx(13**0.5)  # the sample standard deviation
    with pytest.raises(ValueError, match=r"two values for .*'one'"):
        by_seed.measured(seeds, ["method"])


def test_published_numbers_have_no_spread():
    found = tables.published("alignednorm", "table1")
    best = found.set_index(["method", "task", "split"]).loc["aligned_norm", "average", "hm"]
    assert best["kind"] == "published" and best["mean"] == 81.45
    assert found["sd"].isna().all() and found["n"].isna().all()
    with pytest.raises(ValueError, match="measured numbers come from runs"):
        tables.stated(found, "measured")
    with pytest.raises(FileNotFoundError):
        tables.published("alignednorm", "table99")


def test_a_published_line_without_a_number_is_named(tmp_path):
    path = tmp_path / "published/fake/table1.csv"
    path.parent.mkdir(parents=True)
    path.write_text("method,dataset,value,note\na,x,1.5,\nb,x,,\n")
    with pytest.raises(ValueError, match=r"table1\.csv, line 3, value: must be a finite number; it is nan"):
        tables.published("fake", "table1", tmp_path)


HARD = {"a": (60, 70, 50), "b": (59, 69.1, 48.9), "c": (50, 60.5, 39.5)}  # seeds differ more than methods


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (HARD, ["best", "second", ""]),  # paired
        (HARD | {"b": (59, 71, 48)}, ["", "", ""]),  # not in every seed
        (HARD | {"c": (58, 70, 48)}, ["", "", ""]),  # c may be as good
        (HARD | {"c": (58.9, 69.2, 48.8)}, ["best", "", ""]),
        ({"a": (60, 70, 50), "b": (59, 69.1, 48.9)}, ["best", ""]),  # the last is no second best
        ({"a": (60, 60, 60), "b": (60, 60, 60), "c": (50, 50, 50)}, ["", "", ""]),  # a tie
        ({"a": (60,), "b": (55,)}, ["", ""]),  # one seed
        ({"a": (60, 61, 62), "b": (55,)}, ["", ""]),
    ],
)
def test_only_what_pairs_of_seeds_tell_apart_is_marked(values, wanted):
    assert marks(**values) == wanted
    turned = dict(reversed(values.items()))
    assert marks(**turned)[::-1] == wanted


def test_less_can_be_better():
    assert marks(**HARD, lower=["average"]) == ["", "second", "best"]


def test_nothing_is_marked_without_the_numbers_one_by_one():
    frame = tables.together(by_seed.measured(listed(**HARD), ["method", "task"]))
    assert tables.printed(frame, ["task"], ["kind", "method"])[1].iloc[0].tolist() == ["", "", ""]


def test_published_and_planned_are_never_marked_and_stand_apart():
    each = listed(a=(59, 60, 61), b=(54, 55, 56.1))
    whole = tables.together(
        tidy(("a", 60, 1, 3), ("b", 55, 1, 3)),
        tidy(("a", 90, None, None), kind="published"),
        tidy(("b", 95, None, None), kind="planned"),
    )
    names = {"a": "A", "average": "mean"}
    texts, found = tables.printed(whole, ["task"], ["kind", "method"], names=names, each=each)
    assert texts.loc["mean"].to_dict() == {
        ("measured", "A"): "60.0 ± 1.0",
        ("measured", "b"): "55.0 ± 1.0",
        ("published", "A"): "90.00",
        ("planned", "b"): "95.0",
    }
    assert found.loc["mean"].tolist() == ["best", "", "", ""]
    assert list(whole["n"].dropna()) == [3, 3] and whole["n"].dtype == "Int64"
    with pytest.raises(ValueError, match="measured and published never mix"):
        tables.printed(whole, ["task"], ["method"])
    with pytest.raises(ValueError, match="two numbers for"):
        tables.printed(whole, ["task"], ["kind"])
    with pytest.raises(ValueError, match="kind of measured, published, planned"):
        tables.together(whole, whole.assign(kind="guessed"))


def test_named_values_come_first_in_the_order_of_their_names():
    frame = tidy(("c", 1, 1, 2), ("b", 2, 1, 2), ("a", 3, 1, 2))
    texts, _ = tables.printed(frame, ["task"], ["kind", "method"], names={"a": "A", "b": "B"})
    assert [method for _, method in texts] == ["A", "B", "c"]


def save(tmp_path, frame, marks=None, **options):
    return save_table(frame, tmp_path, "table1", **NOTE, marks=marks, **options)


def cells(page):
    return re.findall(r"<td[^>]*>([^<]*)</td>", page.read_text())


def test_three_files_say_the_same(tmp_path):
    frame = tidy(("a", 60, 1, 3), ("b", 55, 1, 3), ("c", 50, 1, 3))
    texts, found = tables.printed(frame, ["task"], ["kind", "method"], each=listed(**HARD))
    csv, tex, page = save(tmp_path, texts, found, data=frame)
    assert [p.name for p in (csv, tex, page)] == ["table1.csv", "table1.tex", "table1.html"]
    assert pd.read_csv(csv)[["method", "mean"]].to_numpy().tolist() == [["a", 60], ["b", 55], ["c", 50]]
    assert r"average & \bfseries 60.0 ± 1.0 & \itshape 55.0 ± 1.0 & 50.0 ± 1.0 \\" in tex.read_text()
    assert cells(page) == ["60.0 ± 1.0", "55.0 ± 1.0", "50.0 ± 1.0"]
    styles = re.findall(r"#T_table1_row0_col(\d) \{\s*font-(\w+): (\w+);", page.read_text())
    assert styles == [("0", "weight", "bold"), ("1", "style", "italic")]
    assert "paired difference" in page.read_text() and "paired difference" in tex.read_text()
    for path in (csv, tex, page):
        assert read_provenance(path)["run_keys"] == ["a1", "b2"]
    before = [p.read_bytes() for p in (csv, tex, page)]
    assert [p.read_bytes() for p in save(tmp_path, texts, found, data=frame)] == before


def test_texts_are_escaped(tmp_path):
    frame = pd.DataFrame(
        {"H & M <b>": [81.234, None], "50 %": ["a_b", "{x}"]}, index=pd.Index(["mmrl_pp", "#1"], name="m & n")
    )
    csv, tex, page = save(tmp_path, frame, legend="a < b & c")
    text = tex.read_text()
    for words in (
        r"mmrl\_pp",
        r"H \& M",
        r"50 \%",
        r"a\_b",
        r"\{x\}",
        r"\#1",
        "81.23",
        "--",
        r"\toprule",
        r"\midrule",
        r"\bottomrule",
    ):
        assert words in text
    assert "<b>" not in page.read_text() and "H &amp; M &lt;b&gt;" in page.read_text()
    assert "<p>a &lt; b &amp; c</p>" in page.read_text() and "% a < b & c\n" in text
    assert pd.read_csv(csv, index_col=0).loc["mmrl_pp", "H & M <b>"] == 81.234


def test_a_counting_index_is_not_printed(tmp_path):
    _, tex, page = save(tmp_path, pd.DataFrame({"a": [5, 7]}))
    assert r"5 \\" in tex.read_text() and "0 &" not in tex.read_text()
    assert cells(page) == ["5", "7"] and "<th id=" not in page.read_text().split("<tbody>")[1]


def test_groups_of_rows_are_set_apart(tmp_path):
    index = pd.MultiIndex.from_product([["x", "y"], ["base", "new"]])
    _, tex, _ = save(tmp_path, pd.DataFrame({"a": list("1234")}, index))
    lines = tex.read_text().split("\\midrule\n")[1].splitlines()
    assert lines[:5] == [
        r"x & base & 1 \\",
        r" & new & 2 \\",
        r"\addlinespace",
        r"y & base & 3 \\",
        r" & new & 4 \\",
    ]


def test_an_empty_out_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert save_table(pd.DataFrame(), "", "t", **NOTE) == [] and list(tmp_path.iterdir()) == []
