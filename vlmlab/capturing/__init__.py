"""The one way to look inside a model: named sites in, labelled arrays out.

`vlmlab.capture(model, data, sites, ...)` is the function in `capture.py`; what stands beside it is among its
attributes: reducers `vlmlab.capture.norms`, `.cls_row`, `.roles("cls", "prompt")`, `.row("eos")`,
`.mean("patch")`; other verbs `.edit(model, {site: fn})`, which writes, with `.patch(values)` and
`.ablate("prompt")`, `.attention_grads(model, images, target)`, which differentiates, `.reader(model)`, which
reads the residual stream through the model's own end, and `.open_run(folder)`, which opens a record on disk.
"""
