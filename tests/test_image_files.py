"""Picture files of every format, mode and depth, as RGB."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from vlmlab import feeds, image_files
from vlmlab.image_files import Unreadable

RAMP = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))  # from 0 to 252, left to right
COLOURS = np.dstack([RAMP, RAMP.T, 255 - RAMP])


def saved(tmp_path, image, ending, **options):
    image.save(path := tmp_path / f"x{ending}", **options)
    return path


def pixels(path, **options):
    image = image_files.read(path, **options)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


@pytest.mark.parametrize(
    ("mode", "ending"),
    [
        *(("RGB", ending) for ending in (".png", ".tiff", ".webp", ".bmp", ".ppm", ".tga", ".jp2")),
        *(("RGBA", ending) for ending in (".png", ".tiff", ".webp", ".tga", ".jp2")),
        *(("P", ending) for ending in (".png", ".tiff", ".gif", ".bmp")),
        *(("CMYK", ending) for ending in (".jpg", ".tiff")),
        ("YCbCr", ".tiff"),
    ],
)
def test_colours_of_any_mode(tmp_path, mode, ending):
    image = Image.fromarray(COLOURS)
    image = image.quantize(256) if mode == "P" else image.convert(mode)
    path = saved(tmp_path, image, ending, **({"lossless": True} if ending == ".webp" else {}))
    if mode == "YCbCr" and not legible(path):
        pytest.skip("this Pillow does not read the YCbCr that it writes into TIFF")
    assert np.abs(pixels(path) - COLOURS).mean() < 12


def legible(path):
    try:
        Image.open(path).load()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("mode", ["L", "LA", "1", "P"])
def test_grey_of_any_mode(tmp_path, mode):
    path = saved(tmp_path, Image.fromarray(RAMP).convert(mode), ".png")
    found = pixels(path)
    assert (found == found[..., :1]).all() and abs(found.mean() - RAMP.mean()) < 3


def test_a_palette_with_transparency_keeps_its_colours(tmp_path):
    image = Image.fromarray(COLOURS).quantize(16)
    expected = np.asarray(image.convert("RGB"))
    path = saved(tmp_path, image, ".png", transparency=bytes(range(16)))
    assert (pixels(path) == expected).all()


@pytest.mark.parametrize("top", [1, 255, 1023, 4095, 16383, 65535])
@pytest.mark.parametrize(
    ("dtype", "ending"),
    [(np.uint16, ".png"), (np.uint16, ".tiff"), (np.int32, ".tiff"), (np.float32, ".tiff")],
)
def test_deep_pictures_are_scaled_by_their_range(tmp_path, dtype, ending, top):
    top = top if dtype is np.float32 else max(top, 255)
    values = (np.linspace(0, 1, 4096).reshape(64, 64) * top).astype(dtype)
    found = pixels(saved(tmp_path, Image.fromarray(values), ending))[..., 0]
    assert np.abs(found - np.linspace(0, 255, 4096).reshape(64, 64)).max() < 1.6


def test_byte_orders_and_what_is_out_of_range(tmp_path):
    big = Image.frombytes("I;16B", (64, 1), np.arange(0, 65536, 1024, dtype=">u2").tobytes())
    little = Image.fromarray(np.arange(0, 65536, 1024, dtype="<u2")[None])
    assert (np.asarray(image_files.rgb(big)) == np.asarray(image_files.rgb(little))).all()
    for values in ([-5.0, 0.0, 5.0], [0.0, 1e6, 2e6], [-3e9, 0, 3e9]):
        image = Image.fromarray(np.array([values], dtype=np.float32))
        assert np.asarray(image_files.rgb(image))[0, :, 0].tolist() == [0, 128, 255]
    assert not np.asarray(image_files.rgb(Image.fromarray(np.full((2, 2), -7.0, np.float32)))).any()
    for bad in (np.nan, np.inf):
        path = saved(tmp_path, Image.fromarray(np.array([[0.0, bad]], np.float32)), ".tiff")
        with pytest.raises(Unreadable, match=r"x\.tiff is not a readable image .*hold NaN or infinity"):
            image_files.read(path)


@pytest.mark.parametrize("value", [*range(1, 9), 0, 9, 300])
def test_exif_orientation(tmp_path, value):
    upright = Image.fromarray(np.dstack([RAMP, RAMP.T, RAMP])[:40])
    exif = Image.Exif()
    exif[0x0112] = value
    stored = upright
    for turn in {2: [0], 3: [3], 4: [1], 5: [5], 6: [2], 7: [6], 8: [4]}.get(value, []):
        stored = stored.transpose(Image.Transpose(turn))
    path = saved(tmp_path, stored, ".jpg", exif=exif, quality=95, subsampling=0)
    assert np.abs(pixels(path) - np.asarray(upright)).mean() < 3
    assert pixels(path, upright=False).shape == (*stored.size[::-1], 3)


def test_exif_that_is_rubbish_leaves_the_picture(tmp_path):
    path = saved(tmp_path, Image.fromarray(COLOURS), ".jpg", exif=b"Exif\0\0MM\0*rubbish" + bytes(9))
    assert pixels(path).shape == (64, 64, 3)


@pytest.mark.parametrize("ending", [".gif", ".tiff", ".webp", ".png"])
def test_of_several_frames_the_first(tmp_path, ending):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]
    path = saved(tmp_path, frames[0], ending, save_all=True, append_images=frames[1:])
    assert np.abs(pixels(path)[0, 0] - [250, 0, 0]).max() < 8


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(side=50_000):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def text_bomb():
    out, info = io.BytesIO(), PngImagePlugin.PngInfo()
    info.add_text("a", "x" * 70_000_000, zip=True)
    Image.new("RGB", (2, 2)).save(out, "PNG", pnginfo=info)
    return out.getvalue()


def png():
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 99, (64, 64, 3), dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


def jpeg(quality=75):
    out = io.BytesIO()
    Image.fromarray(COLOURS).save(out, "JPEG", quality=quality)
    return out.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>404 not found</html>",
        b'<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"/>',
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n%%EOF",
        b"\x89PNG\r\n\x1a\n",
        b"RIFF\xff\xff\xff\xffWEBPVP8 ",
        b"II*\0\x08\0\0\0\xff\xff",
        png()[:-300],
        png()[:5731] + b"\xff" * 40 + png()[5771:],
        jpeg()[: len(jpeg()) // 2],
        bomb(),
        text_bomb(),
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
    ],
    ids=lambda data: data[:24].decode("latin-1") + str(len(data)),
)
def test_what_is_no_picture_is_named_once(tmp_path, data):
    (tmp_path / "x.jpg").write_bytes(data)
    with pytest.raises(
        Unreadable, match=r"x\.jpg is not a readable image \(\w+: .*\); repair it or leave it out$"
    ):
        image_files.read(tmp_path / "x.jpg")


def test_what_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"x\.jpg"):
        image_files.read(tmp_path / "x.jpg")
    (tmp_path / "x.jpg").mkdir()
    with pytest.raises(Unreadable, match="IsADirectoryError"):
        image_files.read(tmp_path / "x.jpg")


def test_a_feed_says_it_once(tmp_path):
    class Set:
        ids = ["x.jpg"]

        def image(self, i, rng):
            return image_files.read(tmp_path / self.ids[i], fix="get it again")

    (tmp_path / "x.jpg").write_bytes(b"no picture")
    with pytest.raises(Unreadable, match=r"^\S+x\.jpg is not a readable image .*; get it again$"):
        feeds.picture(Set(), 0)


@pytest.mark.parametrize("name", ["a.JPG", "b.jpeg", "c.webp", "d.TIF", "e.gif", "f.avif"])
def test_names_of_pictures(name):
    assert image_files.is_picture(name)
    assert not image_files.is_picture(f"._{name}") and not image_files.is_picture(f"{name}.txt")
