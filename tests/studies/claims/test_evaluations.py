"""Effects, intervals and verdicts against numbers worked out by hand or by scipy."""

import math
from types import SimpleNamespace

import pandas as pd
import pytest
from scipy import stats

from vlmlab import measures
from vlmlab.studies.claims import evaluations
from vlmlab.studies.claims.evaluations import Estimate, estimate, verdict

PLAIN = {
    "where": {},
    "of": {"method": "a"},
    "against": {"method": "b"},
    "to": {},
    "gap": {},
    "by": "",
    "value": "value",
    "over": ["task"],
    "reduce": "mean",
    "magnitude": False,
}


def claim(measurement, **fields):
    return SimpleNamespace(measurement=measurement, **{**PLAIN, **fields})


def rows(*lines, columns=("method", "task", "seed", "value")):
    return pd.DataFrame(lines, columns=columns)


# differences a - b: seed 1: 1 and 1, seed 2: 2 and 2, seed 3: 4 and 2
PAIRED = rows(
    ("a", "x", 1, 11),
    ("b", "x", 1, 10),
    ("a", "y", 1, 51),
    ("b", "y", 1, 50),
    ("a", "x", 2, 12),
    ("b", "x", 2, 10),
    ("a", "y", 2, 52),
    ("b", "y", 2, 50),
    ("a", "x", 3, 14),
    ("b", "x", 3, 10),
    ("a", "y", 3, 52),
    ("b", "y", 3, 50),
)


def test_paired_difference():
    found = estimate(PAIRED, claim("difference"))
    assert (found.effect, found.sd, found.n) == (2, 1, 3)
    half = 4.302652729696142 / math.sqrt(3)  # the 97.5 % point of t with 2 degrees of freedom
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half))
    assert found.note == "from 6 values by task and seed"


def test_pairing_removes_what_tasks_and_seeds_share():
    moved = PAIRED.assign(value=PAIRED["value"] + PAIRED["seed"] * 100)
    assert estimate(moved, claim("difference")).sd == pytest.approx(1)
    assert estimate(moved, claim("level")).sd > 99


@pytest.mark.parametrize(("reduce", "effect"), [("min", (1 + 2 + 2) / 3), ("max", (1 + 2 + 4) / 3)])
def test_smallest_and_largest_over_tasks(reduce, effect):
    assert estimate(PAIRED, claim("difference", reduce=reduce)).effect == pytest.approx(effect)


def test_ratio_level_and_magnitude():
    ratio = estimate(PAIRED, claim("ratio", where={"task": "x"}))
    assert ratio.effect == pytest.approx((1.1 + 1.2 + 1.4) / 3)
    assert estimate(PAIRED, claim("level", of={"method": "b"})).effect == 30
    signs = rows(("a", "x", 1, 1), ("b", "x", 1, 0), ("a", "y", 1, -1), ("b", "y", 1, 0))
    assert estimate(signs, claim("difference")).effect == 0
    assert estimate(signs, claim("difference", magnitude=True)).effect == 1


def test_effect_size_is_cohens_d():
    frame = rows(("a", "x", 1, 1.0), ("a", "x", 1, 3.0), ("b", "x", 1, 2.0), ("b", "x", 1, 6.0))
    assert estimate(frame, claim("effect_size")).effect == pytest.approx((2 - 4) / math.sqrt((2 + 8) / 2))


def test_effect_size_is_that_of_the_figures():
    """Samples of unequal size: the variances are pooled by their degrees of freedom, as in measures."""
    a, b = [1.0, 2.0, 3.0], [3 - 2**0.5, 3 + 2**0.5]
    lines = [("a", "x", 1, v) for v in a] + [("b", "x", 1, v) for v in b]
    found = estimate(rows(*lines), claim("effect_size")).effect
    assert found == pytest.approx(float(measures.effect_size(b, a))) == pytest.approx(-1 / math.sqrt(2))


def test_effect_size_needs_measurements():
    summaries = rows(
        ("a", "x", 1.0, 1.0, 3), ("b", "x", 2.0, 1.0, 3), columns=("method", "task", "mean", "sd", "n")
    )
    with pytest.raises(LookupError, match="needs single measurements"):
        estimate(summaries, claim("effect_size"))
    with pytest.raises(LookupError, match="two samples on each side"):
        estimate(rows(("a", "x", 1, 1.0), ("b", "x", 1, 2.0)), claim("effect_size"))


def test_gap_change():
    columns = ("method", "task", "split", "seed", "value")
    frame = rows(
        ("a", "x", "new", 1, 5),
        ("a", "x", "base", 1, 6),
        ("b", "x", "new", 1, 9),
        ("b", "x", "base", 1, 5),
        columns=columns,
    )
    gap = {"split": ["new", "base"]}
    assert estimate(frame, claim("gap_change", gap=gap)).effect == -1 - 4
    assert estimate(frame, claim("gap_change", gap=gap, magnitude=True)).effect == 1 - 4


def test_closer():
    frame = rows(("a", "x", 1, 9), ("b", "x", 1, 14), ("c", "x", 1, 10))
    assert estimate(frame, claim("closer", to={"method": "c"})).effect == 1 - 4


