"""Image loading: decoding to 8-bit RGB, checks of untrusted files, resizing and caching."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn, TypeVar

import numpy as np
import PIL
from PIL import ExifTags, Image
from tqdm import tqdm

from scenetrack.cache import ArraySpec, Cache
from scenetrack.errors import DataError
from scenetrack.system.files import cache_dir, discard, printable, replacing
from scenetrack.system.foreign import parsed_json
from scenetrack.system.machine import available_cpus

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
# Pillow reads many more formats; the fewer decoders untrusted bytes can reach, the better.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
_MAX_PIXELS = 80_000_000
_LIMIT = f"the limit is {_MAX_PIXELS // 10**6} megapixels"
# Part of the key of cached pixels: increase it whenever decoding or resizing changes.
PIXELS_VERSION = 2
_BATCH = 1024
_BLOCK_BYTES = 2**25
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class ImageFacts:
    """Properties of an image file that has been decoded.

    Attributes:
        digest: SHA-256 of the file's bytes in hex.
        width, height: size in pixels after EXIF rotation.
        mode: Pillow's name of the stored pixel format.
        problem: reason why the file cannot be used, in which case the other fields may be empty;
            empty for a good image.
    """

    digest: str = ""
    width: int = 0
    height: int = 0
    mode: str = ""
    problem: str = ""


def decode_image(path: Path) -> np.ndarray:
    """Return the image in ``path`` as uint8 [H, W, 3], RGB, 0 to 255, rotated as its EXIF data say.

    Grey, palette and CMYK images become RGB, 16-bit values are scaled to 8 bit, and transparent
    pixels are blended with white. For an animation the first frame is returned.

    Raises:
        DataError: the file is missing, truncated, too large (80 megapixels) or not a JPEG, PNG,
            WebP or BMP image.
    """
    with quiet_decoding():
        try:
            with path.open("rb") as file:
                return np.array(_decode(file)[0])
        except Exception as error:
            raise DataError(unreadable(path, decoding_problem(error))) from error


def unreadable(path: Path, reason: str) -> str:
    """Return the error message for an image file that cannot be used."""
    return (
        f"a readable image is required, but {printable(path)} cannot be used ({reason}): "
        "replace or remove it"
    )


def examine_images(paths: Sequence[Path]) -> list[ImageFacts]:
    """Return the properties of each file, in order; threads decode each image completely.

    The results are cached, so that a file is decoded again only if its size or modification time
    changed.
    """
    facts: dict[Path, ImageFacts] = {}
    known = {folder: _FactsFile(folder) for folder in sorted({path.parent for path in paths})}
    for path in paths:
        remembered = known[path.parent].recall(path)
        if remembered is not None:
            facts[path] = remembered
    missing = [path for path in dict.fromkeys(paths) if path not in facts]
    with _progress(len(missing), "checking images") as progress:
        examined = _map_in_threads(_examine, missing, progress)
    for path, found in zip(missing, examined, strict=True):
        facts[path] = found
        known[path.parent].remember(path, found)
    for folder in {path.parent for path in missing}:
        known[folder].save()
    return [facts[path] for path in paths]


def load_images(paths: Sequence[Path], size: int) -> np.ndarray:
    """Return the images resized to squares: uint8 [N, size, size, 3], RGB, read-only.

    The aspect ratio is not kept. The filter is Pillow's bilinear one, which antialiases. The array
    is memory-mapped from the cache, keyed by the files' contents and ``size``: it takes no more
    memory than the pages in use, and is computed only once.

    Raises:
        DataError: an image cannot be decoded.
        InputError: the cache cannot be written, or the disk is full.
    """
    spec = ArraySpec((len(paths), size, size, 3), "uint8")
    if not paths:
        empty = np.empty(spec.shape, np.uint8)
        empty.flags.writeable = False
        return empty
    cache, key = Cache(), _pixels_key(paths, size)
    images = cache.open("images", key)
    if images is None:
        return cache.store("images", key, spec, _pixel_blocks(paths, size))
    logger.info("reusing %d images at %d px from %s", len(paths), size, cache.folder)
    return images


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
    return _upright(_to_rgb(image), image.getexif())


def resized(image: Image.Image, size: int) -> np.ndarray:
    """Return an RGB image resized to uint8 [size, size, 3] by Pillow's bilinear filter."""
    # Pillow 13 resizes the height of tall images first, earlier releases and the graph of a bundle
    # the width; results differ by one grey level. Two steps fix the order.
    narrow = image.resize((size, image.height), Image.Resampling.BILINEAR)
    return np.asarray(narrow.resize((size, size), Image.Resampling.BILINEAR))


