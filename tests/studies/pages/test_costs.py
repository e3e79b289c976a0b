"""Costs in tables: ratios within a round, quartiles of times, plain numbers of what is counted."""

import pandas as pd
import pytest
import xarray as xr

from vlmlab.studies.pages import by_seed, costs, tables

ABOUT = {"device": "a CPU", "threads": 1, "dtype": "float32", "batch": 4}


@pytest.fixture
def times():
    """Round 2 is ten times as slow for both."""
    values = [[1.0, 2.0], [10.0, 30.0], [1.0, 2.5]]
    return xr.DataArray(values, {"round": [1, 2, 3], "call": ["plain", "deep"]}, ("round", "call"))


def test_a_ratio_is_formed_within_its_round(times):
    rows = costs.in_rounds(times, "test_ms", {"over_plain": "plain", "over_absent": "absent"})
    assert set(rows["metric"]) == {"test_ms", "over_plain"} and list(rows) == [
        "method",
        "metric",
        "seed",
        "value",
    ]
    ratio = rows[(rows["method"] == "deep") & (rows["metric"] == "over_plain")].set_index("seed")["value"]
    assert ratio.to_dict() == {1: 2.0, 2: 3.0, 3: 2.5}
    assert (rows[(rows["method"] == "plain") & (rows["metric"] == "over_plain")]["value"] == 1).all()


def test_spread_is_median_and_quartiles_over_rounds(times):
    found = costs.spread(costs.in_rounds(times, "test_ms"), ABOUT).set_index(costs.BY)
    deep = found.loc["deep", "test_ms"]
    assert (deep["q1"], deep["median"], deep["q3"], deep["n"]) == (2.25, 2.5, 16.25, 3)
    assert deep["note"] == "a CPU, 1 threads, float32, batch 4"
    assert [*found.reset_index()] == costs.COLUMNS


def test_the_printed_table_keeps_order_and_tells_times_from_counts(times):
    counted = costs.counted({"deep": {"size": 12_345.0}, "plain": {"size": 7.0}})
    scores = pd.DataFrame(
        {"method": "deep", "metric": "accuracy", "seed": [1, 2, 3], "value": [50.0, 52.0, 54.0]}
    )
    planned = tables.stated(
        pd.DataFrame({"method": ["deep"], "metric": ["size"], "value": [12_000.0]}), "planned"
    )
    parts = [
        costs.spread(costs.in_rounds(times, "test_ms"), ABOUT),
        by_seed.measured(counted, costs.BY),
        by_seed.measured(scores, costs.BY),
        planned,
    ]
    tidy = tables.together(*(part.reindex(columns=costs.COLUMNS) for part in parts))
    heads = {"size": ("numbers", 0), "test_ms": ("ms", 1), "accuracy": ("accuracy", 1), "none": ("no", 0)}
    table = costs.printed(tidy, heads, {"deep": "Deep", "plain": "Plain"})
    assert [*table.index] == [("measured", "Deep"), ("measured", "Plain"), ("planned", "Deep")]
    assert [*table] == ["numbers", "ms", "accuracy"]
    assert table.loc[("measured", "Deep")].to_list() == ["12,345", "2.5 [2.2, 16.2]", "52.0 ± 2.0"]
    assert table.loc[("measured", "Plain")].to_list() == ["7", "1.0 [1.0, 5.5]", ""]
    assert table.loc[("planned", "Deep")].to_list() == ["12,000", "", ""]
