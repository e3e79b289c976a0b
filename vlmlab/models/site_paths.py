"""Where the blocks of other libraries keep each site: site -> (submodule path, "in" or "out")."""

from .family import Path

RESIDUAL: dict[str, Path] = {"resid.pre": ("", "in"), "resid.post": ("", "out")}
# a stage of a convolutional network hands maps on; what is inside differs from network to network
STAGES = RESIDUAL
OPEN_CLIP = RESIDUAL | {
    "resid.mid": ("ln_2", "in"),
    "attn.out": ("ls_1", "out"),  # behind the layer scale, the identity in CLIP
    "mlp.act": ("mlp.gelu", "out"),
    "mlp.out": ("ls_2", "out"),
}
# what dropping paths or scaling does not change in evaluation mode is read behind it: what is added
TIMM = RESIDUAL | {
    "resid.mid": ("norm2", "in"),
    "attn.out": ("drop_path1", "out"),
    "mlp.act": ("mlp.fc2", "in"),  # of a gated MLP what its last projection reads, too
    "mlp.out": ("drop_path2", "out"),
}
TIMM_POST_NORM = TIMM | {"resid.mid": ("mlp", "in")}  # norms stand behind attention and MLP
# windows of a few rows and columns run as a batch of their own: attention and its output have other tokens
TIMM_SAM = {site: path for site, path in TIMM.items() if site != "attn.out"}
HF_SAM = RESIDUAL | {
    "resid.mid": ("layer_norm2", "in"),
    "mlp.act": ("mlp.act", "out"),
    "mlp.out": ("mlp", "out"),
}
HF_CLIP = RESIDUAL | {
    "resid.mid": ("layer_norm2", "in"),
    "attn.out": ("self_attn", "out"),
    "mlp.act": ("mlp.activation_fn", "out"),
    "mlp.out": ("mlp", "out"),
}
HF_VIT = RESIDUAL | {
    "resid.mid": ("layernorm_after", "in"),
    "attn.out": ("attention", "out"),
    "mlp.act": ("mlp.fc2|output.dense", "in"),
    "mlp.out": ("mlp|output.dropout", "out"),
}
DINO = RESIDUAL | {
    "resid.mid": ("norm2", "in"),
    "attn.out": ("layer_scale1", "out"),
    "mlp.act": ("mlp.down_proj|mlp.weights_out|mlp.fc2", "in"),
    "mlp.out": ("layer_scale2", "out"),
}
AIM = RESIDUAL | {
    "resid.mid": ("rms_norm2", "in"),
    "attn.out": ("attention", "out"),
    "mlp.act": ("ffn.down_proj", "in"),
    "mlp.out": ("ffn", "out"),
}
# norms stand behind the sums here: mid = LN(pre + attn.out), post = LN(mid + mlp.out); with cross-attention
# post = LN(LN(mid + cross.out) + mlp.out)
BERT = RESIDUAL | {
    "resid.mid": ("attention.output.LayerNorm", "out"),
    "attn.out": ("attention.output.dropout", "out"),
    "cross.out": ("crossattention.output.dropout", "out"),
    "mlp.act": ("intermediate", "out"),
    "mlp.out": ("output.dropout", "out"),
}
# vlmlab's own blocks, normed behind the sums as BERT's
SYSTEMS = RESIDUAL | {
    "resid.mid": ("attn_norm", "out"),
    "attn.out": ("attn", "out"),
    "cross.out": ("cross", "out"),
    "mlp.act": ("mlp.1", "out"),
    "mlp.out": ("mlp", "out"),
}
# Flamingo's: cross-attention, then an MLP behind its norm; what is found stands behind no gate yet
PERCEIVER = RESIDUAL | {
    "resid.mid": ("mlp", "in"),
    "cross.out": ("cross", "out"),
    "mlp.act": ("mlp.2", "out"),
    "mlp.out": ("mlp", "out"),
}
QFORMER = BERT | {"mlp.act": ("intermediate_query", "out"), "mlp.out": ("output_query.dropout", "out")}
# the neurons of a gated MLP are what its last projection reads
LLAMA = RESIDUAL | {
    "resid.mid": ("post_attention_layernorm", "in"),
    "attn.out": ("self_attn", "out"),
    "mlp.act": ("mlp.down_proj", "in"),
    "mlp.out": ("mlp", "out"),
}
GPT2 = RESIDUAL | {
    "resid.mid": ("ln_2", "in"),
    "attn.out": ("attn", "out"),
    "cross.out": ("crossattention", "out"),
    "mlp.act": ("mlp.act", "out"),
    "mlp.out": ("mlp", "out"),
}
# its blocks flatten the tokens of a batch before the MLP, where no token can be told from another
OPT = RESIDUAL | {"attn.out": ("self_attn", "out")}
T5_ENCODER = RESIDUAL | {
    "resid.mid": ("layer.1", "in"),
    "attn.out": ("layer.0.dropout", "out"),
    "mlp.act": ("layer.1.DenseReluDense.wo", "in"),
    "mlp.out": ("layer.1.dropout", "out"),
}
T5_DECODER = RESIDUAL | {  # mid = pre + attn.out + cross.out
    "resid.mid": ("layer.2", "in"),
    "attn.out": ("layer.0.dropout", "out"),
    "cross.out": ("layer.1.dropout", "out"),
    "mlp.act": ("layer.2.DenseReluDense.wo", "in"),
    "mlp.out": ("layer.2.dropout", "out"),
}