def _decode(file: IO[bytes]) -> tuple[Image.Image, str]:
    """Return the upright RGB image in ``file`` and the mode in which it is stored."""
    image = open_image(file)
    return upright_rgb(image), image.mode


def _upright(image: Image.Image, exif: Image.Exif) -> Image.Image:
    # Not ImageOps.exif_transpose: it rewrites the EXIF data and fails if they are damaged.
    turn = _UPRIGHT.get(exif.get(ExifTags.Base.Orientation, 1))
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow clips these at 255 when it converts them; 257 maps 65535 to 255 exactly.
        values = np.asarray(image).astype(np.float64) / 257
        grey = np.clip(np.rint(values), 0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        paper = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(paper, layer).convert("RGB")
    return image.convert("RGB")


def decoding_problem(error: Exception) -> str:
    """Return a few words that say why an image could not be decoded."""
    if isinstance(error, PIL.UnidentifiedImageError):
        return "no JPEG, PNG, WebP or BMP image"
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


def _examine(path: Path) -> ImageFacts:
    digest = ""
    # Broken bytes make Pillow's decoders raise almost anything, not OSError alone.
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            image, mode = _decode(file)
    except Exception as error:
        return ImageFacts(digest=digest, problem=decoding_problem(error))
    return ImageFacts(digest, image.width, image.height, mode)


def _progress(total: int, description: str) -> tqdm[NoReturn]:
    return tqdm(total=total, desc=description, unit="img", disable=None)


def _map_in_threads(
    work: Callable[[Item], Result], items: Sequence[Item], progress: tqdm[NoReturn]
) -> list[Result]:
    """Return ``work(item)`` for each item, in order; Pillow releases the GIL while it decodes."""
    results: list[Result] = []
    threads = min(available_cpus(), 16)
    with quiet_decoding(), ThreadPoolExecutor(threads) as pool:
        # In batches, so that Ctrl-C does not wait for all submitted items.
        for start in range(0, len(items), _BATCH):
            for result in pool.map(work, items[start : start + _BATCH]):
                results.append(result)
                progress.update()
    return results


class _FactsFile:
    """Cached properties of the images of one folder (JSON)."""

    def __init__(self, folder: Path) -> None:
        name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:24]
        self.path = cache_dir("facts") / f"{name}.json"
        self.entries = self._read()

    def recall(self, path: Path) -> ImageFacts | None:
        entry = self.entries.get(path.name)
        try:
            if entry is not None and entry["state"] == _state(path):
                return ImageFacts(**entry["facts"])
        except (KeyError, OSError, TypeError):
            pass  # no such file, or a foreign entry: the file is examined again
        return None

    def remember(self, path: Path, facts: ImageFacts) -> None:
        try:
            state = _state(path)
        except OSError:
            self.entries.pop(path.name, None)
            return
        self.entries[path.name] = {"state": state, "facts": dataclasses.asdict(facts)}

    def save(self) -> None:
        # Another version of Pillow may read what this one could not, so the file states it.
        content = {"pillow": PIL.__version__, "files": self.entries}
        if self.path.is_dir():
            discard(self.path)
        with replacing(self.path) as temporary:
            temporary.write_text(json.dumps(content), encoding="utf-8")

    def _read(self) -> dict[str, Any]:
        try:
            content = parsed_json(self.path.read_text(encoding="utf-8"))
            if content["pillow"] == PIL.__version__:
                return dict(content["files"])
        except (KeyError, OSError, TypeError, ValueError):
            pass  # no file yet, or a damaged one: it is written again
        return {}


def _state(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _pixels_key(paths: Sequence[Path], size: int) -> dict[str, str]:
    facts = examine_images(paths)
    for path, found in zip(paths, facts, strict=True):
        if found.problem:
            raise DataError(unreadable(path, found.problem))
    contents = "\n".join(found.digest for found in facts)
    return {
        "size": f"{size} px",
        "contents": hashlib.sha256(contents.encode()).hexdigest(),
        "version": str(PIXELS_VERSION),
    }


def _pixel_blocks(paths: Sequence[Path], size: int) -> Iterator[np.ndarray]:
    """Yield the resized images in blocks uint8 [b, size, size, 3] of about 32 MB."""
    count = max(1, _BLOCK_BYTES // (3 * size * size))

    def read(path: Path) -> np.ndarray:
        with path.open("rb") as file:
            return resized(_decode(file)[0], size)

    with _progress(len(paths), f"reading images at {size} px") as progress:
        for start in range(0, len(paths), count):
            yield np.stack(_map_in_threads(read, paths[start : start + count], progress))
