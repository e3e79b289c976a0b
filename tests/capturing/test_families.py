"""One contract for all families of models: every site is hit, shaped, labelled, and changes nothing."""

import dataclasses
import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from family_models import CASES, OWN, TOWERS, OwnModel, built, fused, made_eager, need_kernel, timm_model
from family_models import CLIP as CLIP_CFG

import vlmlab
from vlmlab.capturing.sites import ONCE, SITES, is_tapped, names
from vlmlab.models.families import FAMILIES, Family, Words, at, has
from vlmlab.token_labels import parse_layout, tokens_of

KERNEL = F.scaled_dot_product_attention
POST_NORM = ("HF BERT", "HF BERT with head", "HF BLIP-2 without language")  # norms behind the sums
# the modules whose last output (sample, head, query, token) is the attention, in eager code
ATTENTION = ("Attention", "SelfAttention", "MultiHeadAttention")
model_of = functools.cache(lambda name: built(next(c for c in CASES if c.name == name)))


@functools.cache
def record_of(name: str, kind: str):
    """Every site of one tower, and how the model's own output is without and after capture."""
    torch.set_num_threads(1)
    case, model = next(c for c in CASES if c.name == name), model_of(name)
    tower = case.tower(model, kind)
    with torch.no_grad():
        before = run(model, tower, case.data(kind))
        record = vlmlab.capture(
            model, case.data(kind), sites_of(case, kind), family=case.family, batch_size=2, progress=False
        )
        after = run(model, tower, case.data(kind))
    return record, before, after


def run(model, tower, data):
    return tower.run(tower.taken(data) if isinstance(data, dict) else data)["output"]


def sites_of(case, kind):
    """All sites of a tower, but for those of an attention that calls no kernel in this version of its library."""
    model = model_of(case.name)
    tower = case.tower(model, kind)
    return [n for n in names({kind: tower}) if fused(model, tower) or not is_tapped(n.split(".", 1)[1])]


def own_hooks(model):
    """Hooks of vlmlab on a model; Hugging Face has some of its own, which stay."""
    hooks = [h for m in model.modules() for t in (m._forward_hooks, m._forward_pre_hooks) for h in t.values()]
    return [h for h in hooks if h.__module__.startswith("vlmlab")]


parametrised = pytest.mark.parametrize(
    ("case", "kind"), TOWERS, ids=[f"{c.name}, {kind}" for c, kind in TOWERS]
)


@parametrised
def test_every_site_is_hit_and_shaped(case, kind):
    record, _, _ = record_of(case.name, kind)
    assert list(record.data_vars) == sites_of(case, kind)
    tokens, keys = record[f"{kind}.resid.post"].sizes["token"], {}
    if f"{kind}.cross.k" in record:
        keys = {"token": record[f"{kind}.cross.k"].sizes["token"]}
    sizes = {"sample": 3, "token": tokens, "query": tokens, "feature": 32, "neuron": 64, "head_feature": 8}
    for name in record.data_vars:
        x, site = record[name], name.split(".", 1)[1]
        layers = () if site in ONCE else ("layer",)
        assert x.dims == (*layers, "sample", *SITES[site])
        expected = {**sizes, "token": x.sizes.get("token") if site == "embed" else tokens}
        expected |= keys if site in ("cross.k", "cross.v", "cross.probs") else {}
        assert all(x.sizes[dim] == n for dim, n in expected.items() if dim in x.dims), name
        if site not in ONCE:
            assert x["layer"].values.tolist() == (
                [1, 3] if kind == "qformer" and site.startswith("cross") else [1, 2, 3]
            )
        if case.family is None:
            assert np.isfinite(x).all(), name


