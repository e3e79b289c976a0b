import numpy as np
import pytest
import torch

from vlmlab import capture
from vlmlab.capturing.edit import EDITABLE, is_edited

TEXTS = ["a cat", "a photo of a very big dog", "two birds"]


def grab(model, data, sites, **options):
    return capture(model, data, sites, progress=False, **options)


def site(model, data, name, **options):
    return grab(model, data, name, **options)[name.split("[")[0]]


def gone(vlm, hooks_left):
    return (
        not hooks_left(vlm)
        and vlm.shortcuts
        and not vlm.image.observers
        and not vlm.text.observers
        and not is_edited(vlm.image)
        and not is_edited(vlm.text)
    )


@pytest.mark.parametrize("name", [site for site in EDITABLE if site != "cross.out"])
def test_a_run_patched_with_its_own_values_is_unchanged(vlm, mmrlpp, images, hooks_left, name):
    for model in (vlm, mmrlpp):
        before = grab(model, images, ["image.final", f"image.{name}"], batch_size=2)

        def same(x, table, before=before):
            return capture.patch(own(before, table))(x, table)

        with capture.edit(model, {f"image.{name}": same}):
            after = grab(model, images, "image.final", batch_size=2)
        assert np.array_equal(after["image.final"], before["image.final"])
    assert gone(vlm, hooks_left)


def own(record, table):
    """What a record holds of one block, without the tokens that are not there yet."""
    return record[table.site].sel(layer=[table.layer]).dropna("token", how="all")


@pytest.mark.parametrize("layer", [1, 3, 4])
def test_a_block_patched_from_another_image_gives_its_output(vlm, images, layer):
    name = "image.resid.post"
    acts = grab(vlm, images, [name, "image.final"])
    with capture.edit(vlm, {f"{name}[{layer}]": capture.patch(acts[name].isel(sample=[3]))}):
        patched = grab(vlm, images[:2], [name, "image.final"])
        assert is_edited(vlm.image)
    for key in (name, "image.final"):
        other = acts[key].isel(sample=[3, 3])
        assert (
            np.abs(
                patched[key].values[layer - 1 if key == name else 0 :]
                - (other.values[layer - 1 :] if key == name else other.values)
            ).max()
            < 1e-5
        )
    if layer > 1:  # blocks before it are not touched
        assert np.array_equal(patched[name].sel(layer=1), acts[name].sel(layer=1).isel(sample=[0, 1]))


def test_patching_some_tokens_leaves_the_others(vlm, images):
    name = "image.resid.pre"
    acts = grab(vlm, images, name, keep=capture.roles("cls"))
    whole, other = site(vlm, images, name), acts[name].isel(sample=4)
    with capture.edit(vlm, {f"{name}[2]": capture.patch(other)}):
        after = site(vlm, images, f"{name}")
    after, whole = after.sel(layer=2), whole.sel(layer=2)
    assert np.array_equal(after.isel(token=slice(1, None)), whole.isel(token=slice(1, None)))
    assert np.array_equal(after.isel(token=0), np.tile(whole[4, 0], (5, 1)))


def test_zero_ablation_of_what_every_block_adds_leaves_the_embedding(vlm, images):
    zero = capture.ablate(values="zero")
    with capture.edit(vlm, {"image.attn.out": zero, "image.mlp.out": zero}):
        acts = grab(vlm, images, ["image.embed", "image.resid.post", "image.attn.out"])
    assert np.array_equal(acts["image.resid.post"].sel(layer=4), acts["image.embed"])
    assert not acts["image.attn.out"].any()


