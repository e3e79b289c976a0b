"""Effects, errors and verdicts against numbers worked out by hand, by scipy, or known because they were simulated."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from vlmlab import measures
from vlmlab.studies.claims import inference
from vlmlab.studies.claims.inference import FAILS, HOLDS, OPEN, Estimate, estimates, holm, verdict

PLAIN = {
    "where": {},
    "of": {"method": "a"},
    "against": {"method": "b"},
    "to": {},
    "gap": {},
    "other_gap": {},
    "by": "",
    "value": "value",
    "over": ["task"],
    "units": "mean",
    "magnitude": False,
}


def claim(measurement, **fields):
    return SimpleNamespace(measurement=measurement, **{**PLAIN, **fields})


def rows(*lines, columns=("method", "task", "seed", "value")):
    return pd.DataFrame(lines, columns=columns)


def estimate(frame, asked):
    (found,) = estimates(frame, asked)
    return found


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
    assert (found.effect, found.seeds, found.concepts) == (2, 3, None)
    assert found.error == pytest.approx(1 / math.sqrt(3))
    half = 4.302652729696142 / math.sqrt(3)  # the 97.5 % point of t with 2 degrees of freedom
    assert found.interval() == pytest.approx((2 - half, 2 + half))


def test_pairing_removes_what_tasks_and_seeds_share():
    moved = PAIRED.assign(value=PAIRED["value"] + PAIRED["seed"] * 100)
    assert estimate(moved, claim("difference")).by_seed == pytest.approx(1 / math.sqrt(3))
    assert estimate(moved, claim("level")).by_seed > 50


def test_ratio_and_level():
    ratio = estimate(PAIRED, claim("ratio", where={"task": "x"}))
    assert ratio.effect == pytest.approx((1.1 + 1.2 + 1.4) / 3)
    assert estimate(PAIRED, claim("level", of={"method": "b"})).effect == 30


def test_magnitude_is_freed_of_noise():
    """Units of +1 and -1 have the size 1 where nothing is noise, and about none where all is."""
    signs = rows(("a", "x", 1, 1), ("b", "x", 1, 0), ("a", "y", 1, -1), ("b", "y", 1, 0))
    assert estimate(signs, claim("difference")).effect == 0
    found = estimate(signs, claim("difference", magnitude=True))
    assert found.shown(found.effect) == 1
    rng, sizes = np.random.default_rng(0), []
    for _ in range(200):
        noise = rows(*((m, t, s, rng.normal()) for m in "ab" for t in "wxyz" for s in range(5)))
        sizes.append(estimate(noise, claim("difference", magnitude=True)).effect)
    assert abs(np.mean(sizes)) < 3 * np.std(sizes) / math.sqrt(200)
    assert np.mean(np.sign(sizes)) < 0.5  # below zero about as often as above


def test_effect_size_is_that_of_the_figures():
    """Samples of unequal size: the variances are pooled by their degrees of freedom, as in measures."""
    a, b = [1.0, 2.0, 3.0], [3 - 2**0.5, 3 + 2**0.5]
    lines = [("a", "x", 1, v) for v in a] + [("b", "x", 1, v) for v in b]
    found = estimate(rows(*lines), claim("effect_size")).effect
    assert found == pytest.approx(float(measures.effect_size(b, a))) == pytest.approx(-1 / math.sqrt(2))
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
    assert estimate(frame, claim("gap_change", gap=gap, magnitude=True)).effect == 1**2 - 4**2
    splits = {"gap": {"method": ["a", "b"]}, "of": {"split": "new"}, "against": {"split": "base"}}
    assert estimate(frame, claim("gap_change", **splits)).effect == (5 - 9) - (6 - 5)


def test_gap_change_of_two_pairs():
    """The difference of differences: what one rule costs one method, less what it costs another."""
    frame = rows(("a", "x", 1, 5), ("a2", "x", 1, 7), ("b", "x", 1, 9), ("b2", "x", 1, 9.5))
    pairs = {"gap": {"method": ["a", "a2"]}, "other_gap": {"method": ["b", "b2"]}}
    assert estimate(frame, claim("gap_change", of={}, against={}, **pairs)).effect == -2 + 0.5


def test_quotient_is_formed_row_by_row():
    columns = ("task", "seed", "value", "bound")
    frame = rows(("x", 1, 1.0, 2.0), ("x", 1, 9.0, 3.0), ("y", 1, 1.0, 4.0), columns=columns)
    assert estimate(frame, claim("quotient", by="bound", of={})).effect == ((0.5 + 3) / 2 + 0.25) / 2
    each = estimates(frame, claim("quotient", by="bound", of={}, units="all"))
    assert {e.unit: e.effect for e in each} == {"x": 1.75, "y": 0.25}
    with pytest.raises(LookupError, match="no column 'limit'"):
        estimates(frame, claim("quotient", by="limit", of={}))


def test_closer():
    frame = rows(("a", "x", 1, 9), ("b", "x", 1, 14), ("c", "x", 1, 10))
    found = estimate(frame, claim("closer", to={"method": "c"}))
    assert found.effect == 1**2 - 4**2 and found.shown(found.effect) == -math.sqrt(15)


def test_correlation_is_by_rank_and_per_seed():
    lines = [("a", t, s, t**3 * (1 if s < 3 else -1), t) for s in (1, 2, 3) for t in range(5)]
    frame = rows(*lines, columns=("method", "task", "seed", "value", "other"))
    found = estimate(frame, claim("correlation", by="other", of={}))
    assert (found.effect, found.seeds) == (pytest.approx(1 / 3), 3)


def test_missing_values_are_no_values():
    gaps = PAIRED.astype({"value": float})
    gaps.loc[gaps["seed"] == 3, "value"] = None
    assert estimate(gaps, claim("difference")).seeds == 2


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
        estimates(PAIRED, claim("difference", **fields))


def test_sides_without_a_common_unit():
    with pytest.raises(LookupError, match="no unit in common"):
        estimates(rows(("a", "x", 1, 1), ("b", "y", 1, 1)), claim("difference"))


# --------------------------------------------------------------------------------- test concepts


def images(values, seeds=3, shift=0.0):
    """Two methods whose difference on concept k is values[k] + shift for every seed."""
    lines = [
        (m, "x", s, f"c{k}", 10.0 + s + (v + shift) * (m == "a"))
        for s in range(seeds)
        for k, v in enumerate(values)
        for m in "ab"
    ]
    return rows(*lines, columns=("method", "task", "seed", "concept", "value"))


def test_the_error_over_concepts_is_that_of_their_mean(monkeypatch):
    """By theory s / sqrt(n), with s by n - 1, for few concepts too."""
    monkeypatch.setattr(inference, "DRAWS", 20_000)
    values = np.array([0.0, 1.0, 5.0, 2.0])
    found = estimate(images(values), claim("difference"))
    assert found.effect == pytest.approx(2) and found.concepts == 4
    assert found.by_seed == pytest.approx(0, abs=1e-9)
    assert found.by_concept == pytest.approx(values.std(ddof=1) / 2, rel=0.02)


def test_images_of_one_concept_are_no_further_evidence(monkeypatch):
    monkeypatch.setattr(inference, "DRAWS", 4000)
    once = images([0.0, 1.0, 5.0, 2.0])
    thrice = pd.concat([once] * 3, ignore_index=True)
    a, b = (estimate(frame, claim("difference")).by_concept for frame in (once, thrice))
    assert a == pytest.approx(b)


def test_errors_of_seeds_and_concepts_add_up():
    found = Estimate(1.0, 0.3, 0.4, 3, 50)
    assert found.error == pytest.approx(0.5)
    assert found.freedom == pytest.approx(0.5**4 / (0.3**4 / 2 + 0.4**4 / 49))
    assert found.detectable == pytest.approx(
        (stats.t.ppf(0.975, found.freedom) + stats.t.ppf(0.8, found.freedom)) * 0.5
    )


# -------------------------------------------------------------------------------------- verdicts


def at(effect, error=1.0, seeds=1_000_000, **more):
    return Estimate(effect, error, None, seeds, **more)


@pytest.mark.parametrize(
    ("effect", "direction", "threshold", "said"),
    [
        (2.0, "above", 0, HOLDS),
        (-2.0, "above", 0, FAILS),
        (1.9, "above", 0, OPEN),
        (-2.0, "below", 0, HOLDS),
        (2.0, "below", 0, FAILS),
        (-1.9, "below", 0, OPEN),
        (0.0, "within", (-2, 2), HOLDS),
        (0.0, "within", (-1.9, 1.9), OPEN),
        (1.0, "within", (-2, 2), OPEN),
        (4.0, "within", (-2, 2), FAILS),
        (-4.0, "within", (-2, 2), FAILS),
    ],
)
def test_verdicts_by_the_interval(effect, direction, threshold, said):
    found = at(effect)
    assert verdict([found], direction, threshold).said == said
    low, high = found.interval()
    if direction == "above":
        assert (said == HOLDS) == (low > threshold) and (said == FAILS) == (high < threshold)


def test_all_units_hold_when_each_does_and_fail_by_one_after_bonferroni():
    units = [at(3.0, unit="x"), at(2.0, unit="y")]
    assert verdict(units, "above", 0).said == HOLDS
    assert verdict([at(3.0), at(1.9)], "above", 0).said == OPEN
    one = [at(-2.1, unit="z"), *(at(3.0) for _ in range(9))]
    assert verdict(one, "above", 0).said == OPEN and verdict(one[:1], "above", 0).said == FAILS
    found = verdict([at(-3.0, unit="z"), *one[1:]], "above", 0)
    assert found.said == FAILS and found.why.startswith("z: -3")


def test_units_are_told_apart():
    frame = rows(
        *(
            (m, t, s, (m == "a") * (1 if t == "x" else -1) + s / 100)
            for m in "ab"
            for t in "xy"
            for s in (1, 2)
        )
    )
    found = estimates(frame, claim("difference", units="all"))
    assert [(e.unit, round(e.effect)) for e in found] == [("x", 1), ("y", -1)]


def test_an_exact_bound_fails_by_one_violation():
    assert verdict([Estimate(0.9), Estimate(0.5)], "below", 1, exact=True).said == HOLDS
    found = verdict([Estimate(0.9), Estimate(1.1, unit="image 3")], "below", 1, exact=True)
    assert found.said == FAILS and found.why == "image 3: 1.1"
    assert verdict([Estimate(0.0)], "within", (0, 0), exact=True).said == HOLDS


def test_a_tie_and_one_seed_decide_nothing():
    assert verdict([Estimate(0.0, 0.0, None, 3)], "above", 0) == inference.Verdict(
        OPEN, 1.0, "a tie: exactly on the threshold"
    )
    one = verdict([Estimate(5.0, None, 0.1, 1, 40)], "above", 0)
    assert one.said == OPEN and "n = 1" in one.why and one.p is None
    assert (
        verdict([Estimate(5.0, 0.0, 0.1, 10, 40)], "above", 0).said == HOLDS
    )  # a model that no seed changes


def test_where_no_seed_plays_a_part_the_error_is_that_over_concepts():
    """Two ways to decode with one model that nobody trained anew: paired by scene."""
    rng = np.random.default_rng(0)
    base = rng.normal(50, 20, 60)
    lines = [
        (m, f"scene {k}", x + (m == "a") * (2 + rng.normal(0, 1))) for k, x in enumerate(base) for m in "ab"
    ]
    frame = pd.DataFrame(lines, columns=["method", "concept", "value"]).assign(task="one")
    found = estimate(frame, claim("difference"))
    assert found.seeds is None and found.concepts == 60
    assert found.error == found.by_concept == pytest.approx(1 / math.sqrt(60), rel=0.3)
    assert verdict([found], "above", 0).said == HOLDS
    assert verdict([found], "above", 2.0 + 5 * found.error).said == FAILS
    assert estimate(frame.assign(seed=1), claim("difference")).error is None


def test_holm():
    assert holm([0.01, 0.04, None, 0.03]) == [True, False, None, False]
    assert holm([0.01, 0.02, 0.04]) == [True, True, True]
    assert holm([0.5, 0.001]) == [False, True]


# ----------------------------------------------------------------------------- known truth, simulated

RNG = np.random.default_rng(3)


def differences(effect, tasks=3, seeds=5, concepts=12):
    """a above b by `effect`; concepts and seeds differ in how much, images in themselves."""
    lines = []
    for t in range(tasks):
        by_concept = RNG.normal(effect, 3.0, concepts)
        for s in range(seeds):
            by_seed = RNG.normal(0, 1.0)
            for m in "ab":
                noise = RNG.normal(50.0, 2.0, concepts) + (m == "a") * (by_concept + by_seed)
                lines += [(m, f"t{t}", s, f"{t}-{k}", v) for k, v in enumerate(noise)]
    return rows(*lines, columns=("method", "task", "seed", "concept", "value"))


def sized(d, tasks=3, seeds=3, concepts=12):
    """Samples of new and base that differ by d standard deviations, up in one task and down in the next."""
    lines = []
    for t in range(tasks):
        for split in ("new", "base"):
            mean = RNG.normal(0, 0.6, concepts) + (split == "new") * d * (-1) ** t
            for s in range(seeds):
                values = np.repeat(mean, 2) + RNG.normal(0, 0.8, 2 * concepts)
                names = [f"{t}{split}{k // 2}" for k in range(2 * concepts)]
                lines += [("a", split, f"t{t}", s, c, v) for c, v in zip(names, values, strict=True)]
    return rows(*lines, columns=("method", "split", "task", "seed", "concept", "value"))


BY_SPLIT = {"of": {"split": "new"}, "against": {"split": "base"}, "magnitude": True}
KINDS = {  # kind -> (rows at the edge of the claim, claim, direction, threshold)
    "difference": (lambda: differences(0.0), claim("difference"), "above", 0),
    "ratio": (lambda: differences(0.0), claim("ratio"), "below", 1),
    "all units": (lambda: differences(0.0), claim("difference", units="all"), "above", 0),
    "bound": (lambda: differences(1.0), claim("difference"), "within", (-1, 1)),
    "magnitude": (lambda: sized(0.5), claim("effect_size", **BY_SPLIT), "above", 0.5),
    "no magnitude": (lambda: sized(0.0), claim("effect_size", **BY_SPLIT), "above", 0.2),
}


def said(kind, n):
    make, asked, direction, threshold = KINDS[kind]
    found = [verdict(estimates(make(), asked), direction, threshold).said for _ in range(n)]
    return {word: found.count(word) / n for word in (HOLDS, FAILS, OPEN)}


@pytest.mark.parametrize(
    ("kind", "n"),
    [pytest.param(kind, n, marks=[pytest.mark.slow] if n > 60 else []) for n in (40, 1000) for kind in KINDS],
)
def test_false_verdicts_are_as_rare_as_they_say(kind, n, monkeypatch):
    """At the edge of a claim each false verdict comes in at most 2.5 % (and what 1,000 draws leave open)."""
    monkeypatch.setattr(inference, "DRAWS", 200)
    rates = said(kind, n)
    slack = 3 * math.sqrt(0.025 * 0.975 / n)
    assert rates[HOLDS] <= 0.025 + slack, rates
    if kind != "no magnitude":  # where the claim is false indeed
        assert rates[FAILS] <= 0.025 + slack, rates


def test_a_real_effect_is_seen():
    found = [verdict(estimates(differences(4.0), claim("difference")), "above", 0).said for _ in range(10)]
    assert found.count(HOLDS) >= 8
