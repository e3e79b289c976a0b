"""How often concepts are drawn, and sums over them, against numbers worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from vlmlab.studies.resampling import DRAWS, moments, weights


def drawn(names, strata, **options):
    return weights(pd.Series(list(names)), pd.DataFrame({"task": list(strata)}), **options)


def test_each_stratum_keeps_its_number_of_concepts_in_every_draw():
    """Two images of each concept are one concept; one alone always counts once, one of two twice or never."""
    found = drawn("abcdefabcdef", "xyyzzzxyyzzz", draws=500)
    assert found.shape == (6, 501) and found.index.name == "concept"
    assert (found[0] == 1).all() and (found.loc["a"] == 1).all()
    assert set(found.loc["b"][1:]) == {0, 2} and set(found.loc["d"][1:]) == {0, 1.5, 3}
    for stratum, n in (("a", 1), ("bc", 2), ("def", 3)):
        assert np.allclose(found.loc[list(stratum)].sum(), n)
    assert found.iloc[:, 1:].mean(axis=1).to_numpy() == pytest.approx(1, abs=0.2)  # every concept as often


def test_a_concept_of_several_strata_is_drawn_where_it_is_seen_first():
    found = drawn("abbc", "xxyy", draws=200)
    assert np.allclose(found.loc[["a", "b"]].sum(), 2) and (found.loc["c"] == 1).all()


def test_draws_are_the_same_in_every_call_and_for_strata_in_any_order():
    """Committed numbers hold only as long as nobody draws anew."""
    usual = drawn("abcd", "yyxx")
    assert usual.shape[1] == DRAWS + 1 == 401
    assert usual.equals(drawn("abcd", "yyxx", draws=400, seed=0))
    assert not usual.equals(drawn("abcd", "yyxx", seed=1))
    assert drawn("cdab", "xxyy").loc[list("abcd")].equals(usual.loc[list("abcd")])


def test_without_strata_all_concepts_are_one_stratum():
    found = weights(pd.Series(list("abcd")), pd.DataFrame(index=range(4)), draws=300)
    assert np.allclose(found.sum(), 4) and set(np.unique(found)) == {0, 1, 4 / 3, 8 / 3, 4}


ROWS = pd.DataFrame(
    [("x", 1, "a", 0.1), ("x", 1, "a", 0.3), ("x", 1, "b", 0.5), (None, 1, "c", 0.7), (None, 1, "c", 0.9)],
    columns=["task", "seed", "concept", "value"],
)
BY_HAND = {"x": (3, 0.3, 0.08), None: (2, 0.8, 0.02)}  # number, mean, sum of squares around it


@pytest.mark.parametrize("concepts", [False, True])
def test_moments_of_groups_also_of_one_that_has_no_name(concepts):
    weight = drawn("abc", "xxx", draws=50) if concepts else None
    found = moments(ROWS, ["task", "seed"], "value", weight)
    for key, wanted in BY_HAND.items():
        tasks = found[0].index.get_level_values("task")
        own = [f[tasks.isna() if key is None else tasks == key] for f in found]
        assert [len(f) for f in own] == [1, 1, 1] and own[0].shape[1] == (51 if concepts else 1)
        assert [f[0].item() for f in own] == pytest.approx(wanted)


def test_moments_under_a_draw_are_those_of_the_concepts_it_has():
    weight = pd.DataFrame([[1.0, 2.0, 0.0], [1.0, 0.0, 2.0]], index=pd.Index(["a", "b"], name="concept"))
    found = moments(ROWS[:3], ["task"], "value", weight)
    assert [f.loc["x"].tolist() for f in found] == [
        pytest.approx([3, 4, 2]),
        pytest.approx([0.3, 0.2, 0.5]),
        pytest.approx([0.08, 0.04, 0], abs=1e-12),
    ]
    assert (found[2] >= 0).all(axis=None)
