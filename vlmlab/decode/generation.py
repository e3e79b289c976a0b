"""`generate`: a model of transformers writes, with the contrasts and the fusion that the settings ask for."""

import os
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from ..models.families import Family
from .choices import Choices
from .dola import LayerContrast
from .dual_tower import Candidates
from .fusion import Active, Fusion
from .language import check_padding, language_of, module_of
from .settings import PLAIN, PLAN, Dola
from .words_of_candidates import candidate_tokens

# their own `generate` takes logits processors and drops them; the mixin's runs them
DROPS = {"JanusForConditionalGeneration": {"guidance_scale": None}}
SEVERAL_PASSES = (
    "runs the model more or less than once for every token, and layers are contrasted token by token"
)
REFUSED = {
    "assistant_model": SEVERAL_PASSES,
    "assistant_early_exit": SEVERAL_PASSES,
    "prompt_lookup_num_tokens": SEVERAL_PASSES,
    "negative_prompt_ids": SEVERAL_PASSES,
    "guidance_scale": SEVERAL_PASSES,
    "dola_layers": "is the DoLa of older transformers; say it in dola=",
}


def generate(
    model,
    inputs: Mapping[str, Tensor],
    dola: Dola | str | os.PathLike | None = PLAN,
    candidates: Candidates | None = None,
    *,
    domain: str | None = None,
    active: Active | None = None,
    tokenizer=None,
    family: Family | None = None,
    **kwargs,
):
    """What `model.generate(**inputs, **kwargs)` returns, decoded by contrast of layers and what an image says.

    model: a LanguageModel of vlmlab or any module of transformers that generates; it is not changed. inputs: what its
    processor returns, padded on the left. dola: the settings (default: the plan's), or the path of a file of
    `Choices`, of which `domain` names the part; None, or language and fusion off, is plain generation, bit for bit.
    candidates: what a dual tower says of the images, one row for every text of the batch (`decode.candidates`); they
    are fused with strength lambda. active(step, text): where (see `Fusion`). tokenizer: of a bare module, for
    candidates. family: describes a module that vlmlab does not know. kwargs: of `generate`: greedy, sampling and beams
    are as ever; the repetition penalty is applied behind the contrast, bans of words before it.

    Raises ValueError for padding on the right, for what runs several tokens at once (assisted decoding, guidance), for
    generation of images, and for a model that never asks its processors.

    >>> inputs = model.processor(images=image, text="<image>\\nWhat is it?", return_tensors="pt")
    >>> ids = decode.generate(model, inputs, dola=decode.Dola(contrast_layer=24), max_new_tokens=20)
    """
    module, kwargs = module_of(model), dict(kwargs)
    dola = settings_of(dola, domain, model, family)
    fuses = candidates is not None and (dola.fusion_strength > 0 or dola.fusion.startswith("literal"))
    if not dola.language and not fuses:
        return module.generate(**inputs, **kwargs)
    check(module, inputs, kwargs)
    fusion = None
    if fuses:
        fusion = fusion_of(model, inputs, dola, candidates, active, tokenizer)
    kwargs.pop("generation_mode", None)
    before, behind = kwargs.pop("logits_processor", None) or [], penalty(module, kwargs)
    with LayerContrast(model, dola, fusion, family) as contrast:
        return call(module, {**inputs, **kwargs, "logits_processor": [*before, contrast, *behind]})


def settings_of(dola, domain: str | None, model, family: Family | None) -> Dola:
    """The settings, from a file of choices where a path is given. ValueError for what is neither."""
    if isinstance(dola, str | os.PathLike):
        chosen = Choices.load(Path(dola))
        chosen.check_depth(language_of(model, family).depth)
        return chosen.of(domain)
    if domain is not None:
        raise ValueError(f"domain {domain!r} is a part of a file of choices; give its path as dola=")
    if dola is None:
        return PLAIN
    if not isinstance(dola, Dola):
        raise ValueError(
            f"dola is a {type(dola).__name__}; expected is decode.Dola(...) or the path of a file of choices"
        )
    return dola


def check(module: nn.Module, inputs: Mapping[str, Tensor], kwargs: Mapping) -> None:
    """ValueError for inputs and arguments of `generate` that cannot be contrasted."""
    if not isinstance(inputs, Mapping):
        raise ValueError(
            f"inputs is a {type(inputs).__name__}; expected is a mapping, as a tokenizer or processor returns"
        )
    check_padding(module, inputs)
    for name, why in REFUSED.items():
        value = kwargs.get(name)
        if value is not None and (name, value) != ("guidance_scale", 1):
            raise ValueError(f"{name}= {why}; leave it out, or generate without dola=")
    if kwargs.get("generation_mode", "text") != "text":
        raise ValueError(
            f"generation_mode={kwargs['generation_mode']!r}: {type(module).__name__} writes images with another head; "
            'only text is contrasted, generation_mode="text"'
        )


def fusion_of(model, inputs, dola: Dola, candidates: Candidates, active: Active | None, tokenizer) -> Fusion:
    """The visual side of a generation. ValueError without a tokenizer, or for another number of images."""
    tokenizer = tokenizer or getattr(model, "tokenizer", None)
    if tokenizer is None:
        raise ValueError("candidates are written in the model's words; pass tokenizer=")
    texts, p = len(inputs.get("input_ids", next(iter(inputs.values())))), candidates.log_p.exp()
    if len(p) != texts:
        raise ValueError(
            f"candidates are of {len(p)} images, and {texts} texts are decoded; one row each is expected"
        )
    tokens = candidate_tokens(tokenizer, candidates.names)
    return Fusion(tokens, p, dola.fusion_strength, dola.fusion, dola.top_candidates, active, tokenizer.decode)


def penalty(module: nn.Module, kwargs: dict) -> list:
    """The repetition penalty as a processor of its own, taken out of `kwargs` or of the model's configuration.

    transformers applies it before other processors; the early layer would then be compared with what is penalised.
    """
    config = kwargs.get("generation_config") or module.generation_config
    value = kwargs.get("repetition_penalty") or getattr(config, "repetition_penalty", None) or 1.0
    if value == 1.0:
        return []
    from transformers import RepetitionPenaltyLogitsProcessor

    kwargs["repetition_penalty"] = 1.0
    return [RepetitionPenaltyLogitsProcessor(value)]


def call(module: nn.Module, kwargs: dict):
    """The `generate` of a module that asks its logits processors."""
    from transformers import GenerationMixin, LogitsProcessorList

    kwargs["logits_processor"] = LogitsProcessorList(kwargs["logits_processor"])
    given = next((DROPS[cls.__name__] for cls in type(module).__mro__ if cls.__name__ in DROPS), None)
    if given is None:
        return module.generate(**kwargs)
    return GenerationMixin.generate(module, **given | kwargs)


def prompt(model, question: str, image) -> str:
    """The question as the model was taught to be asked: by its chat template where it has one, else behind the mark of
    an image."""
    processor = model.processor
    mark = getattr(processor, "image_token", "") if image is not None else ""
    if not getattr(processor, "chat_template", None):
        return question if not mark or mark in question else f"{mark}\n{question}"
    words: object = question
    if hasattr(processor, "tokenizer"):
        words = [{"type": "text", "text": question}]
        words = words if image is None else [{"type": "image"}, *words]
    text = processor.apply_chat_template(
        [{"role": "user", "content": words}], tokenize=False, add_generation_prompt=True
    )
    return text.removeprefix(model.tokenizer.bos_token or "")  # the tokenizer begins with it