def test_ablated_prompts_are_zero_and_carry_nothing_into_attention(mmrlpp, vlm, images, hooks_left):
    sites = ["image.resid.pre", "image.attn.k", "image.attn.v"]
    with capture.edit(mmrlpp, {"image.resid.pre[3:]": capture.ablate("prompt", values="zero")}):
        acts = grab(mmrlpp, images, sites)
    x = acts["image.resid.pre"].sel(layer=3)
    assert not x.isel(token=[1, 2]).any() and x.isel(token=0).any() and x.isel(token=3).any()
    block = vlm.image.blocks[2].attn  # the key of a zero token is what biases give
    with torch.no_grad():
        key, value = (
            vlm.image.blocks[2].ln_1.bias @ w.T + b
            for w, b in zip(block.in_proj_weight.chunk(3)[1:], block.in_proj_bias.chunk(3)[1:])
        )
    for name, expected in (("image.attn.k", key), ("image.attn.v", value)):
        got = acts[name].sel(layer=3).isel(token=1).values.reshape(5, -1)
        assert np.abs(got - expected.numpy()).max() < 1e-6
    assert gone(vlm, hooks_left)


def test_mean_ablation(vlm, images):
    name = "image.resid.post"
    plain = site(vlm, images, name).sel(layer=2)
    by_batch, by_record = capture.ablate("patch"), capture.ablate("patch", values=plain)
    with capture.edit(vlm, {f"{name}[2]": by_batch}):
        one = site(vlm, images, name).sel(layer=2)
    with capture.edit(vlm, {f"{name}[2]": by_record}):
        two = site(vlm, images, name, batch_size=1).sel(layer=2)
        with pytest.raises(ValueError, match="is that sample"), capture.edit(vlm, {name: by_batch}):
            vlm.encode_image(images[:1])
    expected = np.tile(plain.isel(token=slice(1, None)).mean("sample"), (5, 1, 1))
    for x in (one, two):
        assert np.abs(x.isel(token=slice(1, None)) - expected).max() < 1e-5
        assert np.array_equal(x.isel(token=0), plain.isel(token=0))


def test_text_is_edited_at_its_eos(vlm, mmrlpp, hooks_left):
    name = "text.resid.post"
    plain = grab(vlm, TEXTS, [name, "text.final"])
    with capture.edit(vlm, {f"{name}[-1]": capture.ablate("eos", values="zero")}):
        gone_eos = site(vlm, TEXTS, name, keep=capture.roles("eos"), batch_size=2).sel(layer=4)
        words = site(vlm, TEXTS, name).sel(layer=4)
    assert not gone_eos.any()
    assert [int((~w.any("feature")).sum()) for w in words] == [1, 1, 1]
    with capture.edit(vlm, {f"{name}[2]": capture.patch(plain[name])}):
        assert np.abs(site(vlm, TEXTS, "text.final", batch_size=2) - plain["text.final"]).max() < 1e-6
    features = mmrlpp.current_class_features().detach()  # cached, with a cached prefix
    with capture.edit(mmrlpp, {f"{name}[1]": capture.ablate("word", "eos", values="zero")}), torch.no_grad():
        changed = mmrlpp.current_class_features()
        seen = site(mmrlpp, None, f"{name}[4]", keep=capture.roles("eos"))
    assert (changed - features).abs().max() > 1e-3 and seen.notnull().all()
    assert torch.equal(mmrlpp.current_class_features(), features)
    assert gone(vlm, hooks_left)


def test_steering_and_gradients_pass_through(vlm, images):
    direction = torch.zeros(64, requires_grad=True)
    plain = vlm.encode_image(images)
    with capture.edit(vlm, {"image.resid.post[2]": lambda x, table: x + direction}):
        out = vlm.encode_image(images)
    assert torch.allclose(out, plain, atol=1e-6)
    (grad,) = torch.autograd.grad(out.sum(), direction)
    assert grad.abs().max() > 0


def test_edits_nest_and_apply_in_order(vlm, images):
    add, double = (lambda x, t: x + 1), (lambda x, t: 2 * x)
    plain = site(vlm, images, "image.resid.post[2]")
    with capture.edit(vlm, {"image.resid.post[2]": add}):
        with capture.edit(vlm, {"image.resid.post[2]": double}):
            both = site(vlm, images, "image.resid.post[2]")
        one = site(vlm, images, "image.resid.post[2]")
        assert is_edited(vlm.image)
    assert np.array_equal(both, 2 * (plain + 1)) and np.array_equal(one, plain + 1)


