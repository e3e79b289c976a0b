"""What the tests of records on disk share."""

import json
from pathlib import Path

import numpy as np
import torch
from capture_model import small_vlm

from vlmlab import capture

SITES = ["image.resid.post", "image.attn.probs[-1]", "image.final"]
KEEP = {"*.resid.*": capture.norms, "*.probs": capture.cls_row}


def grab(model, data, sites=SITES, keep=KEEP, batch_size=2, **options):
    return capture(model, data, sites, keep=keep, batch_size=batch_size, progress=False, **options)


def arrays(folder):
    """Every byte but record.json, whose `difference` is of the first batch of the process that made it."""
    return {p.name: p.read_bytes() for p in Path(folder).iterdir() if p.name != "record.json"}


def about(folder):
    info = json.loads((Path(folder) / "record.json").read_text())
    assert 0 <= info["attrs"].pop("difference") < 1e-5
    return info


def counting(monkeypatch, vlm):
    """Sizes of the batches that run from now on."""
    ran, encode = [], vlm.encode_image
    monkeypatch.setattr(vlm, "encode_image", lambda x: ran.append(len(x)) or encode(x))
    return ran


class Images:
    """Like a Split of random pictures; `look` sees the number of each one that is read."""

    classnames = ("one", "two")

    def __init__(self, n, look=lambda i: None):
        self.ids, self.labels, self.look = [f"image{i}" for i in range(n)], np.arange(n) % 2, look

    def __len__(self):
        return len(self.ids)

    def fingerprint(self):
        return f"random {len(self)}"

    def image(self, i):
        self.look(int(i))
        return torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(int(i)))


def small():
    """The model of the fixture `vlm`, for tensors as they are."""
    vlm = small_vlm()
    vlm.preprocess = lambda x: x
    return vlm