@parametrised
def test_tokens_are_labelled(case, kind):
    record, _, _ = record_of(case.name, kind)
    x = record[f"{kind}.embed"]
    x = x.isel(token=x.notnull().all(["sample", "feature"]))  # tokens that appear later are NaN here
    if isinstance(case.towers[kind], tuple):
        for row, text in zip(x["role"].values, case.towers[kind], strict=True):
            assert row.tolist() == [role for role, _ in tokens_of(parse_layout(text, len(row)))]
        return
    layout = parse_layout(case.towers[kind], x.sizes["token"])
    expected = [role for role, _ in tokens_of(layout)]
    if kind in ("image", "qformer"):
        assert x["role"].values.tolist() == expected
        if kind == "qformer":
            return
        patches = x["role"].values == "patch"
        assert x["row"].values[patches].tolist() == [i // 4 for i in range(16)]
        assert x["col"].values[patches].tolist() == [i % 4 for i in range(16)]
        return
    last_word = "SigLIP" in case.name  # reads its last position, whatever stands there
    for row, end in zip(x["role"].values, (11, 11, 11) if last_word else (11, 6, 8)):
        assert row[end] == "eos" and list(row[:end]) == expected[:end]
        assert [r for r in row[end + 1 :] if r != "cls"] == ["pad"] * (11 - end)


@parametrised
def test_the_output_stays_what_it_was(case, kind):
    record, before, after = record_of(case.name, kind)
    scale = before.abs().max()
    assert torch.equal(before, after)
    assert record.attrs["difference"] < 2e-6
    assert np.abs(record[f"{kind}.final"].values[:, 0] - before.numpy()).max() < 2e-6 * scale
    model = model_of(case.name)
    assert not own_hooks(model)
    assert F.scaled_dot_product_attention is KERNEL


@parametrised
def test_sites_fit_together(case, kind):
    """What is added is the difference of the residual stream; attention weighs the values into z."""
    record, _, _ = record_of(case.name, kind)
    pre, post = (record[f"{kind}.resid.{part}"].values for part in ("pre", "post"))
    ok = ~np.isnan(pre)
    if case.name not in POST_NORM and kind != "qformer" and f"{kind}.resid.mid" in record:
        mid = record[f"{kind}.resid.mid"].values
        added = [
            record[f"{kind}.{part}.out"].values
            for part in ("attn", "cross")
            if f"{kind}.{part}.out" in record
        ]
        assert not added or np.abs(pre + sum(added) - mid)[ok].max() < 1e-4
        assert np.abs(mid + record[f"{kind}.mlp.out"].values - post)[ok].max() < 1e-4
    shared = pre.shape[2] if case.family is None else 17
    assert np.allclose(pre[1:, :, :shared], post[:-1, :, :shared], atol=1e-5)
    for name in ("attn", "cross"):
        if f"{kind}.{name}.probs" in record:
            check_attention({part: record[f"{kind}.{name}.{part}"] for part in ("v", "z", "probs")})


def check_attention(parts):
    """Rows sum to one, but for padding, which may look at nothing; z is what they weigh out of v."""
    sums = parts["probs"].sum("token").where(parts["probs"].notnull().any("token"))
    looks = sums.where(sums > 0)
    assert np.abs(looks - 1).max() < 1e-5 and looks.notnull().mean() > 0.7
    v, z, p = (np.nan_to_num(parts[part].values) for part in ("v", "z", "probs"))
    assert np.abs(p @ v - z).max() < 1e-5


@pytest.mark.parametrize(
    ("case", "kind"),
    [(c, k) for c, k in TOWERS if c.name.startswith("HF")],
    ids=lambda x: getattr(x, "name", x),
)
def test_probabilities_equal_the_eager_ones(case, kind):
    record = record_of(case.name, kind)[0]
    need_kernel(model_of(case.name), kind)
    eager, data = made_eager(built(case)), case.data(kind)
    tower = case.tower(eager, kind)
    for name, found in eager_attentions(eager, tower, data).items():
        probs = record[f"{kind}.{name}.probs"].values
        shown = slice(None)
        if isinstance(data, dict) and kind != "decoder" and "attention_mask" in data:
            shown = data["attention_mask"].bool().numpy()  # eager code lets padding look anywhere
            probs, found = np.moveaxis(probs, 3, 2), np.moveaxis(found, 3, 2)
            probs, found = probs[:, shown], found[:, shown]
        assert np.abs(probs - found).max() < 1e-6
        assert probs.std() > 1e-3  # not even, where everything would be equal


def eager_attentions(model, tower, data) -> dict[str, np.ndarray]:
    """(layer, sample, head, query, token) of every attention, from what the model's eager code hands on."""
    seen = {
        name: [] for name in tower.family.attention if name == "attn" or tower.kind in ("decoder", "qformer")
    }
    handles = []
    for name in seen:
        path = tower.family.attention[name]
        for block in tower.blocks:
            if not has(block, path):
                continue
            inner = [m for m in at(block, path).modules() if type(m).__name__.endswith(ATTENTION)]

            def look(module, args, output, name=name):
                seen[name].append([x for x in output if getattr(x, "ndim", 0) == 4][-1])

            handles.append(inner[-1].register_forward_hook(look))
    with torch.no_grad():
        run(model, tower, data)
    for handle in handles:
        handle.remove()
    return {name: torch.stack(found).numpy() for name, found in seen.items()}


def test_probabilities_equal_timm_without_fused_attention():
    from timm.layers import set_fused_attn

    record, _, _ = record_of("timm ViT", "image")
    set_fused_attn(False)
    try:
        model = built(next(c for c in CASES if c.name == "timm ViT"))
        seen = []
        for block in model.blocks:
            block.attn.attn_drop.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        with torch.no_grad():
            model(next(c for c in CASES if c.name == "timm ViT").data("image"))
        assert np.abs(record["image.attn.probs"].values - torch.stack(seen).numpy()).max() < 1e-6
        with pytest.raises(ValueError, match=r"image.attn.probs was never hit in blocks \[1, 2, 3\].*eager"):
            vlmlab.capture(model, torch.randn(2, 3, 32, 32), "image.attn.probs", progress=False)
    finally:
        set_fused_attn(True)


@pytest.mark.parametrize("name", ["HF LLaMA", "open_clip ViT", "open_clip CoCa", "HF CLIP"])
def test_causal_towers_do_not_look_ahead(name):
    p = record_of(name, "text")[0]["text.attn.probs"].values
    words = p[..., :12, :12]
    assert (np.triu(words, 1) == 0).all() and (words[..., 5, :6] > 0).all()


@pytest.mark.parametrize("name", ["HF BERT", "HF LLaMA"])
def test_padding_is_not_looked_at(name):
    record, _, _ = record_of(name, "text")
    p = record["text.attn.probs"]
    pad = record["text.embed"]["role"].values == "pad"
    received = np.moveaxis(p.values, 1, 0).sum(axis=(1, 2))  # (sample, query, token)
    for sample in range(3):
        words = ~pad[sample]
        assert (received[sample][words][:, pad[sample]] == 0).all()


@pytest.mark.parametrize("name", ["timm NaFlex", "HF SigLIP 2, NaFlex"])
def test_images_of_different_sizes_have_grids_of_their_own(name):
    record, _, _ = record_of(name, "image")
    assert record["rows"].values.tolist() == [4, 2, 3] and record["cols"].values.tolist() == [4, 5, 4]
    x = record["image.resid.post"]
    for sample, (rows, cols) in enumerate([(4, 4), (2, 5), (3, 4)]):
        here = x.isel(sample=sample)
        here = here.isel(token=here["role"].values == "patch")
        assert here["row"].values.tolist() == [i // cols for i in range(rows * cols)]
        assert here["col"].values.tolist() == [i % cols for i in range(rows * cols)]
    case = next(c for c in CASES if c.name == name)
    kept = vlmlab.capture(
        model_of(name),
        case.data("image"),
        "image.resid.post",
        keep=vlmlab.capture.mean("patch"),
        progress=False,
    )["image.resid.post"]
    expected = x.where(x["role"] == "patch").mean("token")
    assert np.abs(kept.isel(token=0) - expected).max() < 1e-5
    assert (
        np.abs(
            vlmlab.measures.norm_by_role(x).sel(role="patch")
            - vlmlab.measures.token_norms(x).where(x["role"] == "patch").mean("token")
        ).max()
        < 1e-5
    )


def test_hiera_is_refused_by_name():
    from timm.models.hiera import Hiera

    model = Hiera(img_size=64, embed_dim=16, num_heads=1, stages=(1, 1, 1, 1), mask_unit_size=(8, 8)).eval()
    with pytest.raises(ValueError, match=r"Hiera \(Hiera\) cannot be captured: its blocks pool tokens"):
        vlmlab.capture(model, torch.randn(2, 3, 64, 64), "image.resid.post", progress=False)


def test_a_tower_of_windows_has_no_attention_sites():
    record, _, _ = record_of("timm SAM", "image")
    assert not [name for name in record.data_vars if "attn" in name]
    with pytest.raises(ValueError, match=r"no site 'image\.attn\.probs'"):
        vlmlab.capture(model_of("timm SAM"), torch.randn(2, 3, 32, 32), "image.attn.probs", progress=False)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("timm EVA, gated", "blocks.0.mlp.fc2"),
        ("HF DINOv3, gated", "model.layer.0.mlp.down_proj"),
        ("HF AIMv2", "encoder.layers.0.ffn.down_proj"),
        ("timm ViT", "blocks.0.mlp.fc2"),
    ],
)
def test_neurons_are_what_the_last_projection_reads(name, read):
    model, seen = model_of(name), []
    handle = model.get_submodule(read).register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        model(next(c for c in CASES if c.name == name).data("image"))
    handle.remove()
    neurons = record_of(name, "image")[0]["image.mlp.act"].sel(layer=1).values
    assert np.abs(neurons - seen[0].numpy()).max() < 1e-5


