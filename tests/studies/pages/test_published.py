"""The transcribed tables agree with themselves: harmonic means, averages, complete grids, known methods."""

from pathlib import Path

import pandas as pd
import pytest

FOLDER = Path(__file__).parents[3] / "data" / "published" / "alignednorm"
TOLERANCE = 0.02
COUNTS = {1: 360, 2: 72, 3: 36, 4: 25, 5: 16, 6: 12, 7: 15, 8: 22, 9: 15, 10: 252, 11: 110}
ELEVEN = {
    "imagenet",
    "caltech101",
    "oxford_pets",
    "stanford_cars",
    "oxford_flowers",
    "food101",
    "fgvc_aircraft",
    "sun397",
    "dtd",
    "eurosat",
    "ucf101",
}
SHIFTS = {"imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r"}
DATASETS = {
    1: ELEVEN | {"average"},
    2: ELEVEN | {"average"},
    3: SHIFTS | {"imagenet", "average"},
    4: {"average"},
    6: {"average"},
    7: {"average"},
    8: ELEVEN,
    9: ELEVEN | SHIFTS,
    10: ELEVEN | {"average"},
    11: ELEVEN,
}


def read(number):
    table = pd.read_csv(FOLDER / f"table{number}.csv", dtype=str, keep_default_na=False)
    if "value" in table:
        table["value"] = table["value"].astype(float)
    return table


def by_split(number):
    """Rows (method, dataset); columns base, new, hm and whether the HM is noted as a misprint."""
    table = read(number)
    wide = table.pivot(index=["method", "dataset"], columns="split", values="value")
    hm = table[table.split == "hm"].set_index(["method", "dataset"])
    return wide.assign(misprint=hm.note.str.startswith("misprint"))


@pytest.mark.parametrize("number", COUNTS)
def test_grid_is_complete(number):
    table = read(number)
    cells = table.drop(columns="note")
    assert len(table) == COUNTS[number]
    assert not cells.isna().any().any() and not (cells == "").any().any()
    keys = [c for c in ("method", "dataset", "split", "shots", "metric", "parameter") if c in table]
    assert not table.duplicated(keys).any()
    free = [k for k in keys if k != "split" or number not in (2, 3)]  # there the dataset decides the split
    product = 1
    for key in free:
        product *= table[key].nunique()
    assert len(table) == product
    if number in DATASETS:
        assert set(table.dataset) == DATASETS[number]


def test_methods_are_known():
    known = pd.read_csv(FOLDER / "methods.csv")
    assert known.id.is_unique and known.id.str.fullmatch(r"[a-z][a-z0-9_]*").all()
    used = set().union(*(read(n).method for n in COUNTS if n != 9))
    assert used == set(known.id)


@pytest.mark.parametrize("number", [1, 6, 7, 10])
def test_harmonic_means(number):
    table = by_split(number).drop("delta", errors="ignore")
    error = (2 * table.base * table.new / (table.base + table.new) - table.hm).abs()
    assert (error[~table.misprint] <= TOLERANCE).all()
    assert (error[table.misprint] > TOLERANCE).all()  # a note without a reason is an error too


@pytest.mark.parametrize("number", [1, 10])
def test_averages_over_eleven_datasets(number):
    table = by_split(number).drop("delta", errors="ignore")[["base", "new"]]
    average = table.xs("average", level="dataset")
    mean = table.drop("average", level="dataset").groupby("method").mean()
    assert ((mean - average).abs() <= TOLERANCE).all().all()


@pytest.mark.parametrize("number", [2, 3])
def test_averages_over_targets(number):
    table = read(number)
    target = table[table.split == "target"].pivot(index="method", columns="dataset", values="value")
    assert ((target.drop(columns="average").mean(axis=1) - target.average).abs() <= TOLERANCE).all()


def test_few_shot_averages():
    mean = read(11).groupby(["method", "shots"]).value.mean()
    average = read(4).set_index(["method", "shots"]).value.loc[mean.index]
    assert ((mean - average).abs() <= TOLERANCE).all()


def test_delta():
    table = by_split(1)[["base", "new", "hm"]]
    gain = table.loc["aligned_norm"] - table.loc["mmrlpp_unified"]
    assert ((gain - table.loc["delta"]).abs() <= TOLERANCE).all().all()


def test_tables_agree():
    full = by_split(10)[["base", "new", "hm"]]
    for number in (6, 7):
        short = by_split(number)[["base", "new", "hm"]]
        assert short.equals(full.loc[short.index])
    main = by_split(1)[["base", "new", "hm"]]
    for method in ("aligned_norm", "mmrlpp_unified"):
        assert main.loc[method].equals(full.loc[method])
    cost = read(5)
    for row in cost[cost.metric == "hm"].itertuples():
        assert row.value == main.loc[(row.method, "average"), "hm"]
