"""What the card of a model measures on its features: zero-shot, probe, retrieval, scenes, emotions.

Every function returns rows (see `row`). Shares are 0 to 1. Standard errors are over concepts, because
pictures of one concept are not independent.
"""

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from .. import methods, progress
from ..models.load import VLM
from ..tasks import Split, task
from ..tasks.emoji import data as emoji
from ..tasks.emoji import pictures as emoji_pictures
from ..tasks.emoji import scenes as emoji_scenes
from ..tasks.emoji.retrieval import retrieval_set
from ..tasks.emoji.tasks import GROUPS, grounds

UNSEEN = (*emoji.SOURCE_STYLES, *emoji.SHIFT_STYLES)
SEEN = "twemoji"  # the pretraining style that draws every concept
SHOTS = 16
BACKGROUNDS = 2  # white and one colour ground; one class per emoji has enough pictures on white


Head = tuple[str, str, str, str]  # measure, task, style, concepts: the first fields of a row


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is measured.

    retrieval: pairs per set, None for all; scenes, objects, named: pictures per style.
    """

    groups: tuple[str, ...] = tuple(GROUPS)
    seeds: tuple[int, ...] = (1, 2, 3)
    retrieval: int | None = None
    scenes: int = 400
    objects: int = 250
    named: int = 120


FULL = Size()
QUICK = Size(groups=("food", "activities"), seeds=(1,), retrieval=60, scenes=24, objects=16, named=8)


def row(
    measure: str,
    task: str,
    style: str,
    concepts: str,
    metric: str,
    value: float,
    chance: float,
    n: int,
    se: float = np.nan,
) -> dict:
    """One measured number. concepts: 'known' or 'novel'; n: pictures, scenes or captions asked about."""
    return {
        "measure": measure,
        "task": task,
        "style": style,
        "concepts": concepts,
        "metric": metric,
        "value": float(value),
        "chance": float(chance),
        "n": int(n),
        "se": float(se),
    }


class Bank:
    """Features of pictures (by id) and of texts; each is encoded once."""

    def __init__(self, vlm: VLM, batch: int = 128):
        self.vlm, self.batch = vlm, batch
        self.pictures: dict[str, Tensor] = {}
        self.read: dict[str, Tensor] = {}

    @torch.no_grad()
    def encode(self, pictures: Iterable) -> Tensor:
        """PIL pictures -> (picture, joint) float32 features, not normalised."""
        x = torch.stack([self.vlm.preprocess(p) for p in pictures])
        with self.vlm.autocast():
            return torch.cat(
                [self.vlm.encode_image(b.to(self.vlm.device)).float().cpu() for b in x.split(self.batch)]
            )

    def images(self, ids: list[str]) -> Tensor:
        """(id, joint) float32, not normalised; ids as in `vlmlab.tasks.emoji.pictures`."""
        new = [i for i in dict.fromkeys(ids) if i not in self.pictures]
        for at in progress.bar(
            range(0, len(new), self.batch), desc="pictures", shown=len(new) >= 1000, leave=False
        ):
            part = new[at : at + self.batch]
            self.pictures.update(zip(part, self.encode(map(emoji_pictures.image, part)), strict=True))
        return torch.stack([self.pictures[i] for i in ids])

    @torch.no_grad()
    def texts(self, texts: list[str]) -> Tensor:
        """(text, joint) unit features."""
        new = [t for t in dict.fromkeys(texts) if t not in self.read]
        for at in range(0, len(new), self.batch):
            part = new[at : at + self.batch]
            with self.vlm.autocast():
                self.read.update(zip(part, self.vlm.encode_text(part).float().cpu(), strict=True))
        return F.normalize(torch.stack([self.read[t] for t in texts]), dim=-1)

    def fits(self, texts: list[str]) -> np.ndarray:
        """(text,) bool: whether a text ends before the last token of the context, so that nothing is cut."""
        ids = self.vlm.tokenizer(texts)
        return (ids[:, -1] != ids.max()).numpy()


def drawn(style: str, hexcodes: Iterable[str]) -> list[str]:
    """The concepts that a style draws and no pretraining picture resembles too closely."""
    return [h for h in hexcodes if (style, h) in emoji.webp() and (style, h) not in emoji.near_duplicates()]


def hexcodes(ids: Iterable[str]) -> list[str]:
    return [emoji_pictures.parse(i)[1] for i in ids]


def rates(correct: np.ndarray, labels: np.ndarray, concepts: list[str]) -> dict[str, tuple[float, float]]:
    """{'accuracy', 'balanced accuracy'} -> (value, standard error over concepts).

    correct: (picture,) 0 to 1; labels (picture,); concepts: hexcode per picture. Balanced accuracy is
    the mean over the classes present; deviations are taken from the pooled value, which also
    serves classes with a single concept.
    """
    pictures = pd.DataFrame({"concept": concepts, "label": labels, "correct": correct})
    table = pictures.groupby("concept").agg(
        label=("label", "first"), right=("correct", "mean"), size=("correct", "size")
    )
    in_class = table.groupby("label")["size"].transform("sum")
    out = {}
    for name, share in (
        ("accuracy", table["size"] / table["size"].sum()),
        ("balanced accuracy", table["size"] / in_class / table["label"].nunique()),
    ):
        value = float((share * table["right"]).sum())
        out[name] = value, float(np.sqrt((share**2 * (table["right"] - value) ** 2).sum()))
    return out


def questions(id: str) -> dict[str, Split]:
    """The splits of a task that ask about known and about novel concepts, in the source styles."""
    return {"known": task(id).tests["test"], "novel": task(id, protocol="domain_shift").tests["novel"]}


def redrawn(split: Split, style: str, backgrounds: int = BACKGROUNDS) -> Split:
    """The same concepts and labels in another style, on white and backgrounds - 1 colour grounds."""
    label = dict(zip(hexcodes(split.ids), split.labels, strict=True))
    ids = [f"{style}/{h}{v}" for h in drawn(style, label) for v in grounds(backgrounds)]
    labels = np.array([label[h] for h in hexcodes(ids)], dtype=np.int64)
    return dataclasses.replace(split, ids=ids, labels=labels, distributions=None)


@torch.no_grad()
def guesses(bank: Bank, split: Split) -> Tensor:
    """(picture, class) log-probabilities of the method zero_shot, with the template of the task."""
    classifier = methods.build("zero_shot", bank.vlm, list(split.classnames), split.template)
    with bank.vlm.autocast():
        texts = classifier.class_features().float().cpu()
    images = F.normalize(bank.images(split.ids), dim=-1)
    return (bank.vlm.logit_scale * images @ texts.T).log_softmax(dim=1)


def right(bank: Bank, split: Split) -> np.ndarray:
    """(picture,) 1.0 where zero-shot names the class."""
    return (guesses(bank, split).argmax(1).numpy() == split.labels).astype(float)


def classified(styles: Iterable[str], size: Size) -> Iterator[tuple[Head, Split]]:
    """The head of its rows and the pictures of every subgroup task and every task with one class per emoji.

    Known concepts of the subgroup tasks are those of the test half: no caption said their class.
    """
    for id in [f"emoji/{g}{kind}" for kind in ("", "-fine") for g in size.groups]:
        for concepts, split in questions(id).items():
            for style in styles:
                part = redrawn(split, style, 1 if id.endswith("-fine") else BACKGROUNDS)
                yield ("zero_shot", id, style, concepts), part


def zero_shot(bank: Bank, styles: Iterable[str], size: Size) -> list[dict]:
    """Accuracy of what `classified` shows; chance is 1 / classes."""
    rows = []
    for head, part in classified(styles, size):
        found = rates(right(bank, part), part.labels, hexcodes(part.ids))
        rows += [
            row(*head, metric, value, 1 / len(part.classnames), len(part), se)
            for metric, (value, se) in found.items()
        ]
    return rows


def overlap(bank: Bank, size: Size) -> list[dict]:
    """Zero-shot on subgroup classes, apart for test concepts whose name or tags say the class.

    Names and tags were captions. Rows: the share of such concepts, and the accuracy with and without,
    over all subgroup tasks.
    """
    frames, said = [], {c.hexcode: " ".join([c.name, *c.tags]) for c in emoji.concepts().itertuples()}
    for id in [f"emoji/{g}" for g in size.groups]:
        test = task(id).tests["test"]
        names = hexcodes(test.ids)
        with_word = [test.classnames[c] in said[h] for c, h in zip(test.labels, names, strict=True)]
        frames.append(
            pd.DataFrame(
                {
                    "concept": names,
                    "right": right(bank, test),
                    "word": with_word,
                    "chance": 1 / len(test.classnames),
                }
            )
        )
    table = pd.concat(frames).groupby("concept").mean()
    head = ("overlap", "subgroups", "sources", "known")
    rows = [row(*head, "class word in name or tags", table["word"].mean(), np.nan, len(table))]
    for has, part in table.groupby("word"):
        rows.append(
            row(
                *head,
                f"accuracy {'with' if has else 'without'} the word",
                part["right"].mean(),
                part["chance"].mean(),
                len(part),
                part["right"].sem(),
            )
        )
    return rows


def probe(bank: Bank, size: Size) -> list[dict]:
    """16-shot linear probe on frozen features, beside zero-shot on the same test pictures.

    Both source styles; a shot is shown on the same two kinds of ground as the test pictures.
    The value is the mean over seeds, with its standard error over concepts; the one over seeds is a row.
    """
    rows = []
    for id in [f"emoji/{g}" for g in size.groups]:
        test = task(id, backgrounds=BACKGROUNDS).tests["test"]
        hits = []
        for seed in size.seeds:
            shots = task(id, protocol="few_shot", shots=SHOTS, seed=seed).train
            hits.append(fit_probe(bank, shots).predict(bank.images(test.ids).numpy()) == test.labels)
        head, names = ("probe", id, "sources", "known"), hexcodes(test.ids)
        for metric, correct in (("zero_shot", right(bank, test)), ("probe_16", np.mean(hits, axis=0))):
            value, se = rates(correct, test.labels, names)["balanced accuracy"]
            rows.append(row(*head, metric, value, 1 / len(test.classnames), len(test), se))
        each = [rates(c, test.labels, names)["balanced accuracy"][0] for c in hits]
        spread = np.std(each, ddof=1) / len(each) ** 0.5 if len(each) > 1 else np.nan
        rows.append(row(*head, "probe_16 se over seeds", spread, np.nan, len(test)))
    return rows


def fit_probe(bank: Bank, shots: Split) -> GridSearchCV:
    """Logistic regression; C by cross-validation on the shots, one concept never on both sides."""
    ids = [f"{i}{v}" for i in shots.ids for v in grounds(BACKGROUNDS)]
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    search = GridSearchCV(
        model,
        {"logisticregression__C": [1e-3, 1e-2, 1e-1, 1.0, 10.0]},
        cv=StratifiedGroupKFold(4, shuffle=True, random_state=0),
    )
    return search.fit(bank.images(ids).numpy(), np.repeat(shots.labels, BACKGROUNDS), groups=hexcodes(ids))


def ranks(similarity: Tensor) -> Tensor:
    """(query, item) where item i answers query i -> rank of the answer from 1; ties count against it."""
    return (similarity >= similarity.diagonal()[:, None]).sum(1)


def recalls(head: Head, similarity: Tensor) -> list[dict]:
    """R@1, R@5, R@10 and the median rank in both directions for n pairs (image, text)."""
    rows, n = [], len(similarity)
    for direction, matrix in (("i2t", similarity), ("t2i", similarity.T)):
        rank = ranks(matrix).numpy()
        for k in (1, 5, 10):
            value = (rank <= k).mean()
            se = np.sqrt(value * (1 - value) / n)
            rows.append(row(*head, f"{direction} R@{k}", value, min(1, k / n), n, se))
        rows.append(row(*head, f"{direction} median rank", np.median(rank), (n + 1) / 2, n))
    return rows


def matched(bank: Bank, styles: Iterable[str], size: Size) -> Iterator[tuple[Head, Tensor]]:
    """The head of its rows and the cosines (image, text) of every retrieval set.

    Each picture on white and its caption among all: names, and keywords that pretraining never read. A seen
    style is asked for the concepts of the first source style. Then scenes of two objects, "a dog and a car.",
    in the styles never seen. Captions too long for the model are left out.
    """
    styles = list(styles)
    for style in styles:
        for captions in ("names", "keywords"):
            for concepts in ("known", "novel"):
                source = style if style in UNSEEN else UNSEEN[0]
                pairs = retrieval_set(source, captions, size.retrieval, novel=concepts == "novel")
                pairs = pairs.select(np.flatnonzero(bank.fits(pairs.texts)))
                images = bank.images([f"{style}/{h}" for h in hexcodes(pairs.ids)])
                cosines = F.normalize(images, dim=-1) @ bank.texts(pairs.texts).T
                yield ("retrieval", captions, style, concepts), cosines
    for style in [s for s in styles if s in UNSEEN]:
        found = emoji_scenes.scenes(size.scenes, style=style)
        images = F.normalize(bank.encode(map(found.image, range(len(found)))), dim=-1)
        yield ("scenes", "names", style, "known"), images @ bank.texts(found.texts).T


def retrieve(bank: Bank, styles: Iterable[str], size: Size) -> list[dict]:
    """Recalls and median ranks of what is `matched`."""
    return [r for head, cosines in matched(bank, styles, size) for r in recalls(head, cosines)]


def emotions(bank: Bank, styles: Iterable[str]) -> list[dict]:
    """Zero-shot emotions of faces.

    Accuracy stands against the majority class, KL(label, guess) against the uniform guess. The guess is
    the softmax at the model's own temperature.
    """
    rows, soft = [], emoji.emotions()
    for concepts, split in questions("emoji/emotions").items():
        for style in styles:
            part = redrawn(split, style)
            names, classes, n = hexcodes(part.ids), len(part.classnames), len(part)
            head = ("emotions", "emoji/emotions", style, concepts)
            for metric, (value, se) in rates(right(bank, part), part.labels, names).items():
                chance = part.counts().max() / n if metric == "accuracy" else 1 / classes
                rows.append(row(*head, metric, value, chance, n, se))
            label = torch.tensor(soft.loc[names].to_numpy(np.float32))  # (picture, emotion)
            uniform = torch.full_like(label, -np.log(classes))
            kl, flat = (F.kl_div(g, label, reduction="none").sum(1) for g in (guesses(bank, part), uniform))
            kl = pd.Series(kl.numpy()).groupby(names).mean()
            rows.append(row(*head, "KL", kl.mean(), flat.mean(), n, kl.sem()))
    return rows
