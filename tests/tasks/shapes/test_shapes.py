"""Generated scenes: what is said of them is what the pixels show; sides share nothing; answers cannot be guessed."""

import hashlib
import time
from collections import Counter, defaultdict

import numpy as np
import pytest
from reading import NUMBERS, answer, is_true, named, read

import vlmlab
from vlmlab.scores.captions import hallucination
from vlmlab.tasks import shapes
from vlmlab.tasks.shapes.composition import block, known, listed, scene, sides

KINDS = ("one", "pairs", "many")
IDS = ("shapes/one", "shapes/pairs", "shapes/noisy", "shapes/many")


@pytest.mark.parametrize("varied", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_pixels_show_what_captions_names_and_answers_say(kind, varied):
    found = shapes.scenes(100, 3, kind, "train")
    asked, rng = shapes.questions(found), np.random.default_rng(0) if varied else None
    for i, document in enumerate(shapes.sentences_of(found.ids)):
        things = read(found.image(i, rng))
        assert is_true(found.texts[i], things) and all(is_true(text, things) for text in document)
        for j in asked.questions_of[i]:
            assert answer(asked.questions[j], things) in asked.answers[j]
        total = sum(NUMBERS.index(s.split()[0]) if s.split()[0] in NUMBERS else 1 for s in found.shows[i])
        assert total == len(things)


@pytest.mark.parametrize("kind", KINDS)
def test_masks_are_the_pixels_of_what_they_name(kind):
    found = shapes.scenes(60, 4, kind)
    for i, names in enumerate(found.shows):
        things, masks = read(found.image(i)), found.masks(i)
        assert masks.shape == (len(names), 64, 64) and masks.dtype == bool
        for name, mask in zip(names, masks, strict=True):
            words = name.split(" ", 1)[1] if name.split()[0] in NUMBERS else name
            meant = [thing["mask"] for thing in things if named(thing, words)]
            assert (mask == np.any(meant, axis=0)).all()


def test_wrong_captions_are_wrong_and_the_others_right():
    for kind in KINDS:
        found = shapes.scenes(120, 5, kind, "train", noise=0.3)
        true = [is_true(text, read(found.image(i))) for i, text in enumerate(found.texts)]
        assert true == [flaw == "" for flaw in found.flaws]
        counts = Counter(found.flaws)
        assert 0.17 < 1 - counts[""] / 120 < 0.43 and min(counts["replaced"], counts["flipped"]) > 8
        assert found.select([3, 1]).flaws == (found.flaws[3], found.flaws[1])
        assert found.shows == shapes.scenes(120, 5, kind, "train").shows
        assert found.fingerprint() != shapes.scenes(120, 5, kind, "train").fingerprint()
    with pytest.raises(ValueError, match="noise is a share from 0 to 1, got 30"):
        shapes.scenes(3, noise=30)


def test_a_flip_changes_one_thing_only():
    found = shapes.scenes(300, 6, "pairs", "train", noise=0.5)
    plain = shapes.scenes(300, 6, "pairs", "train")
    changes = Counter()
    for text, true, flaw in zip(found.texts, plain.texts, found.flaws):
        changed = sum(a != b for a, b in zip(text.split(), true.split(), strict=False))
        if flaw == "flipped" and sorted(text.split()) != sorted(true.split()):
            changes[changed] += 1
    assert set(changes) == {1}


@pytest.mark.parametrize("kind", KINDS)
def test_a_scene_depends_on_seed_and_number_alone(kind):
    many, few = shapes.scenes(600, 7, kind), shapes.scenes(20, 7, kind)
    assert many.ids[:20] == few.ids and many.texts[:20] == few.texts
    first = [many.image(i).tobytes() for i in (0, 255, 256, 599)]
    block.cache_clear(), known.cache_clear(), sides.cache_clear(), listed.cache_clear()
    assert [shapes.scenes(600, 7, kind).image(i).tobytes() for i in (0, 255, 256, 599)] == first
    other = shapes.scenes(600, 8, kind)
    assert sum(a == b for a, b in zip(many.texts, other.texts, strict=True)) < 300
    a, b = (many.image(5, np.random.default_rng(s)).tobytes() for s in (1, 2))
    assert a != b and a == many.image(5, np.random.default_rng(1)).tobytes()


def test_the_scenes_are_those_that_runs_were_trained_on():
    digest = hashlib.sha256()
    for kind in KINDS:
        found = shapes.scenes(40, 1, kind, "train", noise=0.3)
        digest.update(repr((found.texts, shapes.questions(found).questions)).encode())
        digest.update(b"".join(found.image(i).tobytes() for i in range(40)))
    assert digest.hexdigest() == "d203f15c188a93f02fe0889c17dd244b2052f12381f4b416df908cac339136a8"


@pytest.mark.parametrize("kind", KINDS)
def test_no_scene_is_on_two_sides(kind):
    rng = np.random.default_rng(0)
    keys, pictures = {}, {}
    for side in ("train", "val", "test"):
        found = shapes.scenes(600, 2, kind, side)
        keys[side] = {scene(id).key for id in found.ids}
        pictures[side] = {found.image(i).tobytes() for i in range(600)}
        pictures[side] |= {found.image(i, rng).tobytes() for i in range(300)}
    for a, b in (("train", "val"), ("train", "test"), ("val", "test")):
        assert not keys[a] & keys[b] and not pictures[a] & pictures[b]


def test_pairs_on_two_sides_have_no_caption_in_common_and_tests_none_twice():
    task = vlmlab.task("shapes/pairs", protocol="retrieval")
    train, val, test = (set(part.texts) for part in (task.train, task.val, task.tests["test"]))
    assert len(test) == 500 and not train & test and not train & val and not val & test
    captions = shapes.scenes(3000, 1, "pairs", "train").texts
    counts = np.array([*Counter(captions).values()])
    assert (counts * (counts - 1)).sum() / (3000 * 2999) < 2e-4  # equal captions among pairs of scenes


def test_in_tests_each_place_of_one_shape_is_one_that_training_never_has():
    classes = Counter(vlmlab.task("shapes/one").tests["test"].labels.tolist())
    assert sorted(classes) == [*range(24)]


@pytest.mark.parametrize("kind", ["pairs", "many"])
@pytest.mark.parametrize("side", ["train", "test"])
def test_the_most_frequent_answer_to_a_question_is_near_chance(kind, side):
    """A guesser that has read 6,000 scenes and sees the question alone."""
    learnt = defaultdict(Counter)
    source = shapes.questions(shapes.scenes(6000, 11, kind, "train"))
    for question, answers, _ in zip(source.questions, source.answers, source.kinds):
        learnt[question].update(answers)
    tested = shapes.questions(shapes.scenes(4000, 12, kind, side))
    right, chance, options = (
        defaultdict(list),
        {"yes/no": 1 / 2, "number": 1 / 4, "number of all": 1 / 4},
        defaultdict(Counter),
    )
    for question, answers, sort in zip(tested.questions, tested.answers, tested.kinds):
        (true,) = answers
        asked = sort if sort != "other" else "colour" if "colour" in question else "shape"
        asked = "number of all" if question == "how many shapes are there?" else asked
        options[asked][true] += 1
        right[asked].append(learnt[question].most_common(1)[0][0] == true if learnt[question] else 0.5)
    chance |= {"colour": 1 / 6, "shape": 1 / 4}
    assert set(right) == {"yes/no", "colour", "shape"} | (
        {"number", "number of all"} if kind == "many" else set()
    )
    for asked, hits in right.items():
        error = np.sqrt(chance[asked] * (1 - chance[asked]) / len(hits))
        assert abs(np.mean(hits) - chance[asked]) < 0.02 + 3 * error, (asked, np.mean(hits))
        shares = np.array([*options[asked].values()]) / len(hits)
        assert shares.max() < 1.25 / len(shares), (asked, options[asked])


def test_vocabulary_and_length():
    found = shapes.scenes(3000, 1, "pairs", "train")
    words = {word for text in found.texts for word in text.split()}
    assert len(words) == 18 and {len(text.split()) for text in found.texts} == {9, 10}


def test_facts_are_what_captions_say_whatever_the_kind():
    said = shapes.facts("there are two red circles, a small blue heart and Three Green squares on a car")
    assert said == {
        "objects": {"red circle", "blue heart", "green square"},
        "colours": {"red", "blue", "green"},
        "shapes": {"circle", "heart", "square"},
        "counts": {"two red circle", "one blue heart", "three green square"},
    }
    assert shapes.facts("a dog") == {"objects": set(), "colours": set(), "shapes": set(), "counts": set()}
    found = shapes.scenes(100, 3, "many")
    for i, text in enumerate(found.texts):
        things = read(found.image(i))
        assert shapes.facts(text)["colours"] == {thing["colour"] for thing in things}
        assert shapes.facts(text)["objects"] == {f"{thing['colour']} {thing['shape']}" for thing in things}


def test_facts_count_what_is_said_and_is_not_there():
    """As a study of decoding asks: objects, colours and counts each on their own."""
    true, said = "two red circles and one blue heart", "three red circles and one green heart"
    rates = {
        kind: hallucination([shapes.facts(said)[kind]], [shapes.facts(true)[kind]])["hallucinated"][0]
        for kind in ("objects", "colours", "shapes", "counts")
    }
    assert rates == {"objects": 50, "colours": 50, "shapes": 0, "counts": 100}


@pytest.mark.parametrize("id", IDS)
def test_tasks(id):
    protocols = {"shapes/one": ("zero_shot", "few_shot", "base_to_new")}.get(id, ("retrieval",))
    for protocol in (*protocols, *(("vqa",) if id in ("shapes/pairs", "shapes/many") else ())):
        shots = 4 if protocol in ("few_shot", "base_to_new") else None
        task = vlmlab.task(id, protocol=protocol, shots=shots)
        assert len(task.train) == {"zero_shot": 0}.get(
            protocol, (24 if protocol == "few_shot" else 12) * 4 if shots else 3000
        )
        assert task.fingerprint() == vlmlab.task(**task.arguments).fingerprint()
        for test in task.tests.values():
            assert test.image(0).size == (64, 64)
    with pytest.raises(ValueError, match=f"{id} has no protocol domain_shift; it has {protocols[0]}"):
        vlmlab.task(id, protocol="domain_shift")


def test_the_noisy_task_is_tested_on_true_captions():
    task = vlmlab.task("shapes/noisy", protocol="retrieval")
    assert 0.27 < np.mean([flaw != "" for flaw in task.train.flaws]) < 0.33
    assert task.tests["test"].flaws is None and task.val.flaws is None
    clean = vlmlab.task("shapes/pairs", protocol="retrieval")
    assert clean.tests["test"].fingerprint() == task.tests["test"].fingerprint()


def test_the_clean_task_has_other_scenes_and_only_true_captions():
    clean, noisy = (vlmlab.task(f"shapes/{name}", protocol="retrieval") for name in ("clean", "noisy"))
    assert len(clean.train) == 1000 and not {*clean.train.ids} & {*noisy.train.ids}
    assert all(is_true(clean.train.texts[i], read(clean.train.image(i))) for i in range(40))
    assert clean.tests["test"].fingerprint() == noisy.tests["test"].fingerprint()


@pytest.mark.parametrize(
    "id", ["pairs/test/2", "three/test/2.1", "pairs/dev/2.1", "pairs/test/2.-1", "pairs/test/a.1"]
)
def test_an_id_of_no_scene_is_refused(id):
    with pytest.raises(ValueError, match="is no scene"):
        scene(id)
    with pytest.raises(ValueError, match="kind must be one of one, pairs, many, got 'two'"):
        shapes.scenes(2, kind="two")


def test_1500_scenes_a_second():
    shapes.scenes(2, 20, "many")
    began = time.process_time()
    found = shapes.scenes(1500, 21, "many", "train", noise=0.3)
    shapes.questions(found)
    for i in range(1500):
        found.image(i), found.masks(i)
    took = time.process_time() - began
    assert took < 3  # a second on one free core; processor time also grows where others share its caches
