"""Words as ids and back; which are hidden, and how."""

import pytest
import torch

from vlmlab.systems.masking import IGNORED, corrupted, masked_loss
from vlmlab.systems.words import CLS, DEC, MASK, PAD, SEP, SPECIAL, UNK, Words, frequent


def test_the_most_frequent_words_stay():
    texts = ["a red circle", "a red heart", "a circle?"]
    assert frequent(texts, 100) == ["a", "circle", "red", "?", "heart"]
    assert frequent(texts, len(SPECIAL) + 2) == ["a", "circle"]
    with pytest.raises(ValueError, match="vocabulary must be above 8"):
        frequent(texts, 8)


def test_texts_become_ids_and_texts_again():
    words = Words(["a", "red", "circle"])
    ids, real = words.batch(["A red [MASK]", "a blue, red circle"], 12)
    a, red, circle = (words.place[w] for w in ("a", "red", "circle"))
    assert ids.tolist() == [[CLS, a, red, MASK, SEP, PAD, PAD], [CLS, a, UNK, UNK, red, circle, SEP]]
    assert real.sum(1).tolist() == [5, 7]
    assert words.text(ids[1]) == "a red circle" and words.text([a, SEP, red]) == "a"
    cut, _ = words.batch(["a red circle"], 3)
    assert cut.tolist() == [[CLS, a, SEP]]
    started, _ = words.batch(["a red"], 12, first=DEC, end=False)
    assert started.tolist() == [[DEC, a, red]]
    assert words.batch([""], 12)[0].tolist() == [[CLS, SEP]]


def test_words_are_hidden_at_berts_rates_and_special_tokens_never():
    ids = torch.randint(0, 60, (400, 100), generator=torch.Generator().manual_seed(0))
    found = corrupted(ids, 60, generator=torch.Generator().manual_seed(1))
    words = ids >= len(SPECIAL)
    assert (found.kind[~words] == 0).all() and (found.ids[found.kind == 0] == ids[found.kind == 0]).all()
    selected = found.kind > 0
    assert (found.labels[selected] == ids[selected]).all() and (found.labels[~selected] == IGNORED).all()
    n = int(selected.sum())
    assert n / int(words.sum()) == pytest.approx(0.15, abs=0.01)
    for kind, share in ((1, 0.8), (2, 0.1), (3, 0.1)):
        assert int((found.kind == kind).sum()) / n == pytest.approx(share, abs=0.02)
    assert (found.ids[found.kind == 1] == MASK).all()
    assert (found.ids[found.kind == 3] == ids[found.kind == 3]).all()
    drawn = found.ids[found.kind == 2]
    assert drawn.min() == len(SPECIAL) and drawn.max() == 59
    again = corrupted(ids, 60, generator=torch.Generator().manual_seed(1))
    assert torch.equal(again.ids, found.ids)


def test_masked_loss_mixes_truth_and_teacher():
    g = torch.Generator().manual_seed(0)
    logits, soft = torch.randn(2, 2, 5, 9, generator=g)
    labels = torch.tensor([[1, IGNORED, 3, IGNORED, IGNORED], [IGNORED, 2, IGNORED, IGNORED, 8]])
    hard = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    assert masked_loss(logits, labels).item() == pytest.approx(hard.item(), rel=1e-6)
    assert masked_loss(logits, labels, soft, 0.0).item() == pytest.approx(hard.item(), rel=1e-6)
    at = labels != IGNORED
    kept = -(soft[at].softmax(1) * logits[at].log_softmax(1)).sum(1).mean()
    mixed = masked_loss(logits, labels, soft, 0.4).item()
    assert mixed == pytest.approx((0.6 * hard + 0.4 * kept).item(), rel=1e-6)
    nothing = torch.full_like(labels, IGNORED)
    assert masked_loss(logits, nothing, soft, 0.4).item() == 0 == masked_loss(logits, nothing).item()
