"""Effects, errors and p of a claim where a unit has no name, where draws stand side by side, and at the edges."""

import math
from types import SimpleNamespace

import pandas as pd
import pytest
from scipy import stats
from test_inference import claim, estimate, rows

from vlmlab.studies.claims import effects, inference
from vlmlab.studies.claims.inference import FAILS, HOLDS, OPEN, Estimate, estimates, verdict

# differences a - b: 1 in the unit x, 5 in the one that has no name
UNNAMED = rows(
    *(
        (m, task, seed, base + (m == "a") * gain)
        for task, base, gain in (("x", 10.0, 1.0), (None, 50.0, 5.0))
        for seed in (1, 2)
        for m in "ab"
    )
)


@pytest.mark.parametrize(
    "frame", [UNNAMED, UNNAMED.assign(concept="one"), UNNAMED.rename(columns={"value": 0})]
)
def test_a_unit_without_a_name_counts_as_any_other(frame):
    """As one number per row, of test concepts, and as the draws of a run."""
    asked = claim("difference")
    assert estimate(frame, asked).effect == pytest.approx(3)
    assert estimate(frame, claim("level", of={"method": "b"})).effect == pytest.approx(30)
    sized = estimate(frame, claim("difference", magnitude=True))
    assert sized.effect == pytest.approx((1 + 25) / 2) and sized.shown(sized.effect) == pytest.approx(13**0.5)
    every = {e.unit: e.effect for e in estimates(frame, claim("difference", units="all"))}
    assert sorted(every.values()) == [1, 5] and "" in every


def test_units_of_several_columns_are_called_by_all_of_them():
    frame = rows(("a", "x", 1, 3), ("b", "x", 1, 1), ("a", "y", 1, 4), ("b", "y", 1, 1)).assign(split="new")
    found = estimates(frame, claim("difference", over=["task", "split", "nowhere"], units="all"))
    assert {e.unit: e.effect for e in found} == {"x, new": 2, "y, new": 3}
    (whole,) = estimates(frame, claim("difference", over=["nowhere"], units="all"))
    assert whole.effect == 2.5 and whole.unit == ""


def test_a_difference_is_that_of_the_units_that_both_sides_have():
    frame = rows(("a", "x", 1, 3), ("b", "x", 1, 1), ("a", "y", 1, 90), ("b", "z", 1, 70))
    assert estimate(frame, claim("difference")).effect == 2
    assert estimate(frame, claim("ratio")).effect == 3


def test_draws_that_stand_side_by_side_are_the_error_over_concepts():
    frame = pd.DataFrame({"method": ["a", "b"], "task": "x", "seed": 1})
    for draw, (a, b) in enumerate([(5.0, 1.0), (6.0, 1.0), (8.0, 1.0), (4.0, 2.0)]):
        frame[draw] = [a, b]
    frame.attrs["concepts"] = 7
    found = estimate(frame, claim("difference"))
    assert (found.effect, found.concepts) == (4, 7)
    assert found.by_concept == pytest.approx(pd.Series([5.0, 7.0, 2.0]).std())
    with pytest.raises(LookupError, match="an effect size needs single measurements; these rows are means"):
        estimates(frame, claim("effect_size"))


@pytest.mark.parametrize(("n", "m"), [(2, 2), (1, 2), (2, 1)])
def test_an_effect_size_needs_two_samples_on_each_side(n, m):
    lines = [("a", "x", 1, v) for v in (1.0, 3.0)[:n]] + [("b", "x", 1, v) for v in (0.0, 2.0)[:m]]
    if n == m:
        assert estimate(rows(*lines), claim("effect_size")).effect == pytest.approx(1 / 2**0.5)
    else:
        with pytest.raises(LookupError, match="two samples on each side"):
            estimates(rows(*lines), claim("effect_size"))


def test_a_quotient_is_of_the_rows_that_are_asked_for():
    frame = rows(("a", "x", 1, 6.0), ("b", "x", 1, 9.0)).assign(bound=[2.0, 1.0])
    assert estimate(frame, claim("quotient", by="bound")).effect == 3


