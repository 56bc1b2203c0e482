"""Image decoding, refusal of damaged files, and the cache of pixels."""

from __future__ import annotations

import hashlib
import io
import logging
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scenetrack.data import images
from scenetrack.data.decoding import decode_image
from scenetrack.data.images import load_images
from scenetrack.errors import DataError


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path / "cache"
    monkeypatch.setenv("SCENETRACK_CACHE", str(cache))
    return cache


def scene(height: int = 24, width: int = 40, seed: int = 0) -> np.ndarray:
    """Smooth random colours, so that lossy formats stay close: uint8 [height, width, 3]."""
    cells = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(cells).resize((width, height), Image.Resampling.BILINEAR))


def write_png(path: Path, values: np.ndarray, colour_type: int) -> Path:
    """A 16-bit PNG by hand, since Pillow writes only grey ones: values uint16 [H, W, C]."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    height, width = values.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".PNG", ".tif", ".TIFF"])
def test_lossless_formats_give_the_same_pixels(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image{suffix}"
    Image.fromarray(scene()).save(path)
    decoded = decode_image(path)
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, scene())


def test_lossless_webp_gives_the_same_pixels(tmp_path: Path) -> None:
    path = tmp_path / "image.webp"
    Image.fromarray(scene()).save(path, lossless=True)
    np.testing.assert_array_equal(decode_image(path), scene())


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_jpeg_is_close(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "image.jpg"
    Image.fromarray(scene()).convert(mode).save(path, quality=95, subsampling=0)
    assert np.abs(decode_image(path).astype(int) - scene()).mean() < 3


@pytest.mark.parametrize(
    ("suffix", "kind"), [(".avif", "AVIF"), (".jfif", "JPEG"), (".mpo", "MPO")]
)
def test_other_photographs_are_close(tmp_path: Path, suffix: str, kind: str) -> None:
    path = tmp_path / f"image{suffix}"
    others = (
        {"save_all": True, "append_images": [Image.new("RGB", (8, 8))]} if kind == "MPO" else {}
    )
    Image.fromarray(scene()).save(path, kind, quality=95, **others)
    assert np.abs(decode_image(path).astype(int) - scene()).mean() < 4


@pytest.mark.parametrize("suffix", [".gif", ".tif"])
def test_the_first_of_several_pictures_is_taken(tmp_path: Path, suffix: str) -> None:
    pictures = [Image.new("RGB", (20, 10), colour) for colour in ("red", "blue")]
    path = tmp_path / f"image{suffix}"
    pictures[0].save(path, save_all=True, append_images=pictures[1:])
    assert np.unique(decode_image(path).reshape(-1, 3), axis=0).tolist() == [[255, 0, 0]]


def test_a_tiff_of_floating_point_numbers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    Image.fromarray(np.zeros((4, 4), np.float32)).save(path)
    with pytest.raises(DataError, match="floating-point numbers, whose black and white are"):
        decode_image(path)


def test_a_rotated_tiff_is_turned_once(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    image = Image.fromarray(scene())
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(path, exif=exif)
    expected = np.asarray(image.transpose(Image.Transpose.ROTATE_270))
    np.testing.assert_array_equal(decode_image(path), expected)


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    grey = scene()[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(
        decode_image(tmp_path / "grey.png"), np.repeat(grey[..., None], 3, axis=2)
    )


def test_bilevel_is_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "bits.png")
    assert decode_image(tmp_path / "bits.png").tolist() == [[[255] * 3, [0] * 3]]


def test_palette_with_transparency_shows_white(tmp_path: Path) -> None:
    image = Image.frombytes("P", (2, 2), bytes([0, 1, 2, 1]))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.save(tmp_path / "palette.png", transparency=1)
    expected = [[[255, 0, 0], [255, 255, 255]], [[0, 0, 255], [255, 255, 255]]]
    assert decode_image(tmp_path / "palette.png").tolist() == expected


def test_alpha_is_laid_on_white(tmp_path: Path) -> None:
    pixels = np.array([[[200, 100, 0, 255], [200, 100, 0, 0], [0, 0, 0, 51]]], dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "alpha.png")
    # 51 of 255 is a fifth: black at a fifth over white leaves four fifths of 255.
    assert decode_image(tmp_path / "alpha.png").tolist() == [
        [[200, 100, 0], [255, 255, 255], [204, 204, 204]]
    ]


def test_16_bit_grey_is_scaled_and_not_clipped(tmp_path: Path) -> None:
    values = np.array([[0, 257, 51400, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    assert decode_image(tmp_path / "deep.png")[0, :, 0].tolist() == [0, 1, 200, 255]


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_other_16_bit_png_are_scaled(tmp_path: Path, colour_type: int, channels: int) -> None:
    values = np.full((2, 2, channels), 65535, dtype=np.uint16)
    values[..., 0] = 257 * 100
    path = write_png(tmp_path / "deep.png", values, colour_type)
    assert decode_image(path)[0, 0].tolist() == ([100] * 3 if channels == 2 else [100, 255, 255])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(tmp_path: Path, orientation: int) -> None:
    # Each stored form is derived from the upright image with NumPy alone.
    store = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(store(scene()))
    Image.fromarray(stored).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(decode_image(tmp_path / "turned.png"), scene())


def test_nonsense_exif_does_not_hide_the_image(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    Image.fromarray(scene()).save(path, exif=b"Exif\0\0" + bytes(range(60)))
    assert decode_image(path).shape == (24, 40, 3)


def jpeg_bytes(height: int = 64, width: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(scene(height, width)).save(buffer, "JPEG")
    return buffer.getvalue()


def truncated(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (truncated(jpeg_bytes()), "truncated"),
        (b"", "no JPEG, PNG, WebP, BMP, TIFF, GIF or AVIF image"),
        (b"hello", "no JPEG, PNG, WebP, BMP, TIFF, GIF or AVIF image"),
        (b"8BPS" + bytes(50), "no JPEG, PNG, WebP, BMP, TIFF, GIF or AVIF image"),
    ],
    ids=["truncated", "empty", "text", "gif"],
)
def test_bad_files_give_one_line_with_the_file(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match="replace or remove it") as caught:
        decode_image(path)
    message = str(caught.value)
    assert "--skip-bad" not in message  # not every command has it
    assert str(path) in message
    assert reason in message
    assert "\n" not in message


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP"])
def test_truncation_is_found_in_every_format(tmp_path: Path, kind: str) -> None:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, kind)
    path = tmp_path / f"bad.{kind.lower()}"
    path.write_bytes(truncated(buffer.getvalue()))
    with pytest.raises(DataError):
        decode_image(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        decode_image(tmp_path / "gone.jpg")


# Pillow has a bound of its own, which the larger one is beyond.
@pytest.mark.parametrize("side", [9500, 60000])
def test_decompression_bombs_are_refused(tmp_path: Path, side: int) -> None:
    # A few hundred bytes that claim to be huge: refused by the header, before any decoding.
    path = write_png(tmp_path / "huge.png", np.zeros((1, 1, 1), np.uint16), 0)
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", side, side)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)
    with pytest.raises(DataError, match="the limit is 80 megapixels"):
        decode_image(path)


def save_scenes(folder: Path, count: int = 3) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{index}.png" for index in range(count)]
    for index, path in enumerate(paths):
        Image.fromarray(scene(24 + index, 40, index)).save(path)
    return paths


def test_loaded_images_are_the_resized_ones(tmp_path: Path, own_cache: Path) -> None:
    paths = save_scenes(tmp_path / "a")
    loaded = load_images(paths, 16)
    assert loaded.shape == (3, 16, 16, 3)
    assert loaded.dtype == np.uint8
    assert not loaded.flags.writeable
    for path, image in zip(paths, loaded, strict=True):
        expected = Image.fromarray(decode_image(path)).resize((16, 16), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(image, np.asarray(expected))


def test_resize_antialiases(tmp_path: Path, own_cache: Path) -> None:
    # One-pixel stripes average to grey; a resize without antialiasing keeps black or white.
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    small = load_images([tmp_path / "stripes.png"], 8)
    assert np.abs(small.astype(int) - 128).max() < 20


def test_no_images_give_an_empty_array(own_cache: Path) -> None:
    assert load_images([], 8).shape == (0, 8, 8, 3)


def test_second_load_reuses_and_says_so(
    tmp_path: Path,
    own_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = np.array(load_images(save_scenes(tmp_path / "a"), 16))
    moved = save_scenes(tmp_path / "b")  # the same contents elsewhere
    monkeypatch.setattr(images, "_pixel_blocks", lambda *_: pytest.fail("made again"))
    with caplog.at_level(logging.INFO):
        np.testing.assert_array_equal(load_images(moved, 16), first)
    assert "reusing 3 images at 16 px" in caplog.text


def test_size_order_and_content_make_another_entry(tmp_path: Path, own_cache: Path) -> None:
    paths = save_scenes(tmp_path / "a")
    first = np.array(load_images(paths, 16))
    np.testing.assert_array_equal(load_images(paths[::-1], 16), first[::-1])
    assert load_images(paths, 8).shape[1] == 8
    Image.fromarray(scene(30, 30, 7)).save(paths[0])
    assert (load_images(paths, 16)[0] != first[0]).any()


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def archive(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, images=np.zeros(3))


def objects(path: Path) -> None:
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)


def folder(path: Path) -> None:
    path.unlink()
    (path / "below").mkdir(parents=True)


@pytest.mark.parametrize("damage", [flip_a_bit, archive, objects, folder])
def test_damaged_pixels_are_made_again(
    tmp_path: Path, own_cache: Path, damage: Callable[[Path], None]
) -> None:
    paths = save_scenes(tmp_path / "a")
    first = np.array(load_images(paths, 16))
    (entry,) = (own_cache / "arrays" / "images").glob("*/data.npy")
    damage(entry)
    np.testing.assert_array_equal(load_images(paths, 16), first)
    assert entry.stat().st_size > first.nbytes


def test_pixels_come_in_blocks(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = save_scenes(tmp_path / "a")
    whole = np.array(load_images(paths, 16))
    monkeypatch.setattr(images, "_BLOCK_BYTES", 2 * 16 * 16 * 3)
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    blocks = list(images._pixel_blocks(paths, digests, 16))
    assert [len(block) for block in blocks] == [2, 1]
    np.testing.assert_array_equal(np.concatenate(blocks), whole)


def test_failed_load_leaves_nothing_behind(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = save_scenes(tmp_path / "a")

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(images, "resized", fail)
    with pytest.raises(KeyboardInterrupt):
        load_images(paths, 16)
    kept = (own_cache / "arrays" / "images").iterdir()
    assert [path.name for path in kept if path.suffix != ".lock"] == []


def test_bad_image_stops_the_load(tmp_path: Path, own_cache: Path) -> None:
    paths = save_scenes(tmp_path / "a")
    paths[1].write_bytes(truncated(paths[1].read_bytes()))
    with pytest.raises(DataError, match=r"1\.png"):
        load_images(paths, 16)
