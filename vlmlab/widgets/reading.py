"""What models say of a bounded number of images: read once, kept, with progress and a button that stops it."""

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping

import numpy as np
import torch
import xarray as xr

from ..capturing.capture import capture
from ..capturing.rows import spread
from ..display import size
from ..feeds import batch_for
from ..measures.norms import norm_ratio
from ..methods.method import Method
from ..models.fingerprint import fingerprint
from ..tasks.split import Split
from ..token_labels import roles_of
from ..train.evaluate import predict, restored
from .watch import Watch

STREAM, FINAL, PROBS = "image.resid.post", "image.final", "image.attn.probs"
MEMORY = 256 * 2**20  # bytes of attention that are kept; one image's may be more


class Memory:
    """The last things made, up to so many bytes, by their key; the newest is kept whatever its size."""

    def __init__(self, most: int):
        self.most, self.kept = most, OrderedDict()

    def get(self, key: Hashable, make: Callable[[], object], nbytes: Callable[[object], int]):
        if key not in self.kept:
            self.kept[key] = made = make()
            total = sum(map(nbytes, self.kept.values()))
            while total > self.most and self.kept:
                oldest = next(iter(self.kept))
                if self.kept[oldest] is made:
                    break
                total -= nbytes(self.kept.pop(oldest))
        self.kept.move_to_end(key)
        return self.kept[key]


READ, LOOKED = Memory(MEMORY), Memory(MEMORY)


@dataclasses.dataclass(frozen=True)
class Reading:
    """What one model says of the images of one test.

    record: `streams`. logits: (sample, class) by the model's first rule. texts: (class, joint) class features.
    """

    record: xr.Dataset
    logits: np.ndarray
    texts: np.ndarray

    @property
    def nbytes(self) -> int:
        return self.record.nbytes + self.logits.nbytes + self.texts.nbytes

    @property
    def ratio(self) -> np.ndarray:
        """r(x), (sample,); NaN for a model without a prompt branch."""
        if not has_ratio(self.record):
            return np.full(len(self.logits), np.nan)
        return norm_ratio(self.record).values


def has_ratio(record: xr.Dataset) -> bool:
    return {"cls", "prompt"} <= set(record["branch"].values.tolist())


def some(test: Split, samples: int) -> Split:
    """At most so many images of a test, evenly spread over it."""
    return test.select(spread(len(test), samples))


def roles(method: Method, test: Split) -> list[str]:
    """The roles of the tokens of its image tower."""
    return roles_of(capture(method, test.select([0]), STREAM, keep=capture.norms, progress=False)[STREAM])


def streams(method: Method, test: Split) -> xr.Dataset:
    """The mean token of each role behind every block, (layer, sample, token, feature), and the features in the end.

    Where a role has one token, as the class token, that is the token itself.
    """
    sites, at_once = [STREAM, FINAL], batch_for(method.device)
    return capture(method, test, sites, keep={STREAM: means}, progress=False, batch_size=at_once)


def means(x, table):
    """Reducer: the mean token of each role that there is."""
    return capture.mean(*dict.fromkeys(role for role, _ in table.axis.tokens))(x, table)


def class_features(method: Method, test: Split) -> np.ndarray:
    """(class, joint) features of the classes of a test."""
    with restored(method), torch.no_grad():
        method.set_classes(list(test.classnames), test.template)
        return method.class_features().float().cpu().numpy()


def attention(method: Method, test: Split, sample: int) -> xr.DataArray:
    """Attention of one image in all blocks, (layer, head, query, token)."""
    record = capture(method, test.select([sample]), PROBS, progress=False)
    return record[PROBS].isel(sample=0, drop=True)


def seen(method: Method, test: Split, sample: int) -> np.ndarray:
    """An image as the model gets it, cut and resized: uint8 (height, width, 3)."""
    vlm = method.vlm
    pixels = vlm.preprocess(test.image(sample)).permute(1, 2, 0).numpy()
    return np.round(255 * np.clip(pixels * np.array(vlm.std) + np.array(vlm.mean), 0, 1)).astype(np.uint8)


def read(models: Mapping[str, Method], tests: Mapping[str, Split]) -> dict[tuple[str, str], Reading]:
    """(model, test) -> Reading, from memory where it was read before.

    Says first how much there is to read, then how far it is; `Stopped` by the button. What was read until then, or
    until an interrupt, is kept: the same call goes on.
    """
    asked, found = {(m, t): key(models[m], tests[t]) for t in tests for m in models}, {}
    watch = watch_of(models, tests, asked)
    if watch:
        watch.show()
    try:
        fill(found, models, tests, asked, watch)
    finally:
        if watch:
            line = f"read {watch.text.removeprefix('reading ')}, in {watch.seconds:.1f} s"
            kept = f"stopped; {len(found)} of {len(asked)} readings are kept, the same call goes on"
            watch.end(line if len(found) == len(asked) else kept)
    return found


def watch_of(models, tests, asked: Mapping[tuple[str, str], Hashable]) -> Watch | None:
    """A bar for the readings asked for that are not in memory, with their size; None where all are."""
    missing = [place for place, k in asked.items() if k not in READ.kept]
    images = sum(len(tests[t]) for _, t in missing)
    sizes = [
        len(tests[t]) * 3 * models[m].vlm.image.depth * models[m].vlm.image.width * 4 for m, t in missing
    ]
    return Watch(f"reading {images} images × models, about {size(sum(sizes))}", images) if missing else None


def fill(found: dict, models, tests, asked: Mapping[tuple[str, str], Hashable], watch: Watch | None) -> dict:
    """Put the readings asked for into `found`, one after the other."""
    for (m, t), k in asked.items():
        found[m, t] = READ.get(k, lambda m=m, t=t: one(models[m], tests[t], watch), lambda r: r.nbytes)
    return found


def key(method: Method, test: Split) -> tuple:
    """What determines a Reading."""
    own = fingerprint({name: value.detach() for name, value in method.own().items()})
    return type(method).__name__, str(method.config), own, method.vlm.fingerprint(), test.fingerprint()


def one(method: Method, test: Split, watch: Watch) -> Reading:
    watched = dataclasses.replace(test, read=watch.counting(test.read))
    record = streams(method, watched)
    with restored(method):
        plain = type(method).image_features is Method.image_features and method.precision == "fp32"
        logits = answered(method, test, record) if plain else predict(method, watched, rule=method.rules[0])
    return Reading(record, logits, class_features(method, test))


def answered(method: Method, test: Split, record: xr.Dataset) -> np.ndarray:
    """What `predict` gives, from features that were recorded: half the time, for a method that classifies these."""
    z = {
        str(b): torch.as_tensor(record[FINAL].sel(branch=b).values).to(method.device)
        for b in record["branch"].values
    }
    method.set_classes(list(test.classnames), test.template)
    with torch.inference_mode():
        return method.classify(z, method.rules[0]).float().cpu().numpy()
