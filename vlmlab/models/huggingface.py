"""Language and vision-language models of Hugging Face that generate: GPT-2, LLaMA, LLaVA, BLIP-2, Qwen2-VL ..."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .model import Model
from .tokenizers import padded
from .weights import first_line

BLOCKS = ("layers", "h", "block")  # what the list of blocks is called


@dataclasses.dataclass(frozen=True)
class LogLikelihood:
    """Natural logarithms of the probabilities of texts.

    total: (text,) sums over their tokens. tokens: (text, token), 0 where `scored` is False. ids: (text, token)
    token ids, padded on the right. scored: (text, token), False for padding and for a token that nothing
    stands before.
    """

    total: Tensor
    tokens: Tensor
    ids: Tensor
    scored: Tensor


class LanguageModel(Model):
    """A frozen causal language model, or a vision-language model around one, with its tokenizer or processor.

    processor: what makes model inputs of texts and images; of a model without images it is the tokenizer.
    """

    holds = "module"

    def __init__(
        self,
        module: nn.Module,
        processor: Callable | None,
        name: str,
        device: torch.device,
        precision: str,
        source: dict | None = None,
    ):
        super().__init__(name, precision, source)
        self.module, self.processor = module, processor
        self.freeze(device)

    def facts(self) -> dict[str, object]:
        return {"blocks": f"{len(self.language)} of the language model", **super().facts()}

    @property
    def tokenizer(self) -> Callable:
        """ValueError where the model came without one."""
        if self.processor is None:
            raise ValueError(f"{self.name} came without a tokenizer; pass load(..., tokenizer=)")
        return getattr(self.processor, "tokenizer", self.processor)

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """What the module takes of texts, (text, token) each, padded on the right."""
        return padded(self.tokenizer, texts, self.device)

    @property
    def language(self) -> nn.ModuleList:
        """The blocks of the language model that writes; ValueError where they are not found."""
        decoder, inner = None, self.module
        while inner is not decoder:
            decoder, step = inner, getattr(inner, "get_decoder", None)
            inner = step() if step else getattr(inner, "base_model", inner)
        for name in BLOCKS:
            if isinstance(getattr(decoder, name, None), nn.ModuleList):
                return getattr(decoder, name)
        there = ", ".join(name for name, _ in decoder.named_children())
        raise ValueError(
            f"{type(decoder).__name__} has no blocks called {' or '.join(BLOCKS)}; it has {there}"
        )

    def generate(self, *args, **kwargs):
        """The module's own `generate`."""
        return self.module.generate(*args, **kwargs)

    def log_likelihood(
        self, texts: Sequence[str], images: Sequence | None = None, prompts: Sequence[str] | None = None
    ) -> LogLikelihood:
        """How probable each text is behind its prompt (and image).

        prompts: what stands before each text and is not scored, with the model's own marks for an image
        ("<image>"); without prompts, what the tokenizer begins every text with. images: one for each text, as
        the processor takes them. Prompt and text are split into tokens one by one, so that no token lies on
        both sides. Gradients flow where the caller allows them.

        Raises ValueError for lists of different lengths, for images without a processor, for an empty text and
        for a model that reads prompts by an encoder.
        """
        prompts = [""] * len(texts) if prompts is None else prompts
        self.check_lists(texts, images, prompts)
        before = [self.prompt(p, None if images is None else images[i]) for i, p in enumerate(prompts)]
        own = [self.words(text) for text in texts]
        starts = [b["input_ids"].shape[1] for b in before]
        logits = self.module(**side_by_side(before, own)).logits
        rows = [score(x, start, ids) for x, start, ids in zip(logits, starts, own)]
        tokens, scored = (nn.utils.rnn.pad_sequence(list(part), batch_first=True) for part in zip(*rows))
        ids = nn.utils.rnn.pad_sequence(own, batch_first=True)
        return LogLikelihood(tokens.sum(dim=1), tokens, ids, scored)

    def check_lists(self, texts: Sequence[str], images: Sequence | None, prompts: Sequence[str]) -> None:
        """ValueError for what `log_likelihood` cannot pair up or run."""
        if isinstance(texts, str) or isinstance(prompts, str) or not len(texts):
            raise ValueError("texts and prompts must be lists with one text or more")
        if self.module.config.is_encoder_decoder:
            raise ValueError(f"{self.name} reads prompts by an encoder; log_likelihood scores causal models")
        lengths = {"texts": len(texts), "prompts": len(prompts)}
        lengths |= {} if images is None else {"images": len(images)}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"one prompt and one image go with each text, got {lengths}")
        if images is not None and not hasattr(self.processor, "tokenizer"):
            raise ValueError(f"{self.name} has a tokenizer but no processor that takes images")

    def prompt(self, text: str, image) -> dict[str, Tensor]:
        """The model's inputs of one prompt, (1, token) each, and of its image."""
        make = self.tokenizer if image is None else self.processor
        inputs = make(text=text, return_tensors="pt", **({} if image is None else {"images": [image]}))
        inputs = {k: v.to(self.device) for k, v in inputs.items() if isinstance(v, Tensor)}
        return {k: v if v.numel() else v.long() for k, v in inputs.items()}  # no token at all has no type

    def words(self, text: str) -> Tensor:
        """(token,) ids of a text without marks of its beginning or end."""
        ids = self.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"][0].long()
        if not len(ids):
            raise ValueError(f"the text {text!r} has no tokens; there is nothing to score")
        return ids.to(self.device)


