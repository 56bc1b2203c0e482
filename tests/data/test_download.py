"""The download from a local server: arranged by split, verified, unsafe archives refused."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import threading
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from scenetrack.data import download
from scenetrack.data.catalog import load_dataset
from scenetrack.data.download import download_split
from scenetrack.data.folders import list_folder
from scenetrack.data.manifest import ManifestEntry, compare, read_manifest
from scenetrack.errors import DataError

CONTENTS = {"sea": b"waves", "hill": b"grass", "town": b"bricks"}


def entry(split: str, class_name: str, file: str, content: bytes) -> ManifestEntry:
    return ManifestEntry(split, class_name, file, hashlib.sha256(content).hexdigest())


MANIFEST = (
    entry("train", "sea", "a.jpg", CONTENTS["sea"]),
    entry("test", "hill", "b.jpg", CONTENTS["hill"]),
    entry("train", "town", "c.jpg", CONTENTS["town"]),
    entry("train", "hill", "c.jpg", CONTENTS["town"]),  # one content under two classes
)
# Names in the archive do not matter, and other files are ignored.
GOOD = {
    "flat_sea_1.jpg": CONTENTS["sea"],
    "deep/er/hill.JPG": CONTENTS["hill"],
    "town.jpg": CONTENTS["town"],
    "strange.jpg": b"not in the manifest",
    "Thumbs.db": CONTENTS["sea"],
}


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


Serve = Callable[[type[BaseHTTPRequestHandler]], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a server with the given handler; the result is its address."""
    started: list[tuple[ThreadingHTTPServer, threading.Thread]] = []

    def start(handler: type[BaseHTTPRequestHandler]) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        started.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in started:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def publish(serve: Serve, tmp_path: Path) -> Callable[[bytes], str]:
    """Serve some bytes as a file; the result is its URL."""

    def start(content: bytes) -> str:
        site = tmp_path / "site"
        site.mkdir(exist_ok=True)
        (site / "scenes.zip").write_bytes(content)
        return serve(partial(_Quiet, directory=str(site))) + "/scenes.zip"  # type: ignore[arg-type]

    return start