def test_a_size_is_freed_of_the_noise_of_seeds_and_of_draws():
    part = pd.DataFrame(
        {0: [3.0, 5.0, 2.0], 1: [4.0, 6.0, 2.0], 2: [2.0, 2.0, 2.0]},
        index=pd.MultiIndex.from_tuples([("x", 1), ("x", 2), ("y", 1)], names=["task", "seed"]),
    )
    plain = inference.over_seeds(part, ["task"], False)
    assert plain.loc["x"].tolist() == [4, 5, 2] and plain.loc["y"].tolist() == [2, 2, 2]
    sized = inference.over_seeds(part, ["task"], True)
    noise = 2 / 2 + 4.5  # variance of (3, 5) by their number, variance of the draws 5 and 2
    assert sized.loc["x"].tolist() == [16 - noise, 25 - noise, 4 - noise]
    assert sized.loc["y"].tolist() == [4, 4, 4]
    alone = inference.over_seeds(part[[0]], ["task"], True)
    assert alone[0].tolist() == [16 - 1, 4]
    assert inference.over_seeds(part[[0]], [], False)[0].tolist() == [pytest.approx(10 / 3)]


def test_the_correlation_leaves_test_concepts_as_they_are():
    lines = [("a", f"t{t}", 1, f"c{t}", t**2, t) for t in range(5)]
    frame = rows(*lines, columns=("method", "task", "seed", "concept", "value", "other"))
    asked = claim("correlation", by="other", of={})
    found = estimate(frame, asked)
    assert (found.effect, found.by_concept, found.concepts) == (pytest.approx(1), None, None)
    for lost in ("value", "other", "seed"):
        side = effects.Side(frame.drop(columns=lost), ["task", "seed"], "value", None)
        with pytest.raises(LookupError, match=f"there is no column '{lost}', but method, "):
            effects.correlation(side, asked)


def test_a_column_that_holds_text_is_no_number():
    frame = rows(("a", "x", 1, 1.0)).assign(other="much")
    with pytest.raises(ValueError, match="the column 'other' holds 'much', which is no number"):
        estimates(frame, claim("quotient", by="other", of={}))


def test_what_is_not_there_is_named_with_eight_of_what_is():
    frame = pd.DataFrame({"task": [f"t{i}" for i in range(12)] + [None], "value": 1.0})
    with pytest.raises(LookupError) as caught:
        effects.select(frame, {"task": ["t1", "nope"]})
    there = ", ".join(f"t{i}" for i in range(8))
    assert caught.value.args[0] == f"there are no rows with task = nope; task is {there}"
    assert effects.select(frame, {"task": ["t1", "t5"]})["task"].tolist() == ["t1", "t5"]


# ------------------------------------------------------------------------- errors, by Welch and Satterthwaite


@pytest.mark.parametrize(
    ("found", "error", "freedom"),
    [
        (Estimate(1, 0.5, None, 2), 0.5, 1),
        (Estimate(1, 0.5, None, 4), 0.5, 3),
        (Estimate(1, 0.3, 0.4, 2, 2), 0.5, 0.5**4 / (0.3**4 + 0.4**4)),
        (Estimate(1, 0.3, 0.4, 3, None), 0.5, 0.5**4 / (0.3**4 / 2)),  # as many concepts as nobody counted
        (Estimate(1, None, 0.4, None, 9), 0.4, 8),  # no seed plays a part
        (Estimate(1, 0.0, 0.0, 3, 9), 0.0, math.inf),
    ],
)
def test_error_and_its_degrees_of_freedom(found, error, freedom):
    assert (found.error, found.freedom) == (pytest.approx(error), pytest.approx(freedom))
    low, high = found.interval()
    half = stats.t.ppf(0.975, freedom) * error if error else 0
    assert (low, high) == (pytest.approx(1 - half), pytest.approx(1 + half))
    wider = found.interval(0.99)
    assert wider[1] - 1 == pytest.approx(stats.t.ppf(0.995, freedom) * error if error else 0)
    reach = (stats.t.ppf(0.975, freedom) + stats.t.ppf(0.8, freedom)) * error if error else None
    assert found.detectable == (None if reach is None else pytest.approx(reach))


def test_an_effect_of_one_seed_has_no_error():
    found = Estimate(1, None, 0.4, 1, 9)
    assert found.error is None and found.interval() is None and found.detectable is None


@pytest.mark.parametrize(
    ("found", "threshold", "p"),
    [
        (Estimate(1.0, 0.5, None, 3), 0, stats.t.sf(2, 2)),
        (Estimate(1.0, 0.5, None, 3), 2, stats.t.sf(-2, 2)),
        (Estimate(9.0, 2.0, None, 3, squared=True), 2, stats.t.sf((9 - 4) / 2, 2)),  # compared by squares
        (Estimate(-9.0, 2.0, None, 3, squared=True), -2, stats.t.sf((-9 + 4) / 2, 2)),
        (Estimate(1.0, 0.0, None, 3), 0.5, 0),
        (Estimate(1.0, 0.0, None, 3), 1.5, 1),
    ],
)
def test_p_of_lying_beyond_a_threshold(found, threshold, p):
    assert found.beyond(threshold) == pytest.approx(p)


