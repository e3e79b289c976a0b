"""Numbers of runs become numbers of tables: how methods are called, what averages are over, what is marked and printed."""

import math
import types

import numpy as np
import pandas as pd
import pytest
import scipy.stats

import vlmlab.models.load
from vlmlab.studies.pages import (
    artefact,
    best,
    by_seed,
    costs,
    intervals,
    readings,
    state,
    table_damage,
    tables,
)
from vlmlab.train import run as runs

ABOUT = ["method", "task", "protocol", "split", "shots", "seed"]


@pytest.mark.parametrize(
    ("rule", "known", "name"),
    [
        ("unified", (), "m"),
        ("decoupled", (), "m_decoupled"),
        ("unified", ("m_unified",), "m_unified"),
        ("decoupled", ("m_unified",), "m"),
        ("decoupled", ("m_unified", "m_decoupled"), "m_decoupled"),
        ("unified+per_target", (), "m_per_target"),
        ("decoupled+per_target", (), "m_decoupled_per_target"),
        ("decoupled+per_target", ("m_unified",), "m_per_target"),
        ("unified+best_epoch", ("other_unified",), "m_best_epoch"),
    ],
)
def test_a_method_with_a_rule_is_called(rule, known, name):
    assert by_seed.with_rule("m", rule, {*known}) == name


def results(*lines, metric="accuracy", rule="unified", protocol="base_to_new"):
    """(method, task, split, shots, seed, value) of each."""
    frame = pd.DataFrame(lines, columns=["method", "task", "split", "shots", "seed", "value"])
    return frame.assign(metric=metric, rule=rule, protocol=protocol)


def average(found, *columns):
    rows = found[found["task"] == "average"]
    return rows[[*(columns or ("split", "value"))]].to_numpy().tolist()


def test_averages_without_shots_or_without_harmonic_means_are_there():
    lines = [
        ("zero_shot", t, s, None, 1, v)
        for t, s, v in (("a", "base", 10), ("a", "new", 20), ("b", "base", 30), ("b", "new", 60))
    ]
    found = by_seed.per_seed(results(*lines), "none")
    assert average(found) == [["base", 20.0], ["new", 40.0]] and [*found] == [*ABOUT, "value"]
    assert [*found.index] == list(range(6)) and found["shots"].isna().all()
    whole = [*lines, *(("zero_shot", t, "hm", None, 1, 1.0) for t in "ab")]
    (hm,) = [v for s, v in average(by_seed.per_seed(results(*whole), "none")) if s == "hm"]
    assert hm == pytest.approx(2 * 20 * 40 / 60)
    assert [s for s, _ in average(by_seed.per_seed(results(*whole), "none"))] == ["base", "new", "hm"]
    half = [line for line in whole if line[2] != "base"]
    assert average(by_seed.per_seed(results(*half), "none")) == [["new", 40.0], ["hm", 1.0]]
    measured = by_seed.measured(found, ["method", "task", "split", "shots"])
    assert len(measured) == 6 and measured["sd"].isna().all() and measured["n"].tolist() == [1] * 6
    assert measured["task"].tolist() == ["a", "a", "b", "b", "average", "average"]  # as they come
    assert measured["note"].tolist() == [""] * 6


def test_draws_beside_each_other_are_averaged_column_by_column():
    rows = results(("m", "a", "test", 4, 1, 0), ("m", "b", "test", 4, 1, 0)).drop(columns="value")
    rows[0], rows[1] = [10.0, 20.0], [1.0, 5.0]
    found = by_seed.per_seed(rows, "none")
    assert average(found, 0, 1) == [[15.0, 3.0]] and [*found] == [*ABOUT, 0, 1]