def packed(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def assert_untouched(target: Path) -> None:
    assert not target.exists()
    assert [path.name for path in target.parent.iterdir()] == [f"{target.name}.lock"]


def test_files_are_placed_by_content(publish: Callable[[bytes], str], tmp_path: Path) -> None:
    target = tmp_path / "cache" / "mit8"
    target.parent.mkdir()
    assert download_split(publish(packed(GOOD)), MANIFEST, target) == target
    assert files_below(target) == {
        "train/sea/a.jpg": CONTENTS["sea"],
        "test/hill/b.jpg": CONTENTS["hill"],
        "train/town/c.jpg": CONTENTS["town"],
        "train/hill/c.jpg": CONTENTS["town"],
    }
    # A second call needs no network.
    assert download_split("http://127.0.0.1:1/none.zip", MANIFEST, target) == target


def test_missing_and_changed_files_are_reported(
    publish: Callable[[bytes], str], tmp_path: Path
) -> None:
    target = tmp_path / "cache" / "mit8"
    target.parent.mkdir()
    url = publish(packed({**GOOD, "flat_sea_1.jpg": b"saved anew"}))
    with pytest.raises(DataError, match=r"1 of the 4 .* byte for byte .*a\.jpg") as caught:
        download_split(url, MANIFEST, target)
    assert "SCENETRACK_DATA" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert_untouched(target)


def linked() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo("link.jpg")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    return buffer.getvalue()


def corrupted() -> bytes:
    # Stored, so that a changed byte is a changed content that the checksum does not fit.
    return packed(GOOD, zipfile.ZIP_STORED).replace(b"waves", b"wives", 1)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (packed({**GOOD, "../evil.jpg": b"x"}), "unsafe name"),
        (packed({**GOOD, "a/../../evil.jpg": b"x"}), "unsafe name"),
        (packed({**GOOD, "/tmp/evil.jpg": b"x"}), "unsafe name"),
        (packed({**GOOD, "C:evil.jpg": b"x"}), "unsafe name"),
        (linked(), "link"),
        (b"this is a page, not an archive", "not a zip file"),
        (packed(GOOD)[:-40], "zip file"),
        (corrupted(), "CRC"),
    ],
    ids=["up", "up inside", "absolute", "drive", "link", "page", "cut", "corrupted"],
)
def test_unsafe_and_damaged_archives_are_refused(
    publish: Callable[[bytes], str], tmp_path: Path, content: bytes, says: str
) -> None:
    target = tmp_path / "cache" / "mit8"
    target.parent.mkdir()
    with pytest.raises(DataError, match=says) as caught:
        download_split(publish(content), MANIFEST, target)
    assert "\n" not in str(caught.value)
    assert_untouched(target)
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize(
    ("limit", "value", "says"),
    [
        ("MAX_ARCHIVE_BYTES", 100, "larger than 100 bytes"),
        ("_MAX_FILES", 4, "5 files, the limit is 4"),
        ("_MAX_UNPACKED_BYTES", 20, "more than 20 bytes"),
        ("_MAX_FILE_BYTES", 5, "larger than 5 bytes"),
    ],
)
def test_limits_are_kept(
    publish: Callable[[bytes], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
    value: int,
    says: str,
) -> None:
    monkeypatch.setattr(download, limit, value)
    target = tmp_path / "cache" / "mit8"
    target.parent.mkdir()
    with pytest.raises(DataError, match=says):
        download_split(publish(packed(GOOD)), MANIFEST, target)
    assert_untouched(target)


def test_no_network_says_where_to_put_the_folder(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    target = tmp_path / "mit8"
    with pytest.raises(DataError, match="could not be downloaded") as caught:
        download_split(f"http://127.0.0.1:{port}/scenes.zip", MANIFEST, target)
    message = str(caught.value)
    assert str(target) in message
    assert "SCENETRACK_DATA" in message
    assert "\n" not in message


def test_missing_page(publish: Callable[[bytes], str], tmp_path: Path) -> None:
    url = publish(b"") + ".gone"
    with pytest.raises(DataError, match="404"):
        download_split(url, MANIFEST, tmp_path / "mit8")


def test_connection_that_ends_early(serve: Serve, tmp_path: Path) -> None:
    class Short(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "5000")
            self.end_headers()
            self.wfile.write(b"half")

        def log_message(self, *_: object) -> None:
            pass

    with pytest.raises(DataError, match="after 4 of 5000 bytes"):
        download_split(serve(Short), MANIFEST, tmp_path / "mit8")


def test_size_bound_holds_without_an_announced_length(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Endless(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(bytes(2**16))
            except OSError:
                pass  # the client has had enough

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setattr(download, "MAX_ARCHIVE_BYTES", 2**20)
    with pytest.raises(DataError, match="larger than 1048576 bytes"):
        download_split(serve(Endless), MANIFEST, tmp_path / "mit8")


@pytest.mark.realdata
def test_real_split_through_an_archive(publish: Callable[[bytes], str], tmp_path: Path) -> None:
    """The real images, packed flat under other names, end as the official split."""
    source = Path(os.environ["SCENETRACK_DATA"])
    source = source / "MIT_split" if (source / "MIT_split").is_dir() else source
    paths = [path for _, _, path in list_folder(source).entries()]
    flat = {f"{n}_{path.name}": path.read_bytes() for n, path in enumerate(paths)}
    target = tmp_path / "cache" / "mit8"
    target.parent.mkdir()
    download_split(publish(packed(flat, zipfile.ZIP_STORED)), read_manifest(), target)
    found = {
        place: hashlib.sha256(content).hexdigest() for place, content in files_below(target).items()
    }
    assert compare(found.items(), read_manifest()).same
    assert load_dataset(str(target), seed=0).digest == load_dataset("mit8", seed=0).digest
