"""What capture runs: one tower of a model over batches of data, with ids and labels."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from ..models.fingerprint import fingerprint
from ..models.model import Model
from ..models.tokens import Observer, Tokens, observed
from ..token_labels import SampleRoles, tokens_of
from .module_tower import ModuleTower, towers_of
from .patches import grids_of
from .rows import Rows, rows_of
from .text_roles import of_ends

COARSE = {"amp_bf16": torch.bfloat16, "amp_fp16": torch.float16}  # the coarsest first


@dataclasses.dataclass
class Source:
    """One tower and its inputs.

    run: batch -> features per branch, {"cls": (batch, joint), ...}; runs the tower exactly once.
    batches: (first=0) -> (number of the first sample, batch), from sample `first` on. roles: batch -> roles
    of the tower's tokens that depend on the sample, or None; asked for after block 1 was entered.
    words: at most so many words of each text are kept, up to the last EOS of all; None for all. coords:
    arrays on the sample axis. key: () -> what determines the outputs besides the data, in named parts. weights:
    () -> names and values of the model's parameters.
    """

    model: str
    tower: object
    run: Callable[..., dict[str, Tensor]]
    batches: Callable[..., Iterator[tuple[int, object]]]
    coords: dict[str, np.ndarray]
    attrs: dict[str, str]
    key: Callable[[], dict[str, str]]
    precision: str = "fp32"
    autocast: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext
    roles: Callable[[object], SampleRoles | None] = lambda batch: None
    words: int | None = None
    weights: Callable[[], Iterable[tuple[str, Tensor]]] = tuple

    @property
    def kind(self) -> str:
        return self.tower.kind

    def __len__(self) -> int:
        return len(self.coords["id"])

    @contextlib.contextmanager
    def exact(self) -> Iterator[None]:
        """Text runs without the shortcuts that cache blocks or cut by batch; it is cut here instead."""
        before, self.tower.shortcuts = self.tower.shortcuts, False
        try:
            yield
        finally:
            self.tower.shortcuts = before


def open_source(
    model,
    data,
    kind: str,
    limit: int | None,
    batch_size: int,
    family=None,
    preprocess: Callable | None = None,
    generate: Mapping | None = None,
) -> Source:
    """The source of a VLM, a Method (anything with a `vlm`) or another library's module, for one tower.

    Raises ValueError for data that this tower cannot take, for a model in training mode, and for a generation
    by a model that has none or without a number of new tokens.
    """
    if not isinstance(batch_size, int) or batch_size < 1 or (limit is not None and limit < 1):
        raise ValueError(f"batch_size {batch_size!r} and limit {limit!r} must be at least 1")
    tower = towers_of(model, family)[kind]
    if model.training:
        raise ValueError(f"{type(model).__name__} is in training mode; call model.eval() first")
    if generate is not None:
        check_generation(model, generate)
        tower.generate = generate
    if isinstance(tower, ModuleTower):
        return (of_model if isinstance(model, Model) else of_module)(
            model, tower, data, limit, batch_size, preprocess
        )
    is_method = hasattr(model, "class_features")
    vlm = model.vlm if is_method else model
    attrs = {"model": vlm.name, "tower": kind, "method": type(model).__name__ if is_method else ""}
    if is_method:
        attrs["config"] = str(getattr(model, "config", ""))
    common = {
        "attrs": attrs,
        "precision": coarsest(vlm, vlm.precision),
        "autocast": vlm.autocast,
        "key": lambda: key_of(model, vlm, kind),
        "weights": model.named_parameters,
    }
    if kind == "image":
        if isinstance(data, Mapping) and "pixel_values" in data:
            data = data["pixel_values"]
        return images(
            model, vlm, rows_of(data, kind, limit, preprocess or vlm.preprocess), batch_size, common
        )
    if is_method:
        return class_prompts(model, vlm, data, limit, common)
    return texts(vlm, data, limit, batch_size, common)


def coarsest(module: torch.nn.Module, precision: str = "fp32") -> str:
    """The coarsest of a precision and those of a module's weights, of which some may be half and others not."""
    kinds = {p.dtype for p in module.parameters()}
    return next((name for name, kind in COARSE.items() if name == precision or kind in kinds), precision)


def check_generation(model, generate: Mapping) -> None:
    """ValueError unless a model generates and is told how many tokens."""
    if not hasattr(model, "generate"):
        raise ValueError(f"{type(model).__name__} has no method generate; leave out generate=")
    if not isinstance(generate.get("max_new_tokens"), int) or generate["max_new_tokens"] < 1:
        raise ValueError(f"generate={dict(generate)} needs max_new_tokens, a whole number of at least 1")


def batches_of(rows: Rows, batch_size: int, device: torch.device) -> Callable[..., Iterator]:
    """`Source.batches` of rows, on a device. ValueError names the first sample that holds NaN."""

    def batches(first=0):
        for start in range(first, len(rows.ids), batch_size):
            batch = rows.take(range(start, min(start + batch_size, len(rows.ids))))
            for x in batch.values() if isinstance(batch, Mapping) else [batch]:
                bad = (
                    ~x.isfinite().reshape(len(x), -1).all(dim=1) if x.is_floating_point() else torch.zeros(1)
                )
                if bad.any():
                    name = str(rows.ids[start + int(bad.nonzero()[0])])
                    raise ValueError(f"{int(bad.sum())} images hold NaN or infinity, the first is {name!r}")
            yield (
                start,
                (
                    {k: x.to(device) for k, x in batch.items()}
                    if isinstance(batch, Mapping)
                    else batch.to(device)
                ),
            )

    return batches