def test_an_average_needs_the_tasks_of_its_own_test_alone():
    lines = [("m", "a", "x", 4, 1, 1.0), ("m", "b", "x", 4, 1, 2.0), ("m", "a", "y", 4, 1, 5.0)]
    assert average(by_seed.per_seed(results(*lines), "none")) == [["x", 1.5], ["y", 5.0]]
    with pytest.raises(ValueError, match="n has numbers for 1 of 2 tasks"):
        by_seed.per_seed(results(*lines, ("n", "a", "x", 4, 1, 1.0)), "none")


@pytest.mark.parametrize("protocol", ["cross_dataset", "domain_shift"])
def test_what_is_tested_elsewhere_is_its_own_task(protocol):
    lines = [("m", "a", "a", 4, 1, 1.0), ("m", "a", "b", 4, 1, 2.0), ("m", "a", "c", 4, 1, 4.0)]
    found = by_seed.per_seed(results(*lines, protocol=protocol), "none")
    assert found[["task", "split", "value"]].to_numpy().tolist() == [
        ["a", "source", 1.0],
        ["b", "target", 2.0],
        ["c", "target", 4.0],
        ["average", "target", 3.0],
    ]


def test_a_published_table_needs_a_column_of_methods(tmp_path):
    path = tmp_path / "published/fake/methods.csv"
    path.parent.mkdir(parents=True)
    rows = results(("m", "a", "x", 4, 1, 1.0), rule="decoupled")
    for head in ("id,other", "method,other"):
        path.write_text(f"{head}\nm_unified,1\n")
        assert set(by_seed.per_seed(rows, "fake", data=tmp_path)["method"]) == {"m"}
    path.write_text("name,other\nm_unified,1\n")
    with pytest.raises(ValueError, match=r"methods\.csv has no column id or method"):
        by_seed.per_seed(rows, "fake", data=tmp_path)
    assert set(by_seed.per_seed(rows, "fake", "table9", tmp_path)["method"]) == {"m_decoupled"}


def test_the_mean_of_harmonic_means_is_by_method_and_seed():
    lines = [
        ("a", "x", 1, 1),
        ("a", "y", 1, 3),
        ("a", "x", 2, 5),
        ("a", "y", 2, 5),
        ("b", "x", 1, 7),
        ("a", "average", 1, 99),
    ]
    frame = pd.DataFrame(lines, columns=["method", "task", "seed", "value"]).assign(
        split="hm", protocol="p", note=""
    )
    found = by_seed.mean_of_hm(frame.assign(shots=[4.0] * 4 + [np.nan, 4.0]))
    assert [*found.index] == list(range(9))
    more = found.iloc[6:]
    assert more[["method", "task", "split", "seed", "value"]].to_numpy().tolist() == [
        ["a", "average", "mean_of_hm", 1, 2.0],
        ["a", "average", "mean_of_hm", 2, 5.0],
        ["b", "average", "mean_of_hm", 1, 7.0],
    ]
    assert set(more["note"]) == {"mean of the harmonic means"}


def test_a_gain_is_told_with_both_intervals():
    gains = {("x", 1): 1.0, ("y", 1): 2.0, ("x", 2): 1.5, ("y", 2): 0.0, ("x", 3): 2.5, ("y", 3): 1.0}
    rows = [
        {"method": m, "task": t, "seed": s, "value": 50 + g * (m == "a")}
        for (t, s), g in gains.items()
        for m in "ab"
    ]
    rows += [{"method": "a", "task": "z", "seed": 1, "value": 999.0}]  # no pair
    found = by_seed.compared(pd.DataFrame(rows), "a", "b")

    def interval(values):
        half = scipy.stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
        return f"{np.mean(values) - half:+.1f} to {np.mean(values) + half:+.1f}"

    seeds = [np.mean([g for (_, s), g in gains.items() if s == seed]) for seed in (1, 2, 3)]
    assert found == (
        f"+1.3 points over 6 pairs, above 0 in 5; 95 % intervals {interval([*gains.values()])} (pairs), "
        f"{interval(seeds)} (3 seeds): a gain"
    )