def test_everything_is_removed_after_an_exception(vlm, images, hooks_left):
    before = vlm.encode_image(images)
    with pytest.raises(KeyError), capture.edit(vlm, {"*.resid.post": lambda x, t: x * 0}):
        vlm.encode_image(images)
        raise KeyError
    assert gone(vlm, hooks_left) and torch.equal(vlm.encode_image(images), before)


@pytest.mark.parametrize(
    ("sites", "message"),
    [
        ({"image.resid.mid": capture.ablate()}, "what can be edited is image.resid.pre"),
        ({"image.attn.*": capture.ablate()}, "asks to edit image.attn.q"),
        ({"image.resid.pots": capture.ablate()}, "no site .image.resid.pots"),
        ({"image.resid.post[9]": capture.ablate()}, "does not exist"),
        ({"image.resid.post[2]": torch.zeros(1)}, "patch.values. makes one"),
        ({"image.resid.post[2]": lambda x, t: x[:, :3]}, r"post\[2\] returned shape \(5, 3, 64\); .*5, 17"),
        ({"image.resid.post[2]": lambda x, t: None}, "returned NoneType"),
        ({"image.resid.post[2]": capture.ablate("prompt")}, "no token of role 'prompt'; it has cls, patch"),
        ({"image.resid.post[2]": capture.patch(torch.zeros(2, 17, 64))}, "2 samples .* runs 5"),
        ({"image.resid.post[2]": capture.patch(torch.zeros(5, 16, 64))}, "do not fit"),
        ({"image.resid.post[2]": capture.patch(torch.zeros(5, 17, 63))}, r"shape \(5, 17, 63\) do not fit"),
        ({"image.resid.post[2]": capture.patch(np.zeros((5, 17)))}, r"shape \(5, 17\) do not fit"),
        ({"image.resid.post[2]": capture.patch(torch.full((5, 17, 64), torch.nan))}, "hold NaN"),
        ({"text.resid.post[2]": capture.ablate("word")}, r"text.resid.post\[2\] were never applied"),
    ],
)
def test_one_clear_error_each(vlm, images, sites, message, hooks_left):
    with pytest.raises(ValueError, match=message), capture.edit(vlm, sites):
        vlm.encode_image(images)
    assert gone(vlm, hooks_left)


def test_records_that_do_not_fit(vlm, images):
    acts = grab(vlm, images, ["image.resid.post[1]", "image.resid.pre"])
    for values, message in [
        (acts["image.resid.post"], r"are of blocks \[1\]"),
        (acts["image.resid.pre"].isel(feature=0), "have dims"),
        (acts["image.resid.pre"].drop_vars("role"), "have dims"),
        (
            acts["image.resid.pre"].isel(token=[0]).assign_coords(role=("token", ["eos"])),
            r"no token eos\[0\]",
        ),
    ]:
        with (
            pytest.raises(ValueError, match=message),
            capture.edit(vlm, {"image.resid.post[2]": capture.patch(values)}),
        ):
            vlm.encode_image(images)
    with pytest.raises(ValueError, match="must be 'mean'"):
        capture.ablate("cls", values="median")


def test_a_record_with_tokens_that_come_later_can_be_patched_into_an_early_block(vlm, mmrlpp, images):
    acts = capture(mmrlpp, images, "image.resid.post", progress=False)["image.resid.post"]
    with torch.no_grad():
        plain = mmrlpp.encode_image(images.flip(0))["cls"]
        with capture.edit(mmrlpp, {"image.resid.post[1]": capture.patch(acts)}):
            patched = mmrlpp.encode_image(images.flip(0))["cls"]
        expected = mmrlpp.encode_image(images)["cls"]
    assert (patched - expected).abs().max() < 1e-4 < (patched - plain).abs().max()


