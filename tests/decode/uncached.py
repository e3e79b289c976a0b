"""Step-by-step decoding without a cache and without hooks, from the hidden states that transformers returns."""

import inspect

import torch


def end_of(model):
    """Final norm and head of a model, found by hand."""
    inner = getattr(model, "language_model", model)  # BLIP-2
    if hasattr(model, "decoder") and hasattr(model, "encoder"):  # T5 1.0 scales before its tied head
        return model.decoder.final_layer_norm, lambda x: model.lm_head(x * model.model_dim**-0.5)
    base = inner.base_model
    base = getattr(base, "language_model", base)
    base = getattr(base, "decoder", base)
    norm = next(getattr(base, n) for n in ("norm", "ln_f", "final_layer_norm") if hasattr(base, n))
    head = model.lm_head if hasattr(model, "lm_head") else inner.lm_head
    return norm, head


def longer(inputs: dict, new: torch.Tensor) -> dict:
    """The inputs with new tokens (row, step) behind them."""
    found, count = dict(inputs), new.shape[1]
    found["input_ids"] = torch.cat([inputs["input_ids"], new], dim=1)
    for name, fill in (("attention_mask", 1), ("mm_token_type_ids", 0)):
        if name in found:
            more = torch.full((len(new), count), fill)
            found[name] = torch.cat([found[name], more.to(found[name])], dim=1)
    if "image_attention_mask" in found:
        images = found["image_attention_mask"]
        found["image_attention_mask"] = torch.cat([images, images[:, -1:].expand(-1, count, -1)], dim=1)
    return found


def states(model, inputs: dict, new: torch.Tensor):
    """(last logits (row, word), hidden states of all layers) behind the new tokens, whole and without a cache."""
    options = {"output_hidden_states": True, "use_cache": False}
    if getattr(model.config, "is_encoder_decoder", False):
        start = torch.zeros(len(new), 1, dtype=torch.long)
        out = model(**inputs, decoder_input_ids=torch.cat([start, new], dim=1), **options)
        return out.logits[:, -1], out.decoder_hidden_states
    whole = longer(inputs, new)
    if "image_grid_thw" not in whole and "position_ids" in inspect.signature(model.forward).parameters:
        whole["position_ids"] = (whole["attention_mask"].cumsum(-1) - 1).clamp_min(0)
    out = model(**whole, **options)
    inner = getattr(out, "language_model_outputs", None) or out
    return out.logits[:, -1], inner.hidden_states


@torch.no_grad()
def greedy(model, inputs: dict, layer: int, alpha: float, raw: bool, count: int, banned=()) -> torch.Tensor:
    """(row, count) tokens of static DoLa, one full forward pass each; none of the banned."""
    norm, head = end_of(model)
    new = torch.zeros(len(inputs["input_ids"]), 0, dtype=torch.long)
    for _ in range(count):
        logits, hidden = states(model, inputs, new)
        x = hidden[layer][:, -1]
        logits[:, list(banned)] = -torch.inf
        final, early = logits.double().log_softmax(-1), head(x if raw else norm(x)).double().log_softmax(-1)
        outside = final.exp() < alpha * final.exp().amax(-1, keepdim=True)
        choice = (final - early).masked_fill(outside, -torch.inf).argmax(-1, keepdim=True)
        new = torch.cat([new, choice], dim=1)
    return new