def test_an_estimate_over_seeds():
    found = intervals.over_seeds(pd.Series([1.0, 2.0, None, 6.0]), "said")
    half = scipy.stats.t.ppf(0.975, 2) * math.sqrt(7) / math.sqrt(3)
    assert found == intervals.Estimate(
        3.0, pytest.approx(math.sqrt(7)), pytest.approx(3 - half), pytest.approx(3 + half), 3, "said"
    )
    assert intervals.over_seeds(pd.Series([2.0, None]), "one") == intervals.Estimate(2.0, n=1, note="one")
    with pytest.raises(LookupError):
        intervals.over_seeds(pd.Series([None], dtype=float))
    assert intervals.over_seeds(pd.Series([1.0, 1.0])).low == 1.0


def tidy(*cells):
    """(method, metric, mean) of measured numbers."""
    frame = pd.DataFrame(cells, columns=["method", "metric", "mean"])
    return frame.assign(kind="measured", sd=0.0, n=3, note="")


@pytest.mark.parametrize(
    ("shift", "marks"),
    [({}, ["best", "second", ""]), ({"a": 3e-10, "b": 0, "c": 0}, ["", "", ""]), ({"a": 1, "b": 0, "c": 0}, ["best", "", ""])],
)  # fmt: skip
def test_marks_need_no_column_but_the_methods(shift, marks):
    values = shift or {"a": 3, "b": 2, "c": 1}
    each = pd.DataFrame(
        [{"method": m, "seed": s, "value": v + 0.1 * s} for m, v in values.items() for s in (1, 2, 3)]
    )
    frame = tidy(*((m, "x", v) for m, v in values.items()))
    assert best.marks(frame, each, ["kind"], ["method"]) == marks
    assert best.marks(frame, None, ["kind"], ["method"]) == ["", "", ""]
    assert (
        best.marks(frame.assign(mean=[None, 2, 1]), each, ["kind"], ["method"])[0] == ""
    )  # no number, no mark


def test_each_cell_is_marked_by_itself_and_less_is_better_where_that_is_said():
    cells = [
        ("a", "x", 3),
        ("b", "x", 1),
        ("a", "ms", 3),
        ("b", "ms", 1),
        ("a", None, 3),
        ("b", None, 1),
        ("a", "z", 3),
        ("b", "z", 1),
    ]
    each = pd.DataFrame(
        [{"method": m, "metric": k, "seed": s, "value": v + 0.1 * s} for m, k, v in cells[:6] for s in (1, 2)]
    )
    found = best.marks(tidy(*cells), each, ["metric"], ["kind", "method"], lower=["ms"])
    assert found == ["best", "", "", "best", "best", "", "", ""]  # nothing is known of z one by one
    missing = each[(each["method"] == "a") | (each["metric"] != "x")]
    assert best.marks(tidy(*cells), missing, ["metric"], ["kind", "method"])[:2] == ["", ""]


def test_printed_texts_and_the_order_of_values():
    frame = pd.DataFrame(
        [("b", "new", "measured", 1234.5, 0.06, 3), ("a", "base", "published", -2.344, None, None), ("b", "base", "planned", None, None, None)],
        columns=["method", "split", "kind", "mean", "sd", "n"],
    ).assign(note="")  # fmt: skip
    texts, marks = tables.printed(
        tables.together(frame), ["method"], ["split", "kind"], names={"base": "Base", "a": "A"}
    )
    assert [*texts.index] == ["A", "b"]
    assert [*texts] == [("Base", "published"), ("Base", "planned"), ("new", "measured")]
    assert texts.to_numpy().tolist() == [["-2.34", "", ""], ["", "", "1,234.5 ± 0.1"]]
    assert (marks == "").all(axis=None) and marks.shape == texts.shape
    digits = {"measured": 3, "published": 0, "planned": 1}
    texts, _ = tables.printed(frame, ["method"], ["split", "kind"], digits=digits)
    assert {*texts.to_numpy().ravel()} == {"", "1,234.500 ± 0.060", "-2"}