def test_roots_of_sizes_keep_their_sign():
    found = Estimate(4.0, squared=True)
    assert [found.shown(x) for x in (4.0, -9.0, 0.0)] == [2, -3, 0] and Estimate(4.0).shown(-9.0) == -9


# --------------------------------------------------------------------------------------------- verdicts and p


def t(effect, error=1.0, unit=""):
    """An effect of three seeds."""
    return Estimate(effect, error, None, 3, unit=unit)


def p(x):
    """One-sided."""
    return stats.t.sf(x, 2)


@pytest.mark.parametrize(
    ("found", "direction", "threshold", "said", "p_two_sided", "why"),
    [
        ([t(5)], "above", 0, HOLDS, 2 * p(5), ""),
        ([t(-5)], "above", 0, FAILS, 2 * p(5), ""),
        ([t(-5)], "below", 0, HOLDS, 2 * p(5), ""),
        ([t(1)], "above", 0, OPEN, 2 * p(1), "the interval reaches across the threshold"),
        ([t(0, 0.1)], "within", (-1, 2), HOLDS, 2 * p(10), ""),  # the nearer edge decides
        ([t(5, 0.5)], "within", (-1, 2), FAILS, 2 * p(6), ""),
        ([t(-4, 0.5)], "within", (-1, 2), FAILS, 2 * p(6), ""),
        ([t(5), t(6), t(9)], "above", 0, HOLDS, 2 * p(5), ""),  # the weakest unit decides
        ([t(5), t(-9, unit="y"), t(9)], "above", 0, FAILS, 2 * 3 * p(9), "y: -9"),  # Bonferroni
        ([t(5), t(-5, unit="y"), t(9)], "above", 0, OPEN, 2 * 3 * p(5), "the interval reaches across the threshold"),
        ([t(0.5), t(0.4)], "above", 0, OPEN, 2 * p(0.4), "the interval reaches across the threshold"),
        ([t(0.0, 0.0)], "within", (-1, 0), OPEN, 1, "a tie: exactly on the threshold"),
        ([t(0.0, 0.0)], "within", (-1, 1), HOLDS, 0, ""),
        ([Estimate(5.0, None, None, 1)], "above", 0, OPEN, None, "n = 1: one seed has no spread"),
        ([Estimate(5.0)], "above", 0, OPEN, None, "nothing tells its spread"),
    ],
)  # fmt: skip
def test_verdicts_with_their_p(found, direction, threshold, said, p_two_sided, why):
    got = verdict(found, direction, threshold)
    assert (got.said, got.why) == (said, why)
    assert got.p == (None if p_two_sided is None else pytest.approx(p_two_sided))


@pytest.mark.parametrize(
    ("x", "direction", "threshold", "said"),
    [
        (1, "above", 1, FAILS),
        (1, "below", 1, FAILS),
        (1, "within", (1, 2), HOLDS),
        (2, "within", (1, 2), HOLDS),
        (2.1, "within", (1, 2), FAILS),
        (0.9, "within", (1, 2), FAILS),
    ],
)
def test_exact_numbers_at_the_edge(x, direction, threshold, said):
    found = verdict([Estimate(x)], direction, threshold, exact=True)
    assert found == inference.Verdict(said, None, "" if said == FAILS else "exact")


@pytest.mark.parametrize(
    ("ps", "kept"),
    [
        ([0.025, 0.025], [True, True]),  # exactly on the level by rank
        ([0.05], [True]),
        ([0.051], [False]),
        ([0.04, 0.02, 0.016], [True, True, True]),
        ([0.04, 0.026, 0.016], [False, False, True]),  # what comes behind one that falls, falls
        ([None, None], [None, None]),
    ],
)
def test_holm_by_rank(ps, kept):
    assert inference.holm(ps, 0.05) == kept


def test_the_usual_level_is_five_percent():
    assert inference.holm([0.0499]) == [True] and inference.holm([0.0501]) == [False]


def test_a_gap_compares_within_both_selections():
    asked = SimpleNamespace(
        of={"rule": "r"}, against={"rule": "s"}, gap={"split": ["new", "base"]}, other_gap={}
    )
    lines = [("r", "new", 7), ("r", "base", 4), ("s", "new", 1), ("s", "base", 9)]
    frame = pd.DataFrame(lines, columns=["rule", "split", "value"]).assign(task="x", seed=1)
    side = effects.Side(frame, ["task", "seed"], "value", None)
    assert [part[0].item() for part in effects.gaps(side, asked)] == [3, -8]
