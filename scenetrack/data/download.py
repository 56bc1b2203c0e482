"""Downloads the MIT 8-scene images from their authors' page and arranges the official split."""

from __future__ import annotations

import hashlib
import http.client
import logging
import tempfile
import urllib.request
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from scenetrack.data.manifest import ManifestEntry
from scenetrack.errors import DataError
from scenetrack.system.files import lock, replacing

logger = logging.getLogger(__name__)

# Oliva and Torralba, "Modeling the shape of the scene", IJCV 2001.
MIT8_URL = (
    "https://people.csail.mit.edu/torralba/code/spatialenvelope/"
    "spatial_envelope_256x256_static_8outdoorcategories.zip"
)
MAX_ARCHIVE_BYTES = 2**30
_MAX_FILES = 20_000
_MAX_FILE_BYTES = 16 * 2**20
_MAX_UNPACKED_BYTES = 2 * 2**30
_TIMEOUT_S = 30
_CHUNK = 2**18
_LINK = 0o120000


def download_split(url: str, manifest: Sequence[ManifestEntry], target: Path) -> Path:
    """Download the archive at ``url`` and fill ``target`` with the files of ``manifest``.

    Files are identified by their SHA-256, whatever their names in the archive; other files are
    ignored. ``target`` is created atomically; an existing one is reused.

    Returns:
        ``target``, which contains train/CLASS/* and test/CLASS/*.

    Raises:
        DataError: the download fails, or the archive is too large, damaged, unsafe or lacks files
            of the manifest.
    """
    if target.is_dir():
        return target
    with lock(target):
        if target.is_dir():
            return target
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as scratch:
            archive = Path(scratch) / "archive.zip"
            try:
                _fetch(url, archive)
            except (OSError, http.client.HTTPException, ValueError) as error:
                reason = " ".join(str(error).split()) or type(error).__name__
                raise DataError(
                    f"{url} could not be downloaded ({reason}): {_by_hand(target)}"
                ) from error
            with replacing(target) as folder:
                _unpack(archive, manifest, folder, url, target)
    logger.info("the MIT 8-scene split is in %s", target)
    return target


def _by_hand(target: Path) -> str:
    return (
        "put the folder that holds the MIT 8-scene split's train/ and test/ at "
        f"{target}, or name it in SCENETRACK_DATA"
    )


def _fetch(url: str, archive: Path) -> None:
    with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response, archive.open("wb") as file:
        announced = int(response.headers.get("Content-Length") or 0)
        received = 0
        with tqdm(
            total=announced or None,
            desc="MIT 8-scene images",
            unit="B",
            unit_scale=True,
            disable=None,
        ) as progress:
            while chunk := response.read(_CHUNK):
                received += len(chunk)
                if max(received, announced) > MAX_ARCHIVE_BYTES:
                    raise ValueError(f"it is larger than {MAX_ARCHIVE_BYTES} bytes")
                file.write(chunk)
                progress.update(len(chunk))
    if announced and received != announced:
        raise ValueError(f"the connection ended after {received} of {announced} bytes")


def _unpack(
    archive: Path, manifest: Sequence[ManifestEntry], folder: Path, url: str, target: Path
) -> None:
    """Write the files of ``manifest`` below ``folder``; raise DataError if any is missing."""
    wanted: dict[str, list[ManifestEntry]] = defaultdict(list)
    for entry in manifest:
        wanted[entry.sha256].append(entry)
    seen = 0
    try:
        for content in _images(archive):
            seen += 1
            for entry in wanted.pop(hashlib.sha256(content).hexdigest(), ()):
                path = folder / entry.path
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
        raise DataError(
            f"the archive at {url} cannot be used ({error}): {_by_hand(target)}"
        ) from error
    missing = [entry for entries in wanted.values() for entry in entries]
    if missing:
        raise DataError(
            f"the archive at {url} has {seen} images, but {len(missing)} of the {len(manifest)} "
            f"files of the official split are not among them byte for byte (the first is "
            f"{missing[0].path}): {_by_hand(target)}"
        )


def _images(archive: Path) -> Iterator[bytes]:
    """Yield the contents of the archive's JPEG files; raise ValueError if it is unsafe to read."""
    with zipfile.ZipFile(archive) as packed:
        members = packed.infolist()
        _refuse_unsafe(members)
        jpegs = [m for m in members if PurePosixPath(m.filename).suffix.lower() == ".jpg"]
        for member in tqdm(jpegs, desc="unpacking", unit="img", disable=None):
            with packed.open(member) as file:
                # The size in the archive's directory may be wrong, so the bytes are counted.
                content = file.read(_MAX_FILE_BYTES + 1)
            if len(content) > _MAX_FILE_BYTES:
                raise ValueError(f"{member.filename!r} is larger than {_MAX_FILE_BYTES} bytes")
            yield content


def _refuse_unsafe(members: Sequence[zipfile.ZipInfo]) -> None:
    if len(members) > _MAX_FILES:
        raise ValueError(f"it has {len(members)} files, the limit is {_MAX_FILES}")
    if sum(member.file_size for member in members) > _MAX_UNPACKED_BYTES:
        raise ValueError(f"it unpacks to more than {_MAX_UNPACKED_BYTES} bytes")
    for member in members:
        name = member.filename
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
            raise ValueError(f"it has the unsafe name {name!r}")
        if (member.external_attr >> 16) & 0o170000 == _LINK:
            raise ValueError(f"it has the link {name!r}")
