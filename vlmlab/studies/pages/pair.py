"""A vision-language model and a dual tower before scenes of which everything is known: what is written of them by every
way of decoding, how much of it is true, and the settings chosen on validation scenes."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

import vlmlab

from ... import decode
from ...cli.decoding import prompt
from ...decode.settings import PLAIN, PLAN
from ...files import write
from ...models.huggingface import LanguageModel
from ...models.vlm import VLM
from ...source_code import digest as code_digest
from ...tasks.captions import Captions
from ...tasks.shapes import facts
from ...tasks.shapes.composition import COLOURS, SHAPES
from ...tasks.shapes.tasks import scenes
from ..claims.resampling import weights
from ..places import digest
from ..places import folder as place

DOMAINS = {"one": "one shape", "pairs": "two shapes", "many": "one to four shapes"}  # kind of scene -> in print
SEEDS = {"val": 12, "test": 11}  # of scenes that nothing else looks at
OBJECTS = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)  # what the dual tower may see
FACTS = ("objects", "colours", "shapes", "counts")
TOKENS = 32  # at most, of a caption
BATCH = 64  # scenes


@dataclasses.dataclass(frozen=True)
class Pair:
    """model: writes. dual: scores candidates, put into `template`. question: what the model is asked about an image."""

    model: LanguageModel
    dual: VLM
    question: str
    template: str

    @property
    def depths(self) -> tuple[int, int]:
        """Blocks of the language model and of the image tower of the dual one."""
        return len(self.model.language), self.dual.image.depth

    def inputs(self, images: Sequence) -> dict[str, Tensor]:
        """What the model takes of images and its question, a row an image."""
        asked = prompt(self.model, self.question, images[0])
        found = self.model.processor(text=[asked] * len(images), images=list(images), return_tensors="pt")
        return {k: v.to(self.model.device) for k, v in found.items() if isinstance(v, Tensor)}

    @functools.cached_property
    def ends(self) -> dict:
        """Keywords of `generate`: greedy, and what stands behind a caption that has ended."""
        tokenizer = self.model.tokenizer
        return {"do_sample": False, "max_new_tokens": TOKENS, "pad_token_id": tokenizer.pad_token_id or tokenizer.eos_token_id}

    def write(self, images: Sequence, dola: decode.Dola, seen: Tensor | None = None, **options) -> list[str]:
        """A text for each image, decoded greedily; seen: (layer, image, object) logits of `look`, for the fusion."""
        texts = []
        for start in range(0, len(images), BATCH):
            some = slice(start, start + BATCH)
            inputs = self.inputs(images[some])
            found = None if seen is None else candidates(seen[:, some], dola)
            ids = decode.generate(self.model, inputs, dola, found, **self.ends | options)
            texts += self.model.tokenizer.batch_decode(new_tokens(ids, inputs), skip_special_tokens=True)
        return [text.strip() for text in texts]

    def look(self, images: Sequence) -> Tensor:
        """(layer, image, object) what the dual tower says of `OBJECTS`, read behind every block from 0 on."""
        parts = [
            decode.candidate_logits(
                self.dual, images[i : i + BATCH], OBJECTS, range(self.depths[1] + 1), self.template
            )
            for i in range(0, len(images), BATCH)
        ]
        return torch.cat(parts, dim=1)


def open_pair(model: str, dual: str, dual_weights: str = "", question: str = "", template: str = "a {}") -> Pair:
    """Both models by name. ValueError for a model that does not write or does not see; `load` says what a model lacks."""
    writes = vlmlab.load(model, precision="fp32")
    sees = vlmlab.load(dual, dual_weights or None, precision="fp32")
    if not isinstance(writes, LanguageModel) or not hasattr(writes.processor, "tokenizer"):
        raise ValueError(f"model={model!r} is no vision-language model with a processor that takes images")
    if not isinstance(sees, VLM):
        raise ValueError(f"dual={dual!r} is no dual tower (CLIP or SigLIP)")
    return Pair(writes, sees, question, template)


def new_tokens(ids: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
    """(row, token) what was written, of what `generate` returns, which begins with the prompt unless it is left out."""
    before = inputs["input_ids"]
    length = before.shape[1]
    return ids[:, length:] if ids.shape[1] >= length and torch.equal(ids[:, :length], before) else ids


def candidates(seen: Tensor, dola: decode.Dola) -> decode.Candidates:
    """What the dual tower says under some settings, of the logits (layer, image, object) of all layers."""
    layer = dola.image_layer(len(seen) - 1) if dola.image else None
    return decode.contrasted(OBJECTS, seen[-1], seen[layer or 0], layer, dola.image_apc_threshold)


@dataclasses.dataclass(frozen=True)
class Scenes:
    """Scenes of one kind with their pictures; seen: of `Pair.look`."""

    found: Captions
    images: list
    seen: Tensor

    def __len__(self) -> int:
        return len(self.images)


def scenes_of(pair: Pair, side: str, count: int) -> dict[str, Scenes]:
    """Domain -> `count` scenes of a side, "val" or "test"."""
    found = {kind: scenes(count, SEEDS[side], kind, side) for kind in DOMAINS}
    pictures = {kind: [of.image(i) for i in range(len(of))] for kind, of in found.items()}
    return {kind: Scenes(of, pictures[kind], pair.look(pictures[kind])) for kind, of in found.items()}


# ----------------------------------------------------------------------------- what is true of what was written


def told(texts: Sequence[str], found: Captions) -> pd.DataFrame:
    """A row a scene and kind of fact: concept (the scene), fact, said, shown (how many), right (of both)."""
    rows = []
    for id, text, true in zip(found.ids, texts, found.texts, strict=True):
        said, shown = facts(text), facts(true)
        rows += [(id, k, len(said[k]), len(shown[k]), len(said[k] & shown[k])) for k in FACTS]
    return pd.DataFrame(rows, columns=["concept", "fact", "said", "shown", "right"])


def rates(rows: pd.DataFrame) -> pd.DataFrame:
    """The same in percent of a scene: `accuracy` of what is shown is said, `hallucinated` of what is said is not there (0
    where nothing is said: read both). Columns concept, metric ("objects accuracy"), value."""
    parts = {
        "accuracy": 100 * rows["right"] / rows["shown"],
        "hallucinated": 100 * (rows["said"] - rows["right"]) / rows["said"].clip(lower=1),
    }
    return pd.concat(
        [
            pd.DataFrame({"concept": rows["concept"], "metric": rows["fact"] + f" {name}", "value": value})
            for name, value in parts.items()
        ],
        ignore_index=True,
    )


def f1(rows: pd.DataFrame) -> float:
    """Percent: harmonic mean of how much of what is shown is said and how much of what is said is shown, over all scenes,
    mean over kinds of fact. 0 where nothing is said."""
    sums = rows.groupby("fact")[["said", "shown", "right"]].sum()
    return float((200 * sums["right"] / (sums["said"] + sums["shown"])).mean())


def compared(rows: pd.DataFrame, of: str, against: str) -> dict[str, float]:
    """The mean difference of two methods over scenes and its 95 % interval: scenes drawn anew within their task, both
    methods on the same ones.

    rows: method, task, concept, value, of one metric. Returns effect, low, high.
    """
    wide = rows.pivot_table("value", ["task", "concept"], "method")
    return drawn((wide[of] - wide[against]).rename("value").reset_index())


def drawn(rows: pd.DataFrame) -> dict[str, float]:
    """Mean over tasks of the mean over scenes, with the 95 % interval of scenes drawn anew; rows: task, concept, value."""
    draws = weights(rows["concept"], rows[["task"]])
    sums = (draws.loc[rows["concept"]].to_numpy() * rows["value"].to_numpy()[:, None], draws.loc[rows["concept"]].to_numpy())
    total, count = (pd.DataFrame(part).groupby(rows["task"].to_numpy()).sum() for part in sums)
    means = (total / count).mean()
    low, high = np.quantile(means[1:], [0.025, 0.975])
    return {"effect": float(means[0]), "low": float(low), "high": float(high)}


def verdict(effect: float, low: float, high: float, lower_is_better: bool) -> str:
    """What an interval of a difference shows: helps, hurts, or neither."""
    if low <= 0 <= high:
        return "neither helps nor hurts, by the interval"
    return "helps" if (effect < 0) == lower_is_better else "hurts"


# ----------------------------------------------------------------------------- settings chosen on validation scenes

FAMILIES = {  # what is chosen together; the rest of the grid is `usual_grid`
    "dola_vision": (PLAN_VISION := decode.Dola(language=False), ("image_contrast_layer", "fusion_strength")),
    "dola_language": (decode.Dola(fusion_strength=0), ("contrast_layer", "apc_threshold")),
    "dola_joint": (PLAN, ("contrast_layer", "image_contrast_layer", "apc_threshold", "fusion_strength")),
}


def chosen(pair: Pair, runs: str | Path, count: int) -> tuple[dict[str, decode.Choices], pd.DataFrame, Path]:
    """What decodes validation scenes best (F1), for each family of settings and domain: the choices, the table of all that
    was tried, and the file of those of both towers, for `decode.generate`.

    Made once for the same models, code and number of scenes, and kept in `runs`. Strengths of the fusion are above 0,
    so that each family does what it is called by; 0 leaves "dola_language".
    """
    home = place(runs) / "dola_static" / key(pair, count)
    files = {name: home / f"{name}.json" for name in FAMILIES}
    table = home / "tried.csv"
    if not table.is_file():
        val, parts = scenes_of(pair, "val", count), []
        for name, (base, fields) in FAMILIES.items():
            usual = decode.usual_grid(*pair.depths)
            grid = {f: [x for x in usual[f] if f != "fusion_strength" or x > 0] for f in fields}
            found, tried = decode.choose(score_of(pair), val, grid, pair.depths[0], base)
            found.save(files[name])
            parts.append(tried.assign(family=name))
        whole = pd.concat(parts, ignore_index=True)
        write(table, lambda path: whole.to_csv(path, index=False))
    choices = {name: decode.Choices.load(path) for name, path in files.items()}
    return choices, pd.read_csv(table), files["dola_joint"]


def score_of(pair: Pair) -> Callable[[decode.Dola, Scenes], float]:
    """What `decode.choose` maximises."""
    return lambda dola, of: f1(told(pair.write(of.images, dola, of.seen), of.found))


def key(pair: Pair, count: int) -> str:
    """Digest of all that the choice depends on."""
    code = [*Path(decode.__file__).parent.glob("*.py"), Path(__file__)]
    return digest(
        {
            "models": [pair.model.fingerprint(), pair.dual.fingerprint(), pair.question, pair.template],
            "code": {path.name: code_digest(path) for path in sorted(code)},
            "scenes": count,
        }
    )


def variants(choices: Mapping[str, decode.Choices], domain: str) -> dict[str, decode.Dola]:
    """Ways of decoding by name: plain, what the dual tower sees without contrast, each tower alone, both; and controls, the
    plan's own numbers, the raw read-out, and layers chosen anew at each step."""
    vision, language, both = (choices[name].of(domain) for name in FAMILIES)
    change = lambda dola, **fields: decode.Dola(**{f: getattr(dola, f) for f in dola.__struct_fields__} | fields)
    dynamic = {"contrast_layer": None, "fusion_strength": 0}
    return {
        "greedy": PLAIN,
        "fusion_plain": change(vision, image=False),
        "dola_vision": vision,
        "dola_language": language,
        "dola_joint": both,
        "dola_joint_trie": change(both, fusion="trie"),
        "dola_joint_plan": PLAN,
        "dola_raw": change(language, readout="raw"),
        "dola_published": change(language, **dynamic, layer_choice="published"),
        "dola_jsd": change(language, **dynamic, layer_choice="jensen_shannon"),
    }
