"""Candidates as words, and what an image says of them while a model writes."""

import math

import numpy as np
import pytest
import torch
from letters import WIDTH, Letters, ids, tokens

from vlmlab.decode import (
    Fusion,
    candidate_tokens,
    contrast,
    joint,
    lift,
    literal,
)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 3


EMPTY = torch.zeros(1, 0, dtype=torch.long)

# words


def test_candidates_have_their_spellings_and_collisions():
    found = tokens()
    assert set(found.paths[0]) == {tuple(ids(form)) for form in ("cat", " cat", "Cat", " Cat")}
    assert set(found.collisions.values()) == {("cat", "cow", "catfish")}
    by_first = {found.starts.ids[i].item(): node.own for i, node in enumerate(found.starts.next.values())}
    assert by_first == {
        ids("c")[0]: [0, 2, 3],
        ids("C")[0]: [0, 2, 3],
        ids("d")[0]: [1],
        ids("D")[0]: [1],
    } | {
        ids(" c")[0]: [0, 2, 3],
        ids(" C")[0]: [0, 2, 3],
        ids(" d")[0]: [1],
        ids(" D")[0]: [1],
    }


def test_a_space_alone_begins_every_word_and_is_no_start():
    found = candidate_tokens(Letters(space_alone=True), ["cat", "dog"])
    space = ids(" ")[0]
    assert space not in found.starts.next and space in found.trie.next
    assert found.trie.after([space]).ids.tolist() == [
        ids("c")[0],
        ids("C")[0],
        ids("d")[0],
        ids("D")[0],
    ] or set(found.trie.after([space]).next) == {ids(x)[0] for x in "cCdD"}
    assert not found.collisions


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "a list with one name or more"),
        ("cat", "a list with one name or more, got 'cat'"),
        (["cat", " "], "a candidate is ' '"),
        (["cat", "dog", "cat"], "'cat' is given twice"),
        (["cat", "猫"], "no tokens that write the candidate '猫'"),
    ],
)
def test_wrong_candidates(names, message):
    with pytest.raises(ValueError, match=message):
        tokens(names)


# the bias


def test_lift_is_the_log_ratio_of_mass_and_prior():
    p = torch.tensor([[0.6, 0.3, 0.1, 0.0]])
    found = Fusion(tokens(), p).bias(EMPTY, WIDTH)[0]
    eps = 1e-3
    for first, mass, count in (("c", 0.7, 3), ("d", 0.3, 1)):
        expected = math.log((eps + mass) / (eps + count / 4))
        for form in (first, first.upper(), f" {first}", f" {first.upper()}"):
            assert math.isclose(found[ids(form)[0]], expected, abs_tol=1e-5)
    rest = torch.ones(WIDTH, dtype=torch.bool)
    rest[[ids(form)[0] for form in ("c", "d", "C", "D", " c", " d", " C", " D")]] = False
    assert bool((found[rest] == 0).all())


@pytest.mark.parametrize("rule", ["lift", "trie"])
def test_a_uniform_image_says_nothing(rule):
    fusion = Fusion(tokens(), torch.full((2, 4), 0.25), rule=rule)
    for text in ("", "c", "ca", "cat", "x", " d"):
        written = torch.tensor([ids(text)] * 2).long().reshape(2, -1)
        assert bool((fusion.bias(written, WIDTH).abs() < 1e-6).all())


def test_a_word_rises_where_the_image_beats_the_prior_and_only_there():
    one = Fusion(tokens(["cat", "dog", "owl"]), torch.tensor([[0.5, 0.3, 0.2]])).bias(EMPTY, WIDTH)[0]
    assert one[ids("c")[0]] > 0 > one[ids("d")[0]] > one[ids("o")[0]]


