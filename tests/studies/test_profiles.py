"""Models by role, variants, and runs that build on the runs of another matrix."""

import pytest

from vlmlab import studies
from vlmlab.studies.profiles import with_followed

HEAD = """[study]
id = "fake"

[[artefact]]
id = "fig1"
notebook = "fig1.ipynb"
kind = "figure"
runs = ["main"]

[profile.demo]
MODELS

[[profile.demo.matrix]]
name = "vit"
methods = ["mae"]
tasks = ["toy/a", "toy/b"]
seeds = [1, 2]
models = {}

[[profile.demo.matrix]]
name = "main"
methods = ["blip"]
tasks = ["toy/a", "toy/c"]
seeds = [1]
shots = [4]
"""
FOLLOWS = 'after = { vision = "vit" }\n'


@pytest.fixture
def load(project):
    project.notebook("fig1")

    def load(text=HEAD, models='model = "tiny"'):
        project.write("notebooks/fake/study.toml", text.replace("MODELS", models))
        return studies.load("fake", project.root / "notebooks")

    return load


@pytest.mark.parametrize(
    ("written", "models"),
    [
        ('model = "tiny"', {"vlm": {"name": "tiny"}}),
        (
            'model = "b"\npretrained = "openai"\nprecision = "fp32"',
            {"vlm": {"name": "b", "pretrained": "openai", "precision": "fp32"}},
        ),
        (
            'models = { student = "tiny", teacher = { name = "big", pretrained = "p" } }',
            {"student": {"name": "tiny"}, "teacher": {"name": "big", "pretrained": "p"}},
        ),
        (
            'models = { one = "tiny", two = { name = "big", precision = "amp_bf16" } }\ndevice = "cpu"\nprecision = "fp32"',
            {
                "one": {"name": "tiny", "device": "cpu", "precision": "fp32"},
                "two": {"name": "big", "device": "cpu", "precision": "amp_bf16"},
            },
        ),
        ("models = {}", {}),
    ],
)
def test_models_by_role(load, written, models):
    study = load(models=written)
    assert {str(j.models) for j in study.jobs("demo", ("main",))} == {str(models)}
    assert {str(j.models) for j in study.jobs("demo", ("vit",))} == {"{}"}
    assert study.profile("demo").models == models


def test_the_role_that_a_run_fills_is_not_loaded(load):
    jobs = load(
        HEAD.replace('tasks = ["toy/a", "toy/b"]', 'tasks = ["toy/a"]') + FOLLOWS,
        'models = { vision = "tiny", words = "tiny" }',
    ).jobs("demo", ("main",))
    assert all(job.models == {"words": {"name": "tiny"}} and {*job.after} == {"vision"} for job in jobs)


def test_a_run_follows_that_of_the_same_seed_and_task(load):
    study = load(
        HEAD.replace('"toy/a", "toy/c"', '"toy/b"').replace("seeds = [1]\n", "seeds = [2, 1]\n") + FOLLOWS
    )
    jobs = study.jobs("demo", ("main",))
    assert [(j.follows["vision"].task, j.follows["vision"].seed) for j in jobs] == [
        ("toy/b", 2),
        ("toy/b", 1),
    ]
    assert (
        jobs[0].after == {"vision": jobs[0].follows["vision"].id} and jobs[0].spec["after"] == jobs[0].after
    )
    order = with_followed(jobs)
    assert [j.method for j in order] == ["mae", "blip", "mae", "blip"] and len({j.id for j in order}) == 4
    assert study.jobs("demo", ("vit",))[0] not in jobs  # the artefact reads its own matrices alone
    plain = load(HEAD.replace('"toy/a", "toy/c"', '"toy/b"')).jobs("demo", ("main",))
    assert plain[0].id != jobs[1].id


def test_a_run_follows_that_of_the_same_variant(load):
    variants = "\n[profile.demo.matrix.variants]\nshort = { steps = 1 }\nlong = { steps = 2 }\n"
    text = HEAD.replace("models = {}\n", "models = {}\n" + variants).replace('"toy/a", "toy/c"', '"toy/a"')
    jobs = load(text + FOLLOWS + variants).jobs("demo", ("main",))
    assert [(j.variant, j.follows["vision"].variant) for j in jobs] == [("short", "short"), ("long", "long")]
    with pytest.raises(
        ValueError, match=r"matrix\.after: .* needs one run of the matrix 'vit' as vision, which has 2"
    ):
        load(text + FOLLOWS)


@pytest.mark.parametrize(
    ("text", "models", "words"),
    [
        (
            HEAD,
            "device = 'cpu'",
            "line 10, profile.demo.model: is missing; needed is model, or models by role",
        ),
        (HEAD, "model = 'a'\nmodels = {}", "line 11, profile.demo.model: goes without models by role"),
        (HEAD, "models = {}\npretrained = 'p'", "line 12, profile.demo.pretrained: belongs to model"),
        (HEAD, "models = { a = 1 }", "line 11, profile.demo.models: must be a table of models by role"),
        (HEAD, "models = { a = { nam = 'x' } }", "unknown field `nam`"),
        (
            HEAD + 'after = { vision = "vti" }',
            "model = 'a'",
            "profile.demo.matrix.after: profile demo has no matrix 'vti'; it has vit, main",
        ),
        (
            HEAD + 'after = { vision = "main" }',
            "model = 'a'",
            "line 26, profile.demo.matrix.after: 'main' comes after itself",
        ),
        (
            HEAD + FOLLOWS,
            "model = 'a'",
            "blip toy/c 4-shot seed 1 needs one run of the matrix 'vit' as vision, which has 2 runs, such as mae toy/a seed 1",
        ),
        (
            HEAD.replace("seeds = [1]\n", "seeds = [3]\n") + FOLLOWS,
            "model = 'a'",
            "which has no run of seed 3",
        ),
        (HEAD + FOLLOWS + "models = { vision = 'tiny' }", "model = 'a'", "'vision' is also among the models"),
    ],
)
def test_errors_name_line_and_field(load, text, models, words):
    with pytest.raises(ValueError) as caught:
        load(text, models)
    assert words in str(caught.value), str(caught.value)


def test_a_longer_circle_is_named(load):
    text = HEAD.replace("models = {}\n", 'models = {}\nafter = { words = "main" }\n') + FOLLOWS
    with pytest.raises(ValueError, match=r"line 19, profile\.demo\.matrix\.after: 'vit' comes after itself"):
        load(text)


def test_matrices_that_follow_each_other_by_two_roles_are_looked_at_once(project):
    """Without memory the work would double with each of them."""
    head = '[[profile.demo.matrix]]\nmethods = ["one"]\ntasks = ["toy/a"]\nseeds = [1]\n'
    texts = [f'{head}name = "m0"\n']
    texts += [f'{head}name = "m{i}"\nafter = {{ a = "m{i - 1}", b = "m{i - 1}" }}\n' for i in range(1, 50)]
    first = project.artefact("good", matrix="m49")
    text = f'[study]\nid = "fake"\n{first}[profile.demo]\nmodel = "none"\n'
    path = project.write("notebooks/fake/study.toml", text + "".join(texts))
    (job,) = studies.load("fake", project.root / "notebooks").jobs("demo", ("m49",))
    assert len(with_followed([job])) == 50 and with_followed([job])[-1] is job
    path.write_text(
        path.read_text() + "".join(f'{head}name = "m{i}"\nafter = {{ a = "m{i - 1}" }}\n' for i in (50, 51))
    )
    with pytest.raises(ValueError, match=r"matrix\.after: 'm51' comes after 51 others; 50 are the most"):
        studies.load("fake", project.root / "notebooks")
