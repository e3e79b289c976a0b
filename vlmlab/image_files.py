"""The one way in which picture files become RGB pictures, whatever their format, mode and depth."""

from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

# formats of pixels alone: others start programs (EPS) or hold drawings; those that Pillow lacks are left out
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF", "TGA", "MPO")
SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".png",
    ".webp",
    ".gif",
    ".bmp",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
    ".pbm",
    ".jp2",
    ".avif",
    ".tga",
)
DEPTHS = (8, 10, 12, 14, 16)  # bits that cameras, scanners and satellites write into 16
ORIENTATION = 0x0112  # the EXIF tag
TURNED = {  # its value -> what turns the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Unreadable(ValueError):
    """A picture that cannot be read; the message names the file and the fix."""


def is_picture(name: str) -> bool:
    """Whether a file is called like a picture, and not like one that some system left there (._x.jpg)."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def opened(path: Path | BinaryIO) -> Image.Image:
    """A picture file with its header read, its pixels not yet; Pillow's errors."""
    Image.init()
    return Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN])


def read(path: Path, *, upright: bool = True, fix: str = "repair it or leave it out") -> Image.Image:
    """A picture file as RGB, by `rgb`; of several frames or pages the first.

    upright: turned as its EXIF orientation says. FileNotFoundError where there is none; `Unreadable` names a file
    that is damaged, cut, no picture, or too large to be one (a decompression bomb); it ends in `fix`.
    """
    try:
        with opened(path) as image:
            turned = TURNED.get(orientation(image)) if upright else None
            return rgb(image if turned is None else image.transpose(turned))
    except FileNotFoundError:
        raise
    except Exception as e:  # Pillow has no common class for what damaged files raise
        raise Unreadable(f"{path} is not a readable image ({type(e).__name__}: {e}); {fix}") from e


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of a picture, 1 (upright) to 8; 1 where its EXIF says nothing, or nothing legible.

    Loads its pixels: a PNG may have its EXIF behind them, and what is wrong with them is no matter of EXIF.
    """
    image.load()
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except Exception:  # whatever a damaged block of metadata raises; the pixels are another block
        return 1
    return found if found in TURNED else 1


def rgb(image: Image.Image) -> Image.Image:
    """A picture of any mode as 8-bit RGB; transparency is dropped, what lies below it shows.

    Whole numbers of 16 or 32 bits are scaled by the smallest of 8, 10, 12, 14 and 16 bits that holds the largest
    of the picture, since a scanner's 12 bits come in files of 16; floats likewise, or by 1 where none is above 1;
    what is below zero or above 16 bits, from its smallest to its largest value. ValueError for NaN and infinity.
    """
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(narrowed(np.asarray(image))).convert("RGB")
    if image.mode in ("P", "PA", "La", "RGBa"):  # palettes with transparency, alpha that is multiplied in
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    return image.convert("RGB")


def narrowed(values: np.ndarray) -> np.ndarray:
    """Grey values (height, width) of more than 8 bits as uint8, see `rgb`."""
    whole, values = values.dtype.kind in "iu", values.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("its pixels hold NaN or infinity; fill them")
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 2 ** DEPTHS[-1] - 1:
        span = high - low or 1.0
    else:
        tops = [1.0] * (not whole) + [2.0**bits - 1 for bits in DEPTHS]
        low, span = 0.0, next(top for top in tops if high <= top)
    return np.round(255 * (values - low) / span).astype(np.uint8)