@pytest.mark.parametrize("samples", [1, 3])
def test_plain_arrays_are_put_in_batch_by_batch(vlm, images, samples):
    name = "image.resid.post"
    acts = grab(vlm, images, name)[name]
    values = acts.sel(layer=2).isel(sample=slice(2, 2 + samples)).values
    for given in (
        values,
        torch.tensor(values),
        torch.tensor(values).requires_grad_(),
        torch.tensor(values).double(),
    ):
        for batch_size in (1, 2, 3):
            with capture.edit(vlm, {f"{name}[2]": capture.patch(given)}):
                after = grab(vlm, images[:3], name, batch_size=batch_size)[name]
            assert np.array_equal(after.sel(layer=2), np.broadcast_to(values, (3, 17, 64)))
    with capture.edit(vlm, {f"{name}[2]": capture.patch(values, "cls")}):
        some = site(vlm, images[:3], f"{name}[2]").isel(layer=0)
    assert np.array_equal(some[:, 0], np.broadcast_to(values[:, 0], (3, 64)))
    assert np.array_equal(some[:, 1:], acts.sel(layer=2).isel(sample=slice(3))[:, 1:])


@pytest.mark.parametrize("samples", [1, 2])
def test_two_samples_have_a_mean_and_one_has_none(vlm, images, samples):
    mean, zero = capture.ablate("patch"), capture.ablate("patch", values="zero")
    with capture.edit(vlm, {"image.resid.pre[3]": zero}):
        assert not site(vlm, images[:samples], "image.resid.pre[3]").isel(token=slice(1, None)).any()
    with capture.edit(vlm, {"image.resid.pre[3]": mean}):
        if samples == 1:
            with pytest.raises(ValueError, match="the mean over one sample is that sample"):
                grab(vlm, images[:1], "image.final")
            return
        x = site(vlm, images[:2], "image.resid.pre[3]").isel(layer=0, token=slice(1, None))
    expected = site(vlm, images[:2], "image.resid.pre[3]").isel(layer=0, token=slice(1, None)).mean("sample")
    assert np.allclose(x[0], expected, atol=1e-6) and np.allclose(x[1], expected, atol=1e-6)


def test_words_of_a_record_that_kept_words_only(vlm):
    """Shorter texts hold NaN behind their last word, where nothing is put."""
    name, other = "text.resid.post", ["a dog", "the map of a quite old house", "one tree"]
    acts = grab(vlm, TEXTS, name, keep=capture.roles("word"))[name]
    plain = grab(vlm, other, name)[name].sel(layer=2)
    with capture.edit(vlm, {f"{name}[2]": capture.patch(acts, "word")}):
        x = site(vlm, other, f"{name}[2]").isel(layer=0)
    assert acts.isnull().any() and plain["role"].values[1].tolist().count("word") == 7
    for sample in range(3):
        is_word = plain["role"].values[sample] == "word"
        put = acts.sel(layer=2).values[sample][: is_word.sum()]
        assert np.array_equal(x.values[sample][is_word], put)
        assert np.array_equal(x.values[sample][~is_word], plain.values[sample][~is_word])


def test_the_table_of_an_edit_says_which_word_is_which(vlm, mmrlpp):
    seen = []

    def look(x, table):
        seen.append((table.site, table.layer, table.eos.tolist(), table.mask("pad", x).sum(dim=1).tolist()))
        assert table.dims == ("sample", "token", "feature") and x.shape[1] == len(table.axis.tokens)
        return x

    ends = vlm.tokenize(TEXTS).argmax(dim=1)
    with capture.edit(vlm, {"text.mlp.out[4]": look}):
        assert not vlm.image.shortcuts and not vlm.text.shortcuts
        vlm.encode_text(TEXTS)
    assert seen == [("text.mlp.out", 4, ends.tolist(), (15 - ends).tolist())]
    assert vlm.image.shortcuts and vlm.text.shortcuts
    seen.clear()
    with capture.edit(mmrlpp, {"text.resid.pre[4]": look}), torch.no_grad():
        mmrlpp.class_features()
    ends = vlm.tokenize(mmrlpp.prompts()).argmax(dim=1) + 2  # behind two prompt tokens
    assert seen[0][:3] == ("text.resid.pre", 4, ends.tolist())