def test_times_in_rounds_and_counts_as_rows():
    import xarray as xr

    times = xr.DataArray([[1.0, 4.0], [2.0, 6.0]], {"round": [5, 7], "call": ["a", "b"]}, ("round", "call"))
    rows = costs.in_rounds(times, "ms", {"over b": "b"})
    assert [*rows.index] == list(range(8)) and rows[
        ["metric", "method", "seed", "value"]
    ].to_numpy().tolist() == [
        ["ms", "a", 5, 1.0],
        ["ms", "b", 5, 4.0],
        ["ms", "a", 7, 2.0],
        ["ms", "b", 7, 6.0],
        ["over b", "a", 5, 0.25],
        ["over b", "b", 5, 1.0],
        ["over b", "a", 7, pytest.approx(1 / 3)],
        ["over b", "b", 7, 1.0],
    ]
    counted = costs.counted({"b": {"size": 3, "gflop": 2.5}, "a": {"size": 4}})
    assert counted.to_numpy().tolist() == [["b", "size", 0, 3], ["b", "gflop", 0, 2.5], ["a", "size", 0, 4]]
    about = {"device": "d", "threads": 2, "dtype": "t", "batch": 8}
    spread = costs.spread(rows, about)
    assert len(spread) == 4
    first = spread.set_index(["method", "metric"]).loc[("a", "ms")]
    assert first[["median", "q1", "q3", "mean", "n"]].tolist() == [1.5, 1.25, 1.75, 1.5, 2]
    assert (first["kind"], first["sd"]) == ("measured", pytest.approx(0.5**0.5))
    table = costs.printed(spread, {"over b": ("ratio", 2), "ms": ("ms", 0)}, {"b": "B"})
    assert [*table.index] == [("measured", "B"), ("measured", "a")] and [*table] == ["ratio", "ms"]
    assert table.to_numpy().tolist() == [["1.00 [1.00, 1.00]", "5 [4, 6]"], ["0.29 [0.27, 0.31]", "2 [1, 2]"]]


def test_what_ends_below_is_told_with_its_numbers():
    lines = [(m, s, v) for m, values in (("zero_shot", (60, 50, 54.5)), ("coop", (62, 45, 52.1)), ("own", (60, 50, 54.5)))
             for s, v in zip(("base", "new", "hm"), values)]  # fmt: skip
    rows = pd.DataFrame(lines, columns=["method", "split", "value"]).assign(task="average")
    told = (
        "CoOp ends 2.4 points of HM below CLIP, the model without training: +2.0 on the classes it was trained on, "
        "-5.0 on new ones; what it learns of its own classes costs more on the others."
    )
    assert readings.below(rows) == [told]  # what is equal is not below
    (first, second) = readings.below(rows, "own", {"coop": "C"})[0:1] * 2
    assert first == second and first.startswith("C ends 2.4 points of HM below own,")


@pytest.mark.parametrize(
    ("base", "new", "words"),
    [(1, -1, "costs more"), (1, 0, "balance"), (0, 1, "do not gain"), (-1, 1, "do not gain"), (0, -1, "neither"), (-1, 0, "neither")],
)  # fmt: skip
def test_why_a_method_ends_below(base, new, words):
    assert words in readings.why(base, new)


def test_a_table_that_is_too_large_or_says_nan(tmp_path, monkeypatch):
    path = tmp_path / "t.csv"
    with pytest.raises(FileNotFoundError, match=r"t\.csv"):
        table_damage.read(path)
    path.write_text("a,b\n1,nan\n2, NaN \n")
    assert table_damage.read(path)["a"].tolist() == [1, 2] and table_damage.of_table(path).endswith(
        "an empty cell"
    )
    monkeypatch.setattr(table_damage, "LARGEST", path.stat().st_size)
    assert table_damage.of_table(path, empty=True) == ""
    monkeypatch.setattr(table_damage, "LARGEST", path.stat().st_size - 1)
    assert "t.csv has 18 bytes; a table of a study has at most 17" == table_damage.of_table(path)
    with pytest.raises(ValueError, match=r"t\.csv is damaged: t\.csv has 18 bytes"):
        table_damage.read(path)
    assert table_damage.of_table(tmp_path / "none.csv").startswith("none.csv cannot be read")