@pytest.mark.parametrize("p", [[1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0.7, 0.2, 0.1, 0.0]])
@pytest.mark.parametrize("rule", ["lift", "trie"])
@pytest.mark.parametrize("strength", [0, 0.3, 1, 10])
def test_there_is_no_nan_and_lambda_0_is_the_language_side_to_the_bit(p, rule, strength):
    log_p = contrast(drawn(1, WIDTH), drawn(1, WIDTH, seed=1))
    fusion = Fusion(tokens(), torch.tensor([p]), strength, rule)
    for text in ("", "c", "catf"):
        fused = fusion.fuse(log_p, fusion.bias(torch.tensor([ids(text)]).long().reshape(1, -1), WIDTH))
        assert not fused.isnan().any() and torch.equal(fused > -math.inf, log_p > -math.inf)
        assert math.isclose(float(fused.exp().sum()), 1, abs_tol=1e-5)
        if strength == 0:
            assert torch.equal(fused, log_p)


def test_along_a_candidate_the_trie_adds_up_to_its_lift():
    names, p = ["cat", "dog", "cow", "duck"], torch.tensor([[0.45, 0.05, 0.3, 0.2]])
    found = tokens(names)
    for i, name in enumerate(names):
        for form in (name, f" {name.capitalize()}"):
            node, total = found.trie, 0.0
            for token in ids(form):
                at = node.ids.tolist().index(token)
                total += float(lift(p, node, eps=0)[0, at])
                node = node.next[token]
            assert math.isclose(total, math.log(p[0, i]) - math.log(1 / 4), abs_tol=1e-5)


def test_the_trie_tells_apart_what_begins_alike_and_ends():
    p = torch.tensor([[0.1, 0.1, 0.7, 0.1]])
    fusion = Fusion(tokens(), p, rule="trie")
    after = fusion.bias(torch.tensor([ids("c")]), WIDTH)[0]
    assert after[ids("o")[0]] > 0 > after[ids("a")[0]] and int((after != 0).sum()) == 2
    for text in ("cow", "x", "catfish", "cats"):  # at its end, off the tree
        assert not fusion.bias(torch.tensor([ids(text)]), WIDTH).any()
    plain = Fusion(tokens(), p).bias(torch.tensor([ids("c")]), WIDTH)[0]
    assert (
        plain[ids("c")[0]] != 0 and plain[ids("o")[0]] == 0
    )  # the lift knows first tokens only, at every step


def test_only_the_best_candidates_are_fused_and_their_masses_are_over_all():
    p = torch.tensor([[0.1, 0.6, 0.3, 0.0]])
    found = Fusion(tokens(), p, top=1).bias(EMPTY, WIDTH)[0]
    assert found[ids("c")[0]] == 0 and math.isclose(found[ids("d")[0]], math.log(0.601 / 0.251), abs_tol=1e-5)
    both = Fusion(tokens(), p, top=2).bias(EMPTY, WIDTH)[0]
    assert math.isclose(both[ids("c")[0]], math.log(0.401 / 0.751), abs_tol=1e-5)
    cut = Fusion(tokens(["cat", "dog"]), torch.tensor([[1.0, 0.0]]), top=2).bias(EMPTY, WIDTH)[0]
    assert cut[ids("d")[0]] == 0  # what the image rules out is none of the best


def test_rows_are_images_times_beams():
    p = torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.1, 0.7, 0.1, 0.1]])
    found = Fusion(tokens(), p).bias(torch.zeros(6, 2, dtype=torch.long), WIDTH)
    alone = [Fusion(tokens(), row[None]).bias(EMPTY, WIDTH)[0] for row in p]
    assert torch.equal(found, torch.stack([alone[0]] * 3 + [alone[1]] * 3))
    with pytest.raises(ValueError, match="5 rows are decoded, which is no multiple of the 2 images"):
        Fusion(tokens(), p).bias(torch.zeros(5, 0, dtype=torch.long), WIDTH)


