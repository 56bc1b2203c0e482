"""The array cache: reuse, checksums, eviction, and processes that share it."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from scenetrack.cache import ArraySpec, Cache, folder_size, format_size, parse_size
from scenetrack.cache import arrays as cache_arrays
from scenetrack.cache.entries import OVERHEAD, checksum, map_entry, remove_entry
from scenetrack.errors import InputError

KEY = {"model": "m", "size": "4"}
MB = 10**6


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCENETRACK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SCENETRACK_CACHE_SIZE", "1GB")
    return tmp_path / "cache"


def spec_of(array: np.ndarray) -> ArraySpec:
    return ArraySpec(array.shape, str(array.dtype))


def keep(array: np.ndarray, key: dict[str, str] = KEY, kind: str = "things") -> np.ndarray:
    return Cache().store(kind, key, spec_of(array), iter(np.array_split(array, 2)))


def forbidden() -> Iterator[np.ndarray]:
    raise AssertionError("made again")
    yield


def megabyte(value: int) -> np.ndarray:
    return np.full((4, MB // 4), value, np.uint8)


def left_in(cache: Path) -> list[str]:
    """What is below the cache but locks and folders of kinds."""
    found = (cache / "arrays").rglob("*")
    return [p.name for p in found if p.suffix != ".lock" and p.parent.name != "arrays"]


def numbered(kind: str = "things") -> set[str]:
    """The values of ``n`` in the keys of what is kept."""
    folder = Cache().folder / kind
    return {json.loads(p.read_text())["key"]["n"] for p in folder.glob("*/entry.json")}


class TestFindingAgain:
    def test_what_was_stored_is_opened(self) -> None:
        array = np.arange(30, dtype=np.float32).reshape(5, 3, 2)
        assert Cache().open("things", KEY) is None
        stored = keep(array)
        opened = Cache().open("things", KEY)
        assert opened is not None
        for found in (stored, opened):
            np.testing.assert_array_equal(found, array, strict=True)
            assert not found.flags.writeable
            assert isinstance(found.base, np.memmap)

    def test_key_counts_and_its_order_does_not(self) -> None:
        keep(np.zeros(3))
        assert Cache().open("things", dict(reversed(KEY.items()))) is not None
        assert Cache().open("others", KEY) is None
        assert Cache().open("things", KEY | {"size": "5"}) is None

    def test_storing_again_takes_what_is_there(self) -> None:
        first = keep(np.arange(4))
        again = Cache().store("things", KEY, spec_of(first), forbidden())
        np.testing.assert_array_equal(again, first)

    def test_entry_is_a_plain_npy_and_a_description(self) -> None:
        array = keep(np.arange(6, dtype=np.int16))
        (folder,) = (entry.path for entry in Cache().entries())
        np.testing.assert_array_equal(np.load(folder / "data.npy", allow_pickle=False), array)
        about = json.loads((folder / "entry.json").read_text())
        assert about["key"] == KEY
        assert (about["shape"], about["dtype"]) == ([6], "int16")
        assert about["bytes"] == (folder / "data.npy").stat().st_size == 128 + 12
        assert set(about["versions"]) == {"scenetrack", "numpy"}

    @settings(max_examples=40, deadline=None)
    @given(
        shape=st.lists(st.integers(0, 4), min_size=1, max_size=3).map(tuple),
        dtype=st.sampled_from(["uint8", "float32", "float64", "bool", ">i4"]),
        cuts=st.lists(st.integers(0, 4), max_size=3).map(sorted),
        transposed=st.booleans(),
    )
    def test_any_array_in_any_blocks(
        self, shape: tuple[int, ...], dtype: str, cuts: list[int], transposed: bool
    ) -> None:
        values = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
        whole = np.asfortranarray(values) if transposed else values
        bounds = [0, *(min(cut, shape[0]) for cut in cuts), shape[0]]
        blocks = [whole[a:b] for a, b in pairwise(bounds)]
        with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
            patch.setenv("SCENETRACK_CACHE", folder)
            for found in (
                Cache().store("things", KEY, ArraySpec(shape, dtype), iter(blocks)),
                Cache().open("things", KEY),
            ):
                np.testing.assert_array_equal(found, values, strict=True)


def edit(name: str, change: Callable[[bytearray], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        change(content)
        (folder / name).write_bytes(content)

    return damage


def flip(content: bytearray) -> None:
    content[-1] ^= 0x10


def truncate(content: bytearray) -> None:
    del content[-3:]


def describe(**values: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        about = json.loads((folder / "entry.json").read_text()) | values
        (folder / "entry.json").write_text(json.dumps(about))

    return damage


def only_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("")


def only_a_folder(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


DAMAGES: dict[str, Callable[[Path], None]] = {
    "bit flipped": edit("data.npy", flip),
    "bit of the header flipped": edit("data.npy", lambda content: content.__setitem__(20, 0)),
    "truncated": edit("data.npy", truncate),
    "longer": edit("data.npy", lambda content: content.append(0)),
    "no data": lambda folder: (folder / "data.npy").unlink(),
    "no description": lambda folder: (folder / "entry.json").unlink(),
    "half a description": edit("entry.json", truncate),
    "a list": lambda folder: (folder / "entry.json").write_text("[]"),
    "another shape": describe(shape=[3, 4]),
    "another dtype": describe(dtype="int32"),
    "objects": describe(dtype="object"),
    "no dtype": describe(dtype="nonsense"),
    "another key": describe(key={"model": "other"}),
    "a file": only_a_file,
    "an empty folder": only_a_folder,
}


class TestDamage:
    @pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
    def test_noticed_said_once_and_made_anew(
        self, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
    ) -> None:
        array = np.arange(12, dtype=np.uint32).reshape(4, 3)
        keep(array)
        (entry,) = Cache().entries()
        damage(entry.path)
        assert Cache().open("things", KEY) is None
        np.testing.assert_array_equal(keep(array), array)
        np.testing.assert_array_equal(Cache().open("things", KEY), array)
        (record,) = [r for r in caplog.records if r.levelno == logging.WARNING]
        assert str(entry.path) in record.message

    def test_storing_over_a_damaged_one_says_so_too(self, caplog: pytest.LogCaptureFixture) -> None:
        keep(np.arange(5))
        (entry,) = Cache().entries()
        DAMAGES["bit flipped"](entry.path)
        np.testing.assert_array_equal(keep(np.arange(5)), np.arange(5))
        assert caplog.text.count("is damaged (the checksum of data.npy is wrong)") == 1

    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(place=st.integers(0, 10**6), bit=st.integers(0, 7), name=st.sampled_from(["a", "d"]))
    @example(place=0, bit=0, name="d")
    def test_one_wrong_bit_gives_nothing_wrong(self, place: int, bit: int, name: str) -> None:
        array = np.arange(40, dtype=np.uint8).reshape(10, 4)
        keep(array)
        (entry,) = Cache().entries()

        def flip_at(content: bytearray) -> None:
            content[place % len(content)] ^= 1 << bit

        edit({"a": "entry.json", "d": "data.npy"}[name], flip_at)(entry.path)
        found = Cache().open("things", KEY)
        if name == "d":
            assert found is None
        elif found is not None:  # the date and the versions are free
            np.testing.assert_array_equal(found, array, strict=True)

    def test_checksum_covers_every_part_in_order(self, tmp_path: Path) -> None:
        part = 2**22
        first, second = b"\1" * part, b"\2" * (part // 2)
        sums = set()
        for content in (first + second, second + first, first, first + second[1:]):
            (tmp_path / "file").write_bytes(content)
            sums.add(checksum(tmp_path / "file"))
        assert len(sums) == 4
        # Of an empty file: the CRC-32 of no CRCs.
        (tmp_path / "file").write_bytes(b"")
        assert checksum(tmp_path / "file") == "00000000"

    def test_cannot_be_removed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        keep(np.arange(5))
        (entry,) = Cache().entries()
        DAMAGES["truncated"](entry.path)

        def refuse(path: Path) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        monkeypatch.setattr(cache_arrays, "discard", refuse)
        with pytest.raises(InputError, match=r"cannot be removed.*delete it"):
            Cache().open("things", KEY)


class TestWriting:
    @pytest.mark.parametrize(
        "blocks",
        [
            [np.zeros((2, 3), np.float32)],
            [np.zeros((5, 3), np.float32)],
            [np.zeros((4, 3), np.float64)],
            [np.zeros((4, 2), np.float32)],
            [np.zeros((4, 3, 1), np.float32)],
            [],
        ],
    )
    def test_blocks_that_do_not_fit_leave_nothing(
        self, blocks: list[np.ndarray], own_cache: Path
    ) -> None:
        with pytest.raises(ValueError, match="blocks that make up"):
            Cache().store("things", KEY, ArraySpec((4, 3), "float32"), iter(blocks))
        assert left_in(own_cache) == []

    def test_objects_are_refused(self, own_cache: Path) -> None:
        with pytest.raises(ValueError, match="without objects"):
            Cache().store("things", KEY, ArraySpec((1,), "object"), iter([]))
        assert left_in(own_cache) == []

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.EIO, "bad sector")])
    def test_failing_maker_leaves_nothing(self, error: BaseException, own_cache: Path) -> None:
        def blocks() -> Iterator[np.ndarray]:
            yield np.zeros(2)
            raise error

        with pytest.raises(type(error)) as caught:
            Cache().store("things", KEY, ArraySpec((4,), "float64"), blocks())
        assert caught.value is error
        assert left_in(own_cache) == []

    @pytest.mark.parametrize("bound", ["1GB", "0"])
    def test_full_disk_is_one_line_that_says_how_much(
        self, bound: str, own_cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def blocks() -> Iterator[np.ndarray]:
            yield np.zeros((1, MB), np.uint8)
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setenv("SCENETRACK_CACHE_SIZE", bound)
        with pytest.raises(InputError, match=r"needs 5\.0 MB for things.*SCENETRACK_CACHE") as full:
            Cache().store("things", KEY, ArraySpec((5, MB), "uint8"), blocks())
        assert "\n" not in str(full.value)
        assert left_in(own_cache) == []

    def test_full_disk_is_told_before_anything_is_made(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        usage = type("Usage", (), {"free": 17 * MB})
        monkeypatch.setattr(cache_arrays.shutil, "disk_usage", lambda _: usage)
        with pytest.raises(InputError, match=r"17 MB left"):
            Cache().store("things", KEY, ArraySpec((5, MB), "uint8"), forbidden())

    def test_memory_does_not_grow_with_the_array(self) -> None:
        blocks = (np.full((1, MB), value, np.uint8) for value in range(128))
        tracemalloc.start()
        try:
            array = Cache().store("things", KEY, ArraySpec((128, MB), "uint8"), blocks)
            assert Cache().open("things", KEY) is not None
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        np.testing.assert_array_equal(array[:, -1], np.arange(128))
        # At most eight threads with 4 MiB each, while 128 MB are checked.
        assert peak < 48 * MB

    def test_arrays_may_be_made_of_arrays(self) -> None:
        def doubled() -> Iterator[np.ndarray]:
            yield 2 * keep(np.arange(3), {"n": "inner"}, "inner")

        outer = Cache().store("outer", KEY, ArraySpec((3,), "int64"), doubled())
        np.testing.assert_array_equal(outer, [0, 2, 4])


@pytest.fixture(autouse=True)
def nothing_said_before() -> None:
    """A full cache is told once in a process."""
    cache_arrays._say_full.cache_clear()


class TestBound:
    def test_least_recently_used_goes_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for age, n in enumerate("cba"):
            keep(megabyte(0), {"n": n})
            (path,) = (e.path for e in Cache().entries() if e.used > 10**6)
            os.utime(path / "entry.json", (1000 - age, 1000 - age))  # a is the oldest
        assert numbered() == {"a", "b", "c"}
        assert Cache().open("things", {"n": "a"}) is not None  # and now the youngest
        monkeypatch.setenv("SCENETRACK_CACHE_SIZE", "3.2MB")
        keep(megabyte(0), {"n": "d"})
        assert numbered() == {"a", "c", "d"}
        keep(np.zeros(2 * MB, np.uint8), {"n": "e"}, "others")
        assert numbered() == {"d"}
        assert numbered("others") == {"e"}
        assert folder_size(Cache().folder) <= Cache().bound

    def test_what_is_open_stays(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        kept = keep(megabyte(7), {"n": "a"})[2:]  # a part of it is use enough
        monkeypatch.setenv("SCENETRACK_CACHE_SIZE", "1.5MB")
        with caplog.at_level(logging.INFO):
            loose = keep(megabyte(8), {"n": "b"})
        assert numbered() == {"a"}
        assert "cache full (1.5 MB): " in caplog.text
        assert kept[0, 0] == 7
        assert loose[0, 0] == 8
        del kept
        keep(megabyte(9), {"n": "c"})
        assert numbered() == {"c"}

    def test_nothing_goes_for_what_does_not_fit_beside_what_is_open(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        held = keep(megabyte(7), {"n": "a"})
        keep(megabyte(8), {"n": "b"})
        monkeypatch.setenv("SCENETRACK_CACHE_SIZE", "2.5MB")
        with caplog.at_level(logging.INFO):
            for name in "cd":
                loose = keep(np.zeros(2 * MB, np.uint8), {"n": name})
        # Without b there would be room for one megabyte, not for two.
        assert numbered() == {"a", "b"}
        assert (held[0, 0], loose[0]) == (7, 0)
        assert [message for message in caplog.messages if "removed" in message] == []
        assert len([message for message in caplog.messages if "cache full" in message]) == 1

    def test_too_large_is_made_for_now_and_nothing_goes_for_it(
        self,
        own_cache: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        keep(np.zeros(10), {"n": "small"})
        before = sorted(left_in(own_cache))
        monkeypatch.setenv("SCENETRACK_CACHE_SIZE", "900kB")
        with caplog.at_level(logging.INFO):
            large = keep(megabyte(3), {"n": "large"})
        np.testing.assert_array_equal(large, megabyte(3))
        assert not large.flags.writeable
        assert sorted(left_in(own_cache)) == before
        assert len(caplog.records) == 1

    def test_what_others_made_meanwhile_goes_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def blocks() -> Iterator[np.ndarray]:
            monkeypatch.setenv("SCENETRACK_CACHE_SIZE", "3MB")
            keep(megabyte(0), {"n": "meanwhile"})
            yield megabyte(1)

        monkeypatch.setenv("SCENETRACK_CACHE_SIZE", "1.5MB")
        Cache().store("things", {"n": "mine"}, spec_of(megabyte(1)), blocks())
        assert numbered() == {"mine"}

    def test_what_was_just_made_stays_until_it_is_open(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tried = []

        def remove_then_map(folder: Path, spec: ArraySpec) -> np.ndarray:
            tried.append(remove_entry(folder))
            return map_entry(folder, spec)

        monkeypatch.setattr(cache_arrays, "map_entry", remove_then_map)
        np.testing.assert_array_equal(keep(np.arange(3)), np.arange(3))
        assert tried == [False]

    def test_zero_keeps_nothing(self, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        keep(np.arange(3))
        monkeypatch.setenv("SCENETRACK_CACHE_SIZE", "0")
        before = sorted(left_in(own_cache))
        assert Cache().open("things", KEY) is None
        array = Cache().store("things", KEY, ArraySpec((3,), "int64"), iter([np.arange(3)]))
        np.testing.assert_array_equal(array, np.arange(3))
        assert sorted(left_in(own_cache)) == before

    def test_a_full_disk_makes_room_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        keep(megabyte(0), {"n": "a"})
        folder, asked = Cache().folder, []

        def usage(path: Path) -> object:
            asked.append(path)
            return type("Usage", (), {"free": 2**24 + 2 * MB - folder_size(folder)})

        monkeypatch.setattr(cache_arrays.shutil, "disk_usage", usage)
        keep(np.zeros(1_500_000, np.uint8), {"n": "b"})
        assert asked
        assert numbered() == {"b"}

    def test_default_is_20_gb_or_a_tenth_of_the_disk(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("SCENETRACK_CACHE_SIZE")
        keep(megabyte(0))
        taken = folder_size(Cache().folder)
        for free, bound in ((10**15, 20 * 10**9), (50 * MB, (50 * MB + taken) // 10)):
            usage = type("Usage", (), {"free": free})
            monkeypatch.setattr(cache_arrays.shutil, "disk_usage", lambda _, u=usage: u)
            assert Cache().bound == bound

    def test_what_is_not_ours_is_left_alone(
        self, own_cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        foreign = own_cache / "arrays" / "things" / "thesis"
        foreign.mkdir(parents=True)
        (foreign / "data.npy").write_bytes(bytes(2 * MB))
        hidden = own_cache / "arrays" / "things" / ".git-1"
        hidden.mkdir()
        monkeypatch.setenv("SCENETRACK_CACHE_SIZE", "1.5MB")
        keep(megabyte(0))
        assert foreign.is_dir()
        assert hidden.is_dir()

    def test_overhead_covers_an_entry(self) -> None:
        keep(np.zeros(1000, np.uint8), {"n": "x" * 1000})
        (entry,) = Cache().entries()
        assert 1000 < entry.size < 1000 + OVERHEAD


class TestSizes:
    @pytest.mark.parametrize(
        ("text", "size"),
        [
            ("0", 0),
            ("123", 123),
            ("20GB", 20 * 10**9),
            ("1.5 tb", 15 * 10**11),
            ("512MiB", 2**29),
            ("3k", 3000),
            (" 7 B ", 7),
        ],
    )
    def test_in_words_of_the_variable(self, text: str, size: int) -> None:
        assert parse_size(text) == size

    @pytest.mark.parametrize("text", ["much", "-1", "1,5GB", "GB", "1e9", "20 GB or so", "1PB"])
    def test_no_sizes(self, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SCENETRACK_CACHE_SIZE", text)
        with pytest.raises(InputError, match=f"SCENETRACK_CACHE_SIZE must be.*Received: {text}"):
            Cache()

    @pytest.mark.parametrize(
        ("size", "text"),
        [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (999_499, "999 kB"),
            (999_500, "1.0 MB"),
            (1_892_352_000, "1.9 GB"),
            (20 * 10**9, "20 GB"),
            (3 * 10**15, "3000.0 TB"),
        ],
    )
    def test_shown(self, size: int, text: str) -> None:
        assert format_size(size) == text


STORE = """
import sys, time
from pathlib import Path
import numpy as np
from scenetrack.cache import ArraySpec, Cache

