"""Settings of DoLa in both towers chosen on validation scenes, and the ways of decoding that are compared with them."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec
import pandas as pd

from ... import decode
from ...decode.settings import PLAIN, PLAN, scaled
from ...files import write
from ...source_code import digest as code_digest
from ..places import digest
from ..places import folder as place
from . import pair as pairs
from . import written
from .pair import Pair, Scenes, scenes_of

FAMILIES = {  # what is chosen together; the rest of the grid is `usual_grid`
    "dola_vision": (decode.Dola(language=False), ("image_contrast_layer", "fusion_strength")),
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
    return lambda dola, of: written.f1(written.told(pair.write(of.images, dola, of.seen), of.found))


def key(pair: Pair, count: int) -> str:
    """Digest of all that the choice depends on."""
    code = [
        *Path(decode.__file__).parent.glob("*.py"),
        *(Path(m.__file__) for m in (pairs, written)),
        Path(__file__),
    ]
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
    dynamic = {"contrast_layer": None, "fusion_strength": 0}
    return {
        "greedy": PLAIN,
        "fusion_plain": changed(vision, image=False),
        "dola_vision": vision,
        "dola_language": language,
        "dola_joint": both,
        "dola_joint_trie": changed(both, fusion="trie"),
        "dola_joint_plan": PLAN,
        "dola_raw": changed(language, readout="raw"),
        "dola_published": changed(language, **dynamic, layer_choice="published"),
        "dola_jsd": changed(language, **dynamic, layer_choice="jensen_shannon"),
    }


def changed(dola: decode.Dola, **fields) -> decode.Dola:
    """The settings with other values of some fields, checked anew."""
    return decode.Dola(**msgspec.structs.asdict(dola) | fields)


def measured(
    pair: Pair, of: Scenes, ways: Mapping[str, decode.Dola], domain: str
) -> tuple[pd.DataFrame, dict]:
    """Rows method, task, concept, metric, value of `written.rates` for every way of decoding, and way -> texts."""
    texts = {name: pair.write(of.images, dola, of.seen) for name, dola in ways.items()}
    parts = [written.rates(written.told(said, of.found)).assign(method=name) for name, said in texts.items()]
    return pd.concat(parts, ignore_index=True).assign(task=domain), texts


def sweep(
    pair: Pair, of: Scenes, dola: decode.Dola, field: str, values: Iterable[float], domain: str
) -> pd.DataFrame:
    """The same rows with one field of the settings at every value: columns setting and x in place of method."""
    rows, _ = measured(pair, of, {str(x): changed(dola, **{field: x}) for x in values}, domain)
    return rows.assign(setting=field, x=rows["method"].astype(float)).drop(columns="method")


def buckets(plan: pd.DataFrame, tower: str, depth: int) -> list[tuple[int, int]]:
    """The plan's buckets of layers, first and last each, at the same share of another depth; plan: its table."""
    stated = plan[plan["tower"] == tower].set_index("metric")["mean"]
    ends = [scaled(int(stated[f"bucket_{i}"]), int(stated["depth"]), depth) for i in (1, 2, 3)]
    return list(zip([1, *(end + 1 for end in ends[:2])], ends))


def in_buckets(rows: pd.DataFrame, plan: pd.DataFrame, depths: Mapping[str, int]) -> pd.DataFrame:
    """The rows (tower, layer) with a column bucket: 1, 2 or 3; 0 for what enters the first block and for the last."""
    found = {}
    for tower, depth in depths.items():
        for number, (low, high) in enumerate(buckets(plan, tower, depth), 1):
            found |= {(tower, layer): number for layer in range(low, min(high, depth - 1) + 1)}
    return rows.assign(bucket=[found.get(at, 0) for at in zip(rows["tower"], rows["layer"])])