@pytest.mark.parametrize("size", [(32, 72), (72, 32), (8, 40), (40, 8), (20, 44)])
@pytest.mark.parametrize("patch", [8, (8, 4), (4, 8)])
def test_patches_of_a_rectangle_have_its_rows_and_columns(size, patch):
    from timm.models.vision_transformer import VisionTransformer

    settings = dict(embed_dim=32, depth=1, num_heads=4, num_classes=0)
    model = VisionTransformer(img_size=size, patch_size=patch, **settings).eval()
    high, wide = patch if isinstance(patch, tuple) else (patch, patch)
    record = vlmlab.capture(model, torch.randn(2, 3, *size), "image.attn.probs", progress=False)
    x = record["image.attn.probs"]
    patches = x["role"].values == "patch"
    rows, cols = size[0] // high, size[1] // wide
    assert x["row"].values[patches].tolist() == [i // cols for i in range(rows * cols)]
    assert x["query_col"].values[patches].tolist() == [i % cols for i in range(rows * cols)]
    grads = vlmlab.capture.attention_grads(model, torch.randn(1, 3, *size), lambda x: x.sum(dim=1))
    flow = vlmlab.measures.rollout(grads["image.attn.probs"])
    assert flow["col"].values[patches].tolist() == x["col"].values[patches].tolist()


def test_patches_that_do_not_follow_the_rows_have_no_place():
    model = built(next(c for c in CASES if c.name == "timm ViT"))
    stem = model.patch_embed.forward
    turned = torch.arange(16).reshape(4, 4).T.flatten()
    model.patch_embed.forward = lambda x: stem(x)[:, turned]
    record = vlmlab.capture(model, torch.randn(2, 3, 32, 32), "image.resid.post", progress=False)
    assert "row" not in record["image.resid.post"].coords


def test_a_stem_that_overlaps_still_has_a_grid():
    model = built(next(c for c in CASES if c.name == "timm ViT"))
    model.patch_embed.proj = torch.nn.Conv2d(3, 32, 16, stride=8, padding=4)
    record = vlmlab.capture(model.eval(), torch.randn(2, 3, 32, 32), "image.resid.post", progress=False)
    x = record["image.resid.post"]
    assert x["row"].values[1:].tolist() == [i // 4 for i in range(16)]


@pytest.mark.parametrize("name", ["HF CLIP", "HF CLIP text tower", "HF CLIP text tower with projection"])
def test_a_word_behind_the_vocabulary_is_not_the_end(name):
    """Textual inversion: its id is above that of EOS, and EOS stands for padding too."""
    model = model_of(name)
    ids = torch.tensor([[1, 5, 98, 7, 97, 97, 97], [1, 5, 7, 8, 98, 97, 97]])
    ids = torch.where(ids == 98, 96, ids)  # 98 is EOS in these models: give it its place below
    ids[0, 4], ids[1, 5] = 98, 98
    roles = vlmlab.capture(model, {"input_ids": ids}, "text.embed", progress=False)["text.embed"]["role"]
    assert [row.tolist().index("eos") for row in roles.values] == [4, 5]
    with pytest.raises(ValueError, match=r"1 texts hold no end token \(id 98\), the first is number 1"):
        vlmlab.capture(
            model, {"input_ids": ids.where(torch.tensor([[True], [False]]), 5)}, "text.embed", progress=False
        )


@pytest.mark.parametrize(("pool", "place"), [("argmax", 2), ("eos", 4), ("first", 0), ("last", 11)])
@pytest.mark.parametrize("custom", [False, True])
def test_a_text_of_open_clip_is_read_where_its_pooling_says(pool, place, custom):
    from open_clip.model import CLIP, CLIPTextCfg, CustomTextCLIP

    if pool == "eos" and not hasattr(CLIPTextCfg, "eos_id"):
        pytest.skip("this open_clip reads no text at an id")
    text = {**CLIP_CFG["text_cfg"], "pool_type": pool} | ({"eos_id": 90} if pool == "eos" else {})
    model = (CustomTextCLIP if custom else CLIP)(
        embed_dim=16, vision_cfg=CLIP_CFG["vision_cfg"], text_cfg=text
    ).eval()
    ids = torch.tensor([[1, 5, 95, 7, 90, 90, 0, 0, 0, 0, 0, 0]])
    roles = vlmlab.capture(model, ids, "text.embed", progress=False)["text.embed"]["role"]
    assert roles.values[0].tolist().index("eos") == place


def test_a_wrong_rule_for_the_end_is_refuted_by_the_features():
    model = model_of("HF CLIP text tower")
    family = dataclasses.replace(FAMILIES["HF CLIP text tower"], tokens=Words("sos word*", "argmax"))
    ids = torch.tensor([[1, 110, 97, 98, 0, 0]])
    at(model, "base_model.embeddings|text_model.embeddings").token_embedding = torch.nn.Embedding(120, 32)
    with pytest.raises(ValueError, match="token 1 of text 0 is called eos, but the features change"):
        vlmlab.capture(model, ids, "text.embed", family=family, progress=False)
    record_of.cache_clear(), model_of.cache_clear()


def test_grouped_queries_share_keys():
    record, _, _ = record_of("HF LLaMA", "text")
    assert record["text.attn.q"].sizes["head"] == record["text.attn.probs"].sizes["head"] == 4
    assert record["text.attn.k"].sizes["head"] in (2, 4)


def test_an_eager_model_is_refused_by_name_of_the_reason():
    case = next(c for c in CASES if c.name == "HF ViT")
    model = made_eager(built(case))
    with pytest.raises(ValueError, match="does not call torch's scaled_dot_product_attention"):
        vlmlab.capture(model, case.data("image"), "image.attn.q", progress=False)


def test_own_module_has_its_prompts_where_they_appear():
    record, _, _ = record_of("own module", "image")
    x = record["image.resid.post"]
    assert x["role"].values.tolist() == ["cls"] + ["patch"] * 16 + ["prompt"] * 2
    prompt = x.sel(token=x["role"] == "prompt")
    assert np.isnan(prompt.sel(layer=1)).all() and np.isfinite(prompt.sel(layer=[2, 3])).all()


@pytest.mark.parametrize(
    ("family", "message"),
    [
        (
            {"tokens": {1: "cls patch*", 2: "cls prompt:2 patch*"}},
            r"token 1 is called prompt\[0\] and enters here",
        ),
        ({"tokens": "cls patch:16"}, "block 2: layout 'cls patch:16' names 17 tokens, but there are 19"),
        (
            {"tokens": {1: "patch*"}},
            r"token 0 is called patch\[0\], but it is equal for two different images",
        ),
        ({"blocks": "levels"}, "OwnModel has no 'levels'"),
        ({"sites": {"resid.post": ("ln_9", "out")}}, "has no 'ln_9'"),
        ({"batch_first": True}, "block 2: layout .* names 17 and more tokens, but there are 4"),
    ],
)
def test_a_wrong_family_is_one_clear_error(family, message):
    wrong = Family(
        **{"blocks": OWN.blocks, "sites": OWN.sites, "tokens": OWN.tokens, "batch_first": False} | family
    )
    model = built(CASES[-1])
    with pytest.raises(ValueError, match=message):
        vlmlab.capture(model, torch.randn(2, 3, 32, 32), "image.resid.post", family=wrong, progress=False)
    assert not own_hooks(model)


def test_unknown_modules_and_wrong_data():
    with pytest.raises(ValueError, match=r"OwnModel is of no family.*timm ViT.*family="):
        vlmlab.capture(OwnModel().eval(), torch.randn(2, 3, 32, 32), "image.resid.post")
    model = timm_model().eval()
    with pytest.raises(ValueError, match=r"no site 'text\.resid\.post'; it has image\.embed"):
        vlmlab.capture(model, torch.randn(2, 3, 32, 32), "text.resid.post")
    with pytest.raises(ValueError, match=r"\(image, channel, height, width\), float"):
        vlmlab.capture(model, torch.randn(2, 32, 32), "image.resid.post")
    with pytest.raises(ValueError, match="is in training mode"):
        vlmlab.capture(timm_model().train(), torch.randn(2, 3, 32, 32), "image.resid.post")
    bad = torch.randn(3, 3, 32, 32)
    bad[1, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="hold NaN or infinity, the first is '1'"):
        vlmlab.capture(model, bad, "image.resid.post", progress=False)


def test_a_map_style_dataset_with_labels():
    class Pictures:
        targets = [3, 1, 2]

        def __len__(self):
            return 3

        def __getitem__(self, i):
            return torch.full((3, 32, 32), float(i)) + torch.arange(32.0), self.targets[i]

    record = vlmlab.capture(timm_model().eval(), Pictures(), "image.resid.post", batch_size=2, progress=False)
    assert record["label"].values.tolist() == [3, 1, 2] and record["id"].values.tolist() == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("case", "kind"), [(c, k) for c, k in TOWERS if c.family is None], ids=lambda x: getattr(x, "name", x)
)
def test_families_are_distinct(case, kind):
    assert case.tower(model_of(case.name), kind).family in FAMILIES.values()
