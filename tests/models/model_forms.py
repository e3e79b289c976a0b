"""The forms in which one small CLIP lies on disks."""

import torch
from open_clip.model import CLIP

TEXT = {"context_length": 77, "width": 64, "heads": 1, "layers": 2}
VISION = {"image_size": 32, "patch_size": 16, "width": 128, "layers": 2}


def small(quick_gelu: bool = True, head_width: int = 64) -> CLIP:
    """Random numbers everywhere, so that nothing that goes wrong is hidden."""
    torch.manual_seed(0)
    vision = VISION | {"head_width": head_width}
    clip = CLIP(embed_dim=16, quick_gelu=quick_gelu, vision_cfg=vision, text_cfg=TEXT)
    with torch.no_grad():
        for p in clip.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return clip.eval()


def images() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def same(vlm, clip, tolerance: float = 1e-5) -> bool:
    """Whether a loaded model has the features of an open_clip one."""
    with torch.no_grad():
        ids = vlm.tokenize(["a cat", "two red foxes"])
        pairs = (vlm.image(images()), clip.encode_image(images())), (vlm.text(ids), clip.encode_text(ids))
    return all((a - b).abs().max() <= tolerance * b.abs().max() for a, b in pairs)


class Archive(torch.nn.Module):
    """What OpenAI scripted: the model with its numbers as buffers."""

    def __init__(self, clip):
        super().__init__()
        for name in ("visual", "transformer", "token_embedding", "ln_final"):
            setattr(self, name, getattr(clip, name))
        for name in ("positional_embedding", "text_projection", "logit_scale"):
            setattr(self, name, getattr(clip, name))
        for name, value in (("input_resolution", 32), ("context_length", 77), ("vocab_size", 49408)):
            self.register_buffer(name, torch.tensor(value))

    def forward(self, x):
        return self.visual(x)


def archive(clip, path):
    """Write a TorchScript archive of a CLIP; returns its path."""
    with torch.no_grad():
        torch.jit.trace(Archive(clip), images(), check_trace=False).save(path)
    return path