def test_active_says_where_and_the_trie_begins_there():
    p, asked = torch.tensor([[0.1, 0.1, 0.7, 0.1]]), []

    def active(step, text):
        asked.append((step, text))
        return "is" in text

    fusion = Fusion(tokens(), p, rule="trie", active=active, decode=Letters().decode)
    assert not fusion.bias(torch.tensor([ids("it")]), WIDTH).any()
    begun = fusion.bias(torch.tensor([ids("itis")]), WIDTH)[0]
    assert bool(begun[ids("c")[0]] != 0)
    then = fusion.bias(torch.tensor([ids("itisc")]), WIDTH)[0]
    assert then[ids("o")[0]] > 0 and then[ids("c")[0]] == 0
    assert (2, "it") in asked and (4, "itis") in asked


# the plan's sentences as they stand


def test_minus_infinity_bans_all_other_words():
    p, log_p = torch.tensor([[0.7, 0.2, 0.1, 0.0]]), contrast(drawn(1, WIDTH), drawn(1, WIDTH, seed=1), 0)
    fusion = Fusion(tokens(), p, 0.7, "literal_minus_inf")
    bias = fusion.bias(EMPTY, WIDTH)
    assert int((bias > -math.inf).sum()) == 8  # the starts of the candidates
    assert int((fusion.fuse(log_p, bias) > -math.inf).sum()) == 8
    outside = torch.full((1, WIDTH), -math.inf)
    outside[0, ids("x")] = 0.0
    assert fusion.fuse(outside, bias).isnan().all()


def test_zero_for_other_words_punishes_the_candidates():
    p, log_p = torch.tensor([[0.4, 0.3, 0.2, 0.1]]), torch.full((1, WIDTH), -math.log(WIDTH))
    fusion = Fusion(tokens(), p, 0.7, "literal_zero")
    fused = fusion.fuse(log_p, fusion.bias(EMPTY, WIDTH))[0]
    assert fused[ids("c")[0]] < fused[ids("x")[0]] and fused[ids("d")[0]] < fused[ids("x")[0]]
    right = Fusion(tokens(), torch.tensor([[0.1, 0.7, 0.1, 0.1]]), 0.7)
    lifted = right.fuse(log_p, right.bias(EMPTY, WIDTH))[0]
    assert lifted[ids("d")[0]] > lifted[ids("x")[0]]


@pytest.mark.parametrize("rule", ["literal_zero", "literal_minus_inf"])
def test_the_literal_rules_are_nan_at_lambda_0(rule):
    p, log_p = torch.tensor([[1.0, 0.0]]), contrast(drawn(1, WIDTH), drawn(1, WIDTH, seed=1), 0)
    fusion = Fusion(tokens(["cat", "dog"]), p, 0.0, rule)
    assert literal(p, fusion.tokens.starts).tolist()[0].count(-math.inf) == 4
    assert fusion.fuse(log_p, fusion.bias(EMPTY, WIDTH)).isnan().any()
    assert torch.equal(joint(log_p, fusion.bias(EMPTY, WIDTH), 0.0), log_p)


def test_wrong_fusions_are_one_clear_message():
    with pytest.raises(ValueError, match=r"unknown rule of fusion 'add'; there are lift, trie"):
        Fusion(tokens(), torch.full((1, 4), 0.25), rule="add")
    with pytest.raises(ValueError, match=r"p has shape \(4,\), expected \(image, 4 candidates\)"):
        Fusion(tokens(), torch.full((4,), 0.25))
    for wrong in ([0.5, 0.1, 0.1, 0.1], [1.5, -0.5, 0, 0], [np.nan, 0, 0, 1]):
        with pytest.raises(ValueError, match=r"p holds no probabilities"):
            Fusion(tokens(), torch.tensor([wrong]))
    with pytest.raises(ValueError, match=r"active\(step, text\) needs decode="):
        Fusion(tokens(), torch.full((1, 4), 0.25), active=lambda step, text: True)
    with pytest.raises(ValueError, match=r"written with token \d+, and the model has 5 words"):
        Fusion(tokens(), torch.full((1, 4), 0.25)).bias(EMPTY, 5)
