"""LaFTer's image path and its variant with stages written out once more, from tensors by their names alone.

Nothing of vlmlab's towers or edits is used. Section 11 and 12.3 of the description of methods.
"""

import torch
import torch.nn.functional as F

HEADS, BLOCKS = 2, 12


def norm(x, s, name):
    return F.layer_norm(x, x.shape[-1:], s[f"{name}.weight"], s[f"{name}.bias"])


def block(x, s, name):
    n, tokens, width = x.shape
    a = F.linear(norm(x, s, f"{name}.ln_1"), s[f"{name}.attn.in_proj_weight"], s[f"{name}.attn.in_proj_bias"])
    q, k, v = (part.view(n, tokens, HEADS, -1).transpose(1, 2) for part in a.chunk(3, dim=-1))
    mixed = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(-1) @ v
    mixed = mixed.transpose(1, 2).reshape(n, tokens, width)
    x = x + F.linear(mixed, s[f"{name}.attn.out_proj.weight"], s[f"{name}.attn.out_proj.bias"])
    h = F.linear(norm(x, s, f"{name}.ln_2"), s[f"{name}.mlp.c_fc.weight"], s[f"{name}.mlp.c_fc.bias"])
    h = h * torch.sigmoid(1.702 * h)
    return x + F.linear(h, s[f"{name}.mlp.c_proj.weight"], s[f"{name}.mlp.c_proj.bias"])


def embedded(s, images):
    conv = s["visual.conv1.weight"]
    x = F.conv2d(images, conv, stride=conv.shape[-1]).flatten(2).transpose(1, 2)
    cls = s["visual.class_embedding"].expand(len(x), 1, -1)
    return norm(torch.cat([cls, x], 1) + s["visual.positional_embedding"], s, "visual.ln_pre")


def put(x, prompt, instead_of=0):
    """Prompts (token, width) behind CLS, in place of so many tokens there."""
    return torch.cat([x[:, :1], prompt.expand(len(x), -1, -1), x[:, 1 + instead_of :]], 1)


def class_tokens(s, images, prompts, replace=True):
    """CLS (batch, block, width) behind blocks 1 to 12; prompts: block -> tokens (token, width) before it."""
    x, there, out = embedded(s, images), 0, []
    for layer in range(1, BLOCKS + 1):
        if layer in prompts:
            x, there = put(x, prompts[layer], there if replace else 0), len(prompts[layer])
        x = block(x, s, f"visual.transformer.resblocks.{layer - 1}")
        out.append(x[:, 0])
    return torch.stack(out, 1)


def restarted(s, images, spans, prompts):
    """CLS of every stage behind its blocks, which the sketch runs on what went into the first one and its prompts."""
    x, there, out = embedded(s, images), 0, []
    for (first, last), prompt in zip(spans, prompts):
        x, there = put(x, prompt, there), len(prompt)
        y, taps = x, []
        for layer in range(first, last + 1):
            y = block(y, s, f"visual.transformer.resblocks.{layer - 1}")
            taps.append(y[:, 0])
        out.append(torch.stack(taps, 1))
    return out


def lafter(s, images, prompt):
    """z (batch, joint), not normalised."""
    return norm(class_tokens(s, images, {1: prompt})[:, -1], s, "visual.ln_post") @ s["visual.proj"]


def staged(s, images, spans, prompts, sigmas, theta, replace=True):
    """sum_s lambda_s z_s, and z_s (stage, batch, joint)."""
    starts = {first: p for (first, _), p in zip(spans, prompts)}
    h = norm(class_tokens(s, images, starts, replace), s, "visual.ln_post")
    z = []
    for (first, last), sigma in zip(spans, sigmas):
        d = last - first + 1
        w = torch.tensor([-((d - step) ** 2) / (2 * sigma**2) for step in range(1, d + 1)]).softmax(0)
        z.append(sum(w[i] * h[:, first - 1 + i] for i in range(d)) @ s["visual.proj"])
    return sum(share * x for share, x in zip(theta.softmax(0), z)), torch.stack(z)
