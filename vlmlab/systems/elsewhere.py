"""A language model from elsewhere in the place of a run of `language`: what Flamingo, BLIP-2 and LLaVA may stand on too."""

import copy
import re
from collections.abc import Iterable
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from ..models.huggingface import LanguageModel
from .words import CLS, IMG, MARKS, MASK, SEP, SPECIAL, Words

CONTEXT = 64  # most tokens of a caption; the model itself may read more


class Pieces(Words):
    """Special tokens, then the pieces of a tokenizer of transformers, which keeps capital letters and spaces."""

    def __init__(self, tokenizer, count: int):
        self.tokenizer = tokenizer
        super().__init__(map(str, tokenizer.convert_ids_to_tokens(range(count))))

    def ids(self, text: str) -> list[int]:
        marks = dict(zip(MARKS, (MASK, IMG), strict=True))
        found = []
        for part in re.split("(" + "|".join(map(re.escape, MARKS)) + ")", text):
            own = (
                [marks[part]]
                if part in marks
                else self.tokenizer(part, add_special_tokens=False)["input_ids"]
            )
            found += own if part in marks else [i + len(SPECIAL) for i in own]
        return found

    def text(self, ids: Iterable[int]) -> str:
        ids = [int(i) for i in ids]
        own = ids[: ids.index(SEP)] if SEP in ids else ids
        return self.tokenizer.decode([i - len(SPECIAL) for i in own if i >= len(SPECIAL)]).strip()


class Elsewhere:
    """What the systems ask of their language model, of one that `vlmlab.load` opened.

    llama: a copy whose vocabulary begins with the special tokens; of these it knows [CLS] and [SEP] as its own marks of
    begin and end, and never says another. ValueError for a model that is not built like LLaMA.

    >>> models = {"vlm": vlmlab.load("tiny"), "language": vlmlab.load("smollm2-135m")}
    >>> vlmlab.fit("flamingo", models, task)
    """

    def __init__(self, model: LanguageModel):
        decoder = getattr(model.module, "get_decoder", lambda: None)()  # not all have one in older versions
        if not isinstance(getattr(decoder, "layers", None), nn.ModuleList):
            raise ValueError(
                f"{model.name} is a {type(model.module).__name__}; expected is a language model built like LLaMA, such as "
                "smollm2-135m, or a run of language"
            )
        self.llama = widened(model)
        config = self.llama.config
        self.words = Pieces(model.tokenizer, config.vocab_size - len(SPECIAL))
        self.sizes = SimpleNamespace(
            width=config.hidden_size,
            layers=config.num_hidden_layers,
            vocabulary=config.vocab_size,
            context=min(CONTEXT, config.max_position_embeddings),
        )

    def write(self, ids: Tensor, real: Tensor, seen: None = None) -> Tensor:
        """See `Writer.write`."""
        return self.llama(input_ids=ids, attention_mask=real.long()).logits


def widened(model: LanguageModel) -> nn.Module:
    """A copy of the module with a row for each special token before those of its own vocabulary, all frozen."""
    module, tokenizer = copy.deepcopy(model.module), model.tokenizer
    end = tokenizer.eos_token_id
    begin = end if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    for get, put, kind in (
        (module.get_input_embeddings, module.set_input_embeddings, nn.Embedding),
        (module.get_output_embeddings, module.set_output_embeddings, unbiased),
    ):
        own = get().weight.detach()
        rows = torch.zeros(len(SPECIAL), own.shape[1]).to(own)
        rows[CLS], rows[SEP] = own[begin], own[end]
        put(kind(len(own) + len(SPECIAL), own.shape[1], device=own.device, dtype=own.dtype))
        with torch.no_grad():
            get().weight.copy_(torch.cat([rows, own]))
    module.config.vocab_size, module.config.tie_word_embeddings = len(own) + len(SPECIAL), False
    return module.requires_grad_(False).eval()


def unbiased(outputs: int, inputs: int, **where) -> nn.Linear:
    return nn.Linear(inputs, outputs, bias=False, **where)
