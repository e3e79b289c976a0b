"""Sentences below a figure or table that its numbers themselves write."""

from collections.abc import Mapping

from ...names_and_colours import label


def below(rows, against: str = "zero_shot", names: Mapping[str, str] | None = None) -> list[str]:
    """Which methods end below another, usually the model without training, and on which classes they lose.

    rows: of `by_seed.per_seed`, with the splits base, new and hm; those of the task `average` are read. A sentence
    for each method whose mean harmonic mean (percent) over seeds is below, worst first; one that says so when
    none is. KeyError for an unknown method.
    """
    names = names or {}
    average = rows[rows["task"] == "average"]
    wide = average.groupby(["method", "split"])["value"].mean().unstack("split")
    steps = (wide - wide.loc[against]).drop(index=against)
    found = steps[steps["hm"] < 0].sort_values("hm")
    other = names.get(against, label(against))
    if found.empty:
        return [f"No method ends below {other}, the model without training."]
    return [
        f"{names.get(method, label(method))} ends {-step.hm:.1f} points of HM below {other}, the model without training: "
        f"{step.base:+.1f} on the classes it was trained on, {step.new:+.1f} on new ones; {why(step.base, step.new)}."
        for method, step in found.iterrows()
    ]


def why(base: float, new: float) -> str:
    """What the two differences to the untrained model say, and no more."""
    if base > 0 > new:
        return "what it learns of its own classes costs more on the others"
    if base <= 0 < new:
        return "it is the classes it was trained on that do not gain"
    if base <= 0 and new <= 0:
        return "training helps neither, at this number of images and steps"
    return "both means gain, but not their balance"
