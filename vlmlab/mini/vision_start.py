"""Janus' vision tower as it begins: the first blocks of the image tower of a trained CLIP, which has a class token and
a norm in front of its blocks, and Janus has neither."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# module of a block of Janus -> of open_clip
PARTS = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.projection_layer": "attn.out_proj",
}


@torch.no_grad()
def begin(tower: nn.Module, visual: nn.Module, images: Tensor) -> None:
    """Give a JanusVisionModel the weights of the first blocks of open_clip's VisionTransformer, of the same width, grid
    and MLP. images (batch, 3, height, width), preprocessed: see `embed`."""
    embed(tower.embeddings, visual, images)
    for layer, block in zip(tower.encoder.layers, visual.transformer.resblocks):
        for own, other in PARTS.items():
            layer.get_submodule(own).load_state_dict(block.get_submodule(other).state_dict())
        weights, biases = block.attn.in_proj_weight.chunk(3), block.attn.in_proj_bias.chunk(3)
        for name, weight, bias in zip("qkv", weights, biases):
            linear = layer.self_attn.get_submodule(f"{name}_proj")
            linear.weight.copy_(weight), linear.bias.copy_(bias)


def embed(embeddings: nn.Module, visual: nn.Module, images: Tensor) -> None:
    """The norm in front becomes part of the embedding: centring and gain exactly, the deviation of a patch as its mean
    over `images`."""
    filters, places, norm = visual.conv1.weight, visual.positional_embedding[1:], visual.ln_pre
    patches = F.conv2d(images, filters, stride=visual.conv1.stride).flatten(2).mT + places
    gain = norm.weight / patches.std(-1, correction=0).mean()
    embeddings.patch_embedding.weight.copy_((filters - filters.mean(0)) * gain.view(-1, 1, 1, 1))
    embeddings.patch_embedding.bias.copy_(norm.bias)
    embeddings.position_embedding.weight.copy_((places - places.mean(1, keepdim=True)) * gain)