def test_numbers_one_by_one_are_written_beside_a_table_and_its_digits_are_kept(tmp_path):
    about = {"study": "s", "profile": "p"}
    frame = pd.DataFrame({"x": [1.23456, None]})
    each = pd.DataFrame({"seed": [1], "value": [2.0]})
    paths = tables.save_table(frame, tmp_path, "t", **about, each=each, digits=3)
    assert [p.name for p in paths] == ["t.csv", "t.each.csv", "t.tex", "t.html"]
    assert (tmp_path / "t.each.csv").read_bytes() == b"seed,value\n1,2.0\n"
    assert (tmp_path / "t.csv").read_bytes() == b'x\n1.23456\n""\n'
    tex, page = ((tmp_path / f"t.{kind}").read_text(encoding="utf-8") for kind in ("tex", "html"))
    assert "1.235" in tex and "--" in tex and "1.235" in page and tex.count("%") == 1 and "<p></p>" in page
    assert r"\begin{tabular}{r}" in tex and "<title>s t</title>" in page and 'id="T_t"' in page
    index = pd.MultiIndex.from_tuples([("g", "x"), ("g", "y")])
    columns = pd.MultiIndex.from_tuples([("k", "a"), ("k", "b"), ("l", "a")])
    grid = pd.DataFrame([["1", "2", "3"]] * 2, index, columns)
    marks = grid.replace({"1": "best", "2": "second", "3": ""})
    tex = tables.save_table(grid, tmp_path, "u", **about, marks=marks)[1].read_text(encoding="utf-8")
    assert (
        r"\begin{tabular}{llrrr}" in tex
        and r"\multicolumn{2}{c}{k}" in tex
        and r"\bfseries 1 & \itshape 2 & 3" in tex
    )
    assert tables.LEGEND in tex and tex.count("%") == 3  # the record, the legend and its percent
    named = pd.DataFrame({"x": [5]}, index=pd.Index([7], name="n"))
    assert tables.save_table(named, tmp_path, "v", **about)[0].read_bytes() == b"n,x\n7,5\n"


# ----------------------------------------------------------------------------- the handle of a notebook


def opened(rows=None, opener=None, **model):
    profile = types.SimpleNamespace(models={"vlm": {"name": "tiny"} | model} if model is not None else {})
    study = types.SimpleNamespace(id="fake", profile=lambda name: profile)
    rows = pd.DataFrame({"name": ["a"], "task": ["t"]}) if rows is None else rows
    return artefact.Opened(study, "demo", "fig1", "", rows, opener)


def test_the_model_of_a_profile_is_loaded_as_its_runs_were(monkeypatch):
    asked = []
    monkeypatch.setattr(
        vlmlab.models.load, "load", lambda *args, **more: asked.append((args, more)) or len(asked)
    )
    plain, whole = opened(), opened(pretrained="w", precision="fp16", device="cpu")
    assert [plain.model, plain.model, whole.model] == [1, 1, 2]  # once each
    assert asked == [
        (("tiny", None), {"precision": None, "device": None}),
        (("tiny", "w"), {"precision": "fp16", "device": "cpu"}),
    ]
    assert repr(plain) == "fig1 of study fake, profile demo, with 1 runs"
    nothing = opened()
    nothing.study.profile("demo").models.clear()
    with pytest.raises(ValueError, match="profile demo has no model, not one"):
        nothing.model  # noqa: B018
    with pytest.raises(ValueError, match="no run is called b; there are none"):
        opened(pd.DataFrame({"name": [], "task": []})).only(["b"])