def images(model, vlm, rows: Rows, batch_size: int, common: dict) -> Source:
    def run(batch):
        out = model.encode_image(batch)
        return {"cls": out} if model is vlm else {k: v for k, v in out.items() if v is not None}

    return Source(
        common["attrs"]["method"] or vlm.name,
        vlm.image,
        run,
        batches_of(rows, batch_size, vlm.device),
        rows.coords,
        **common,
    )


def of_model(model: Model, tower: ModuleTower, data, limit, batch_size, preprocess) -> Source:
    """The source of a model that `load` gives and that is no VLM: it makes its inputs and runs in its precision."""
    texts, label = texts_of(data) if tower.kind == "text" else (None, None)
    inputs = data if texts is None else model.tokenize(texts)
    preprocess = preprocess or getattr(model, "preprocess", None)
    source = of_module(model.wrapped, tower, inputs, limit, batch_size, preprocess)
    source.model, source.precision = model.name, coarsest(model.wrapped, model.precision)
    source.attrs |= {"model": model.name} | ({"package": model.package} if model.package else {})
    source.autocast, key = model.autocast, source.key
    source.key = lambda: key() | {"weights": model.fingerprint(), "precision": model.precision}
    if hasattr(model, "features"):
        source.run = lambda batch: {"output": model.features(batch)}
    if texts is not None:
        chosen = source.coords["id"].astype(int)
        source.coords["id"] = np.array(texts)[chosen]
        source.coords |= {} if label is None else {"label": label[chosen]}
    return source


def of_module(model, tower: ModuleTower, data, limit, batch_size, preprocess) -> Source:
    data = tower.taken(data) if isinstance(data, Mapping) else data
    rows, weight = rows_of(data, tower.kind, limit, preprocess), next(model.parameters())
    coords = rows.coords
    if tower.patches is not None and isinstance(data, Mapping):
        coords |= {name: x[rows.chosen] for name, x in grids_of(tower.patches, data).items()}
    attrs = {"model": type(model).__name__, "tower": tower.kind, "method": ""}

    def key():
        return {
            "weights": fingerprint(model.state_dict()),
            "method": "" if tower.generate is None else f"generate {dict(tower.generate)}",
            "precision": " ".join(
                sorted({str(p.dtype) for p in model.parameters() if p.is_floating_point()})
            ),
            "pixels": f"{type(model).__name__} {tower.given}",
        }

    return Source(
        attrs["model"],
        tower,
        tower.run,
        batches_of(rows, batch_size, weight.device),
        coords,
        attrs,
        key,
        coarsest(model),
        roles=tower.roles,
        weights=model.named_parameters,
    )


def texts_of(data) -> tuple[list[str] | None, np.ndarray | None]:
    """A list of texts, or a Split's class prompts and their labels; None for other data."""
    labels = None
    if hasattr(data, "prompts"):
        data, labels = data.prompts, np.arange(len(data.prompts))
    given = isinstance(data, (list, tuple)) and data and all(isinstance(t, str) for t in data)
    return (list(data), labels) if given else (None, None)


def texts(vlm, data, limit, batch_size, common) -> Source:
    kind, (data, labels) = type(data).__name__, texts_of(data)
    if data is None:
        raise ValueError(f"text sites need a list of texts or a Split, got {kind}")
    rows = rows_of(vlm.tokenize(data), "text", limit)
    rows.ids = np.array([data[int(i)] for i in rows.ids])
    longest = None
    if vlm.text.causal:  # one cut for all batches is exact
        longest = int(vlm.text.ends(rows.take(range(len(rows.ids)))).max()) + 1
        rows.take = lambda part, take=rows.take: take(part)[:, :longest]
    coords = rows.coords | ({} if labels is None else {"label": labels[rows.chosen]})
    return Source(
        vlm.name,
        vlm.text,
        lambda ids: {"eos": vlm.text(ids)},
        batches_of(rows, batch_size, vlm.device),
        coords,
        **common,
        roles=lambda ids: of_ends(vlm.text.ends(ids) - 1, ids.shape[1] - 1),  # behind SOS
    )


def class_prompts(model, vlm, data, limit, common) -> Source:
    if limit is not None or not (data is None or list(getattr(data, "classnames", [])) == model.classnames):
        raise ValueError(
            "a method's text tower runs its own class prompts: pass data=None and no limit "
            "(set_classes changes the classes)"
        )
    coords = {"id": np.array(model.classnames), "label": np.arange(len(model.classnames))}
    name = common["attrs"]["method"]

    last = LastTokens()

    def run(_):
        last.tokens = None
        with observed(vlm.text, last):
            features = {"eos": model.class_features()}
        if last.tokens is None:
            raise ValueError(f"{name} does not run the text tower: it has no text sites")
        return features

    source = Source(name, vlm.text, run, lambda first=0: iter([(0, None)]), coords, **common)

    def roles(_):  # known after the plain run of the only batch
        ends = last.tokens.eos - tokens_of(last.tokens.layout).index(("word", 0))
        source.words = int(ends.max()) + 1
        return of_ends(ends, source.words)

    source.roles = roles
    return source


class LastTokens(Observer):
    """Remembers the tokens before the last block that ran."""

    tokens: Tokens | None = None

    def before_block(self, layer: int, tokens: Tokens) -> None:
        self.tokens = tokens


def key_of(model, vlm, kind: str) -> dict[str, str]:
    """`Source.key` of a VLM or a Method: weights of both, the method's settings and classes, pixels."""
    method = ""
    if model is not vlm:
        own = {name: value for name, value in model.state_dict().items() if not name.startswith("vlm.")}
        method = f"{type(model).__name__} {model.config} {model.prompts()} {fingerprint(own)}"
    pixels = f"{vlm.image_size} {vlm.mean} {vlm.std}" if kind == "image" else ""
    return {"weights": vlm.fingerprint(), "method": method, "precision": vlm.precision, "pixels": pixels}
