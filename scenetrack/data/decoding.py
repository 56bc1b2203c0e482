"""Decoding of untrusted image files to 8-bit RGB: which formats, which limits, which pixels."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import numpy as np
import PIL
from PIL import ExifTags, Image

from scenetrack.errors import DataError
from scenetrack.system.files import printable

with suppress(ImportError):
    # Photographs of iPhones; the decoder is a package of its own.
    import pillow_heif

    pillow_heif.register_heif_opener()

# Pillow reads many more formats; the fewer decoders untrusted bytes can reach, the better.
# Of an MPO, which some cameras write, Pillow's JPEG reader takes the first picture.
_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
    "AVIF": (".avif",),
    "HEIF": (".heic", ".heif"),
}
Image.init()
_FORMATS = tuple(name for name in _SUFFIXES if name in Image.OPEN)
IMAGE_SUFFIXES = frozenset(suffix for name in _FORMATS for suffix in _SUFFIXES[name])
# What messages call them.
FORMAT_NAMES = "JPEG, PNG, WebP, BMP, TIFF, GIF or AVIF" + " or HEIC" * ("HEIF" in _FORMATS)
_MAX_PIXELS = 80_000_000
_LIMIT = f"the limit is {_MAX_PIXELS // 10**6} megapixels"
_LONGEST_SIGNATURE = 32
# Kinds of ISO media files that are still images, and sizes of the headers of Windows bitmaps.
_BRANDS = frozenset(
    brand
    for name, brands in {
        "AVIF": (b"avif", b"avis"),
        "HEIF": (b"heic", b"heix", b"heim", b"heis", b"mif1"),
    }.items()
    if name in _FORMATS
    for brand in brands
)
_BITMAP_HEADERS = frozenset({12, 40, 52, 56, 64, 108, 124})
# Increase it whenever decoding or resizing changes.
_PIXELS_VERSION = 2
# All that pixels depend on besides the file and the size; part of the keys of cached results.
PIXELS_VERSION = f"{_PIXELS_VERSION}, Pillow {PIL.__version__}"
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_image(path: Path) -> np.ndarray:
    """Return the image in ``path`` as uint8 [H, W, 3], RGB, 0 to 255, rotated as its EXIF data say.

    Grey, palette and CMYK images become RGB, 16-bit values are scaled to 8 bit, and transparent
    pixels are blended with white. Of an animation or a file of several pages the first is returned.

    Raises:
        DataError: the file is missing, truncated, too large (80 megapixels) or of no format of
            ``FORMAT_NAMES``.
    """
    with quiet_decoding():
        try:
            with path.open("rb") as file:
                return np.array(upright_rgb(open_image(file)))
        except Exception as error:
            raise DataError(unreadable(path, decoding_problem(error))) from error


def unreadable(path: Path, reason: str) -> str:
    """Return the error message for an image file that cannot be used."""
    return (
        f"a readable image is required, but {printable(path)} cannot be used ({reason}): "
        "replace or remove it"
    )


def open_image(file: IO[bytes]) -> Image.Image:
    """Open the image in ``file``: its size is known, its pixels are not read yet.

    Raises:
        Exception: of almost any kind; ``decoding_problem`` describes it.
    """
    image: Image.Image = Image.open(file, formats=_FORMATS)
    if image.width * image.height > _MAX_PIXELS:
        raise ValueError(f"{image.width} x {image.height} px, {_LIMIT}")
    return image


def upright_rgb(image: Image.Image) -> Image.Image:
    """Return the pixels of an opened image in RGB, rotated as its EXIF data say.

    Raises:
        Exception: as ``open_image``.
    """
    image.load()
    return _upright(_to_rgb(image), image)


def resized(image: Image.Image, size: int) -> np.ndarray:
    """Return an RGB image resized to uint8 [size, size, 3] by Pillow's bilinear filter."""
    # Pillow 13 resizes the height of tall images first, earlier releases and the graph of a bundle
    # the width; results differ by one grey level. Two steps fix the order.
    narrow = image.resize((size, image.height), Image.Resampling.BILINEAR)
    return np.asarray(narrow.resize((size, size), Image.Resampling.BILINEAR))


def has_image_signature(path: str | Path) -> bool:
    """Return whether the first bytes of a file are those of an image, whatever its suffix.

    A file that cannot be read has none.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(_LONGEST_SIGNATURE)
    except OSError:
        return False
    if start.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")):
        return True
    if start.startswith((b"II*\0", b"MM\0*")):
        return True
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return True
    if start[4:8] == b"ftyp" and start[8:12] in _BRANDS:
        return True
    # Many texts begin with BM: a bitmap has four bytes of zero and the size of its header too.
    is_bitmap = start.startswith(b"BM") and start[6:10] == bytes(4)
    return is_bitmap and int.from_bytes(start[14:18], "little") in _BITMAP_HEADERS


def _upright(rgb: Image.Image, image: Image.Image) -> Image.Image:
    # Not ImageOps.exif_transpose: it rewrites the EXIF data and fails if they are damaged.
    turn = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return rgb if turn is None else rgb.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow clips these at 255 when it converts them; 257 maps 65535 to 255 exactly.
        values = np.asarray(image).astype(np.float64) / 257
        grey = np.clip(np.rint(values), 0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.mode == "F":
        raise ValueError("pixels are floating-point numbers, whose black and white are unknown")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        paper = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(paper, layer).convert("RGB")
    return image.convert("RGB")


def decoding_problem(error: Exception) -> str:
    """Return a few words that say why an image could not be decoded."""
    if isinstance(error, PIL.UnidentifiedImageError):
        return f"no {FORMAT_NAMES} image"
    if isinstance(error, Image.DecompressionBombError):
        # Pillow's own limit is higher than _MAX_PIXELS and is checked first.
        return f"too many pixels, {_LIMIT}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def quiet_decoding() -> Iterator[None]:
    """Suppress Pillow's warnings about defects that it tolerates; `open_image` refuses huge images.

    Warning filters are global to the process: enter this before starting threads that decode.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", module="PIL")
        yield
