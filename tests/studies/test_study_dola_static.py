"""The study dola_static as its comments say it is set up: what its claims read, its prompts, the plan's numbers."""

import pytest

from vlmlab.paths import data_dir
from vlmlab.studies import manifest
from vlmlab.studies.claims import claim
from vlmlab.studies.driver import notebook
from vlmlab.studies.pages import choosing, identities, language_lens, pair, table_damage, tables, written

BUILT = ("objects accuracy", "objects hallucinated", "counts hallucinated")


@pytest.fixture(scope="module")
def study():
    return manifest.load("dola_static")


@pytest.fixture(scope="module")
def claims():
    return claim.load("dola_static")


def test_nothing_trains_and_every_profile_draws_all(study):
    for name, profile in study.profiles.items():
        assert not profile.matrices and not profile.models
        assert [a.id for a in study.choose(None, name)] == list(study.artefacts)


def test_the_demo_decides_nothing_by_a_parameter(study):
    assert not study.profile("demo").params
    declared = {a: notebook.parameters(of.notebook) for a, of in study.artefacts.items()}
    for found in declared.values():
        assert found["model"].default == "'tiny-janus'" and found["dual"].default == "'tiny-siglip'"
    assert (
        len({found["val"].default for found in declared.values() if "val" in found}) == 1
    )  # one choice for all


def test_the_twelve_sentences_have_claims(claims):
    numbers = {int(c.source.partition(":")[0]) for c in claims}
    assert numbers == set(range(1, 13))


def test_claims_read_what_notebooks_write(study, claims):
    ways = {"greedy", "fusion_plain", *choosing.FAMILIES, "dola_raw"}
    for c in claims:
        (source,) = c.data
        assert source in study.artefacts, c.id
        named = {c.of.get("method"), c.against.get("method")} - {None}
        if c.where.get("metric") == "check":
            assert named <= set(identities.CHECKS) and c.exact, c.id
        elif source == "captions":
            assert named <= ways and c.where["metric"] in BUILT, c.id
            assert c.where["metric"].split()[0] in written.FACTS
        assert c.exact == (c.where.get("metric") == "check"), c.id


def test_identities_that_are_asserted_are_described():
    assert set(identities.SAME) < set(identities.CHECKS)


def test_prompts_are_told_apart_and_have_answers():
    table = table_damage.read(data_dir() / language_lens.PROMPTS)
    assert table["prompt"].is_unique and len(table) >= 300
    assert set(table["kind"]) == {"factual", "commonsense"} and not table.isna().any(axis=None)
    assert not any(text != text.strip() for text in [*table["prompt"], *table["answer"].astype(str)])


def test_the_plan_is_called_planned_and_is_the_default_of_decoding():
    plan = tables.published("dola_static", "plan", kind="planned")
    assert set(plan["kind"]) == {"planned"}
    stated = plan.set_index(["tower", "metric"])["mean"]
    dola = choosing.PLAN
    assert stated["language", "apc_threshold"] == dola.apc_threshold
    assert stated["vision", "apc_threshold"] == dola.image_apc_threshold
    assert stated["both", "fusion_strength"] == dola.fusion_strength
    assert stated["both", "top_candidates"] == dola.top_candidates
    low, high = (stated["language", m] for m in ("layer_low", "layer_high"))
    assert low <= dola.language_layers(int(stated["language", "depth"]))[0] <= high


def test_methods_have_printed_names():
    named = table_damage.read(data_dir() / "published/dola_static/methods.csv")
    assert {"greedy", "fusion_plain", "all_layers", *choosing.FAMILIES} <= set(named["id"])
    assert pair.SEEDS["val"] != pair.SEEDS["test"]