class Kept:
    """A run that was tested under two rules and two protocols."""

    def __init__(self, path):
        self.settings = {"sigma": len(path)}
        rows = [(path, rule, protocol) for rule in ("unified", "decoupled") for protocol in ("few", "zero")]
        self.results = pd.DataFrame(rows, columns=["value", "rule", "protocol"])


def test_numbers_of_runs_are_read_once_a_path_and_name(monkeypatch):
    monkeypatch.setattr(runs, "Run", Kept)
    lines = [("p", "x", "few", "v"), ("qq", "x", "few", ""), ("p", "y", "zero", ""), ("p", "x", "few", "w")]
    art = opened(pd.DataFrame(lines, columns=["path", "name", "protocol", "variant"]))
    columns = ["value", "name", "protocol", "variant", "sigma", "none"]
    found = art.scores("sigma", "none", rule="decoupled")
    assert found[columns[:-1]].to_numpy().tolist() == [
        ["p", "x", "few", "v", 1],
        ["qq", "x", "few", "", 2],
        ["p", "y", "zero", "", 1],
    ]
    assert found["none"].isna().all() and [*found.index] == [0, 1, 2] and set(found["rule"]) == {"decoupled"}
    assert set(art.scores()["rule"]) == {"unified"} and "sigma" not in art.scores()
    whole = art.results
    assert (
        len(whole) == 8
        and [*whole.index] == list(range(8))
        and whole["variant"].tolist() == list("vv") + [""] * 4 + ["w"] * 2
    )
    assert [artefact.whole(v) for v in (None, float("nan"), 4.0, 4)] == [None, None, 4, 4]


# ----------------------------------------------------------------------------- what is known of files


def test_why_an_artefact_is_stale(tmp_path):
    chosen = types.SimpleNamespace(id="fig1")
    sources = lambda *changed: types.SimpleNamespace(
        changed=lambda code: list(changed) if code == {"m": "1"} else ["?"]
    )
    parts = {"notebook": "n", "run b": "x", "run a": "y"}
    for suffix in ("svg", "pdf", "html", "csv"):
        (tmp_path / f"fig1.{suffix}").write_text(suffix)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks/fig1.ipynb").write_text("{}")
    fresh = state.State(tmp_path)
    assert fresh.why_stale(chosen, parts, sources()) == "not made yet" and fresh.runs() == {}
    fresh.record(chosen, parts, {"m": "1"})
    fresh.record(types.SimpleNamespace(id="other"), {"run c": "z"}, {})
    names = ["fig1.svg", "fig1.csv", "fig1.pdf", "fig1.html", "notebooks/fig1.ipynb"]
    known = state.State(tmp_path)
    assert (
        {*known.made["fig1"]["files"]}
        == {*names}
        == {p.relative_to(tmp_path).as_posix() for p in known.files(chosen)}
    )
    assert known.runs() == {"run b": "x", "run a": "y", "run c": "z"}
    known.made["damaged"] = {"parts": 3}
    assert len(known.runs()) == 3
    stale = lambda now, *changed: known.why_stale(chosen, now, sources(*changed))
    assert stale(parts) == ""
    assert stale(parts | {"notebook": "m"}, "lab") == "changed: notebook, lab"
    assert stale({"notebook": "n", "more": "1"}) == "changed: more, run a, run b"
    assert stale({}, "lab") == "changed: notebook, run a, run b and 1 more"
    (tmp_path / "fig1.pdf").write_text("by hand")
    assert stale(parts) == "fig1.pdf was changed by hand"
    (tmp_path / "fig1.pdf").unlink()
    assert stale(parts) == "fig1.pdf is missing"
    assert known.failed(chosen) == tmp_path / "notebooks/fig1.failed.ipynb"
    assert state.FILES == {"figure": ("svg", "png"), "table": ("csv", "tex")}
