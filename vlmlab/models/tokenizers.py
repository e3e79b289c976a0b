"""Tokenizers of models: the one whose files lie in their folder, or CLIP's."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from torch import Tensor, nn

from .weights import first_line

TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "spiece.model")


def folder_tokenizer(clip: nn.Module, path: Path, config: dict) -> Callable:
    """The tokenizer whose files lie in a model folder, else CLIP's. ValueError when another is asked for."""
    if any((path / name).is_file() for name in TOKENIZERS):
        options = {"local_files_only": True, **(config.get("tokenizer_kwargs") or {})}
        try:
            return Padded(HFTokenizer(str(path), context_length=config["context_length"], **options))
        except Exception as e:
            raise ValueError(
                f"the tokenizer in {path} cannot be opened ({first_line(e)}); pass tokenizer="
            ) from e
    if config.get("hf_tokenizer_name"):
        raise ValueError(
            f"{path} reads texts with the tokenizer {config['hf_tokenizer_name']!r}, whose files are not in the "
            "folder; put its tokenizer.json and tokenizer_config.json there, or pass tokenizer="
        )
    return clip_tokenizer(clip, path, path / "bpe.txt.gz")


class Padded:
    """A tokenizer of transformers; where it pads with the end of a text, as CLIP's does, zeros stand there."""

    def __init__(self, tokenizer: HFTokenizer):
        self.tokenizer = tokenizer
        own = tokenizer.tokenizer
        self.end = own.eos_token_id if own.pad_token_id == own.eos_token_id else None

    def __call__(self, texts: list[str]) -> Tensor:
        """(text, context) token ids."""
        ids = self.tokenizer(texts)
        if self.end is None:
            return ids
        ends = (ids == self.end).int()
        return ids.masked_fill(ends.cumsum(1) - ends > 0, 0)


def padded(tokenizer: Callable, texts: Sequence[str], device: torch.device) -> dict[str, Tensor]:
    """What a tokenizer of transformers makes of texts, (text, token) each, zeros behind the shorter ones, where the
    attention mask is 0 too: right for any model that reads its mask. ValueError for what is no list of texts."""
    if isinstance(texts, str) or not len(texts) or not all(isinstance(t, str) for t in texts):
        raise ValueError("a list with one text or more is expected")
    found = tokenizer(list(texts), return_attention_mask=True, verbose=False)
    rows = {k: [torch.tensor(row, device=device).long() for row in found[k]] for k in found}
    return {k: nn.utils.rnn.pad_sequence(row, batch_first=True) for k, row in rows.items()}


def clip_tokenizer(clip: nn.Module, path: Path | str, merges: Path | None = None) -> Callable:
    """CLIP's tokenizer, with the model's own merges where there are any.

    Raises ValueError when it does not have the vocabulary of the model at `path`.
    """
    clip = getattr(clip, "text", clip)
    own = {"bpe_path": str(merges)} if merges is not None and merges.exists() else {}
    try:
        tokenizer = SimpleTokenizer(**own, context_length=clip.context_length)
    except Exception as e:
        raise ValueError(f"{merges} is not a readable merge file ({first_line(e)})") from e
    if tokenizer.vocab_size != clip.vocab_size:
        raise ValueError(
            f"{path} has a vocabulary of {clip.vocab_size}, but {'its' if own else 'the CLIP'} "
            f"tokenizer has {tokenizer.vocab_size}; load a folder with config.json, "
            "model.safetensors and the bpe.txt.gz it was trained with, or pass tokenizer="
        )
    return tokenizer