def score(logits: Tensor, start: int, ids: Tensor) -> tuple[Tensor, Tensor]:
    """(token,) log-probabilities of `ids`, which stand from `start` on, and which of them are scored.

    logits: (position, vocabulary); what position i says is about the token at i + 1.
    """
    skipped = int(start == 0)  # nothing stands before the first token
    rows = logits[start + skipped - 1 : start + len(ids) - 1].float()
    values = -F.cross_entropy(rows, ids[skipped:], reduction="none")
    scored = torch.ones_like(ids, dtype=torch.bool)
    scored[:skipped] = False
    return F.pad(values, (skipped, 0)), scored


def side_by_side(before: list[dict[str, Tensor]], own: list[Tensor]) -> dict[str, Tensor]:
    """One batch: each prompt with its text directly behind it, padded on the right, and the images.

    Padding stands behind all that is read, so that a causal model needs no positions of its own.
    """
    batch = {}
    for key, first in before[0].items():
        parts = [inputs[key] for inputs in before]
        if first.shape != before[0]["input_ids"].shape:
            batch[key] = torch.cat(parts)
            continue
        behind = {"input_ids": own, "attention_mask": [torch.ones_like(ids) for ids in own]}
        tails = behind.get(key, [torch.zeros_like(ids) for ids in own])
        rows = [torch.cat([part[0], tail.to(part.dtype)]) for part, tail in zip(parts, tails)]
        batch[key] = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return batch


def is_language_model(module: nn.Module | type[nn.Module]) -> bool:
    """Whether a module is one of transformers that writes; before 4.50 all had the method `generate`."""
    return hasattr(module, "can_generate") and module.can_generate()


def from_pretrained(path: Path, processor: Callable | None) -> tuple[nn.Module, Callable | None]:
    """Module and processor of a folder; nothing is fetched, unpickled, or run from the folder.

    Weights are read as float32. Raises ImportError without transformers, ValueError for a model that does
    not write, or files that are missing or broken.
    """
    try:
        import transformers
    except ImportError as e:
        raise ImportError(f"{path} is a Hugging Face model: pip install transformers") from e
    try:
        config = transformers.AutoConfig.from_pretrained(path, local_files_only=True)
        kind = getattr(transformers, (config.architectures or [""])[0], None)
    except Exception as e:
        raise ValueError(
            f"{path / 'config.json'} describes no model of transformers ({first_line(e)})"
        ) from e
    if kind is None or not is_language_model(kind):
        raise ValueError(
            f"{path / 'config.json'} names the architecture {config.architectures}, which does not write; "
            "expected is a ...ForCausalLM or ...ForConditionalGeneration (capture takes any module as it is)"
        )
    dtype = "dtype" if hasattr(config, "dtype") else "torch_dtype"  # its name before transformers 4.56
    options = {"local_files_only": True, "use_safetensors": True, dtype: torch.float32}
    try:
        module = kind.from_pretrained(path, **options)
        if processor is None and any((*path.glob("*token*"), *path.glob("*process*"))):
            processor = transformers.AutoProcessor.from_pretrained(path, local_files_only=True)
    except Exception as e:
        raise ValueError(
            f"{path} cannot be opened ({first_line(e)}); expected is what save_pretrained of model and "
            "processor write, with weights in .safetensors"
        ) from e
    return module, processor