def test_correlation_is_by_rank_and_per_seed():
    lines = [("a", t, s, t**3 * (1 if s < 3 else -1), t) for s in (1, 2, 3) for t in range(5)]
    frame = rows(*lines, columns=("method", "task", "seed", "value", "other"))
    found = estimate(frame, claim("correlation", by="other", of={}))
    assert (found.effect, found.n) == (pytest.approx(1 / 3), 3)


def test_summaries_give_welchs_interval():
    columns = ("method", "task", "mean", "sd", "n")
    found = estimate(
        rows(("a", "x", 10.0, 2.0, 4), ("b", "x", 7.0, 1.0, 3), columns=columns), claim("difference")
    )
    step = math.sqrt(3)  # four values with mean 10 and standard deviation 2
    four = [10 - step, 10 - step, 10 + step, 10 + step]
    wanted = stats.ttest_ind(four, [6, 7, 8], equal_var=False).confidence_interval(0.95)
    assert (found.effect, found.n) == (3, 3)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    assert found.note.startswith("not paired")


def test_summaries_over_several_units_average_their_errors():
    columns = ("method", "task", "mean", "sd", "n")
    one = rows(("a", "x", 10.0, 2.0, 4), columns=columns)
    four = rows(*(("a", t, 10.0, 2.0, 4) for t in "wxyz"), columns=columns)
    level = [estimate(frame, claim("level")) for frame in (one, four)]
    assert level[0].sd == pytest.approx(2) and level[1].sd == pytest.approx(1)
    assert level[0].high - 10 == pytest.approx(stats.t.ppf(0.975, 3) * 1)


def test_single_numbers_have_no_known_spread():
    """Neither a seed nor a standard deviation: whatever `n` says, that is no evidence."""
    frame = rows(("a", "x", 5.0, 3), ("b", "x", 1.0, 3), columns=("method", "task", "value", "n"))
    found = estimate(frame, claim("difference"))
    assert (found.effect, found.low, found.n) == (4, None, None)
    assert verdict(found, "above", 0, False) == (
        "undecided",
        "its spread over seeds is not known; the value lies where the claim holds",
    )


def test_population_spreads_count_as_such():
    values = [1.0, 2.0, 6.0]
    sample = pd.Series(values)
    columns = ("method", "task", "mean", "sd_over_seeds", "n")
    summary = rows(("a", "x", sample.mean(), sample.std(ddof=0), 3), columns=columns)
    seeds = rows(*(("a", "x", i, v) for i, v in enumerate(values)))
    one, other = (estimate(frame, claim("level")) for frame in (summary, seeds))
    assert (one.low, one.high) == pytest.approx((other.low, other.high))


def test_missing_values_are_no_values():
    gaps = PAIRED.astype({"value": float})
    gaps.loc[gaps["seed"] == 3, "value"] = None
    assert estimate(gaps, claim("difference")).n == 2


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"where": {"split": "new"}}, "no column 'split', but method, task"),
        ({"of": {"method": "c"}}, "no rows with method = c; method is a, b"),
        ({"value": "nothing"}, "no column 'nothing'"),
        ({"where": {"task": ["x", "z"]}}, "no rows with task = z"),
    ],
)
def test_what_the_rows_lack_is_named(fields, words):
    with pytest.raises(LookupError, match=words):
        estimate(PAIRED, claim("difference", **fields))


def test_sides_without_a_common_unit():
    with pytest.raises(LookupError, match="no unit in common"):
        estimate(rows(("a", "x", 1, 1), ("b", "y", 1, 1)), claim("difference"))


@pytest.mark.parametrize(
    ("low", "high", "direction", "threshold", "word"),
    [
        (0.1, 2, "above", 0, "supported"),
        (-2, -0.1, "above", 0, "refuted"),
        (-1, 2, "above", 0, "undecided"),
        (-2, -0.1, "below", 0, "supported"),
        (0.1, 2, "below", 0, "refuted"),
        (-1, 2, "below", 0, "undecided"),
        (0.96, 1.04, "within", [0.95, 1.05], "supported"),
        (1.06, 1.2, "within", [0.95, 1.05], "refuted"),
        (0.9, 0.94, "within", [0.95, 1.05], "refuted"),
        (0.9, 1.2, "within", [0.95, 1.05], "undecided"),
        (0.9, 1.0, "within", [0.95, 1.05], "undecided"),
        (0, 0, "within", [0, 0], "supported"),
        (0, 0, "above", 0, "refuted"),
    ],
)
def test_verdicts(low, high, direction, threshold, word):
    found = Estimate((low + high) / 2, 1.0, low, high, 3)
    assert verdict(found, direction, threshold, False)[0] == word


@pytest.mark.parametrize("effect", [-5, 5])
def test_one_seed_decides_nothing(effect):
    word, reason = verdict(Estimate(effect, n=1), "above", 0, False)
    assert word == "undecided" and "n = 1" in reason
    assert ("does not hold" in reason) == (effect < 0)


def test_exact_numbers_need_no_seeds():
    assert verdict(Estimate(0.0), "within", [0, 0], True) == ("supported", "exact: no seed plays a part")
    assert verdict(Estimate(1.0), "within", [0, 0], True)[0] == "refuted"
    assert verdict(Estimate(1.0), "above", 0, False)[0] == "undecided"  # not exact, spread not known


def test_every_verdict_is_listed():
    assert len(set(evaluations.VERDICTS)) == 4 and evaluations.NOT_TESTABLE == "not testable here"