place = Path(sys.argv[1])

def blocks():
    (place / f"made by {sys.argv[2]}").touch()
    yield np.zeros((1, 2), np.uint8)
    while not (place / "go").exists():
        time.sleep(0.01)
    yield np.ones((1, 2), np.uint8)

(place / f"started {sys.argv[2]}").touch()
array = Cache().store("things", {"model": "m", "size": "4"}, ArraySpec((2, 2), "uint8"), blocks())
print(array.tolist())
"""
OPEN = """
from scenetrack.cache import Cache
array = Cache().open("things", {"n": "held"})
print(array[0], flush=True)
input()
"""
KILLED = """
import os, signal
import numpy as np
from scenetrack.cache import ArraySpec, Cache

def blocks():
    yield np.zeros((1, 2))
    os.kill(os.getpid(), signal.SIGKILL)

Cache().store("things", {"n": "killed"}, ArraySpec((2, 2), "float64"), blocks())
"""


def start(script: str, *arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path: Path) -> None:
    pause = threading.Event()
    while not path.exists():
        pause.wait(0.01)


class TestProcesses:
    def test_second_maker_waits_and_takes_the_first_ones(self, tmp_path: Path) -> None:
        first = start(STORE, tmp_path, "first")
        wait_for(tmp_path / "made by first")
        second = start(STORE, tmp_path, "second")
        wait_for(tmp_path / "started second")
        threading.Event().wait(0.2)  # so that it meets the lock, not the finished entry
        (tmp_path / "go").touch()
        for process in (first, second):
            out, err = process.communicate(timeout=60)
            assert (out, err) == ("[[0, 0], [1, 1]]\n", "")
        assert not (tmp_path / "made by second").exists()

    def test_what_another_process_has_open_stays(self, monkeypatch: pytest.MonkeyPatch) -> None:
        keep(megabyte(5).ravel(), {"n": "held"})
        with start(OPEN) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "5\n"
            monkeypatch.setenv("SCENETRACK_CACHE_SIZE", "1.5MB")
            keep(megabyte(6), {"n": "b"})
            assert numbered() == {"held"}
            other.communicate("\n", timeout=60)
        keep(megabyte(6), {"n": "b"})
        assert numbered() == {"b"}

    def test_what_a_killed_process_had_begun_is_removed(self, own_cache: Path) -> None:
        with start(KILLED) as process:
            process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        (half,) = (own_cache / "arrays" / "things").glob(".*-*")
        assert folder_size(half) == 128 + 4 * 8
        keep(np.zeros(3), {"n": "other"})
        assert not half.exists()

    def test_what_is_being_made_is_not_removed(self) -> None:
        def blocks() -> Iterator[np.ndarray]:
            yield np.zeros(1)
            keep(np.zeros(3), {"n": "meanwhile"})
            yield np.ones(1)

        made = Cache().store("things", KEY, ArraySpec((2,), "float64"), blocks())
        np.testing.assert_array_equal(made, [0, 1])

    def test_threads_make_it_once(self) -> None:
        asked, found = [], []

        def blocks() -> Iterator[np.ndarray]:
            asked.append(1)
            yield np.arange(4)

        def work() -> None:
            found.append(Cache().store("things", KEY, ArraySpec((4,), "int64"), blocks()))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(asked) == 1
        assert [array.tolist() for array in found] == [[0, 1, 2, 3]] * 4
