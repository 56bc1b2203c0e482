"""Words, folders, patterns and standard input: which files they mean, each once, in order."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenetrack.delivery import paths as paths_module
from scenetrack.delivery.paths import PathList, find_images
from scenetrack.errors import InputError

TREE = ("b/2.jpg", "b/10.JPG", "b/c/1.png", "b/.hidden.jpg", "b/.git/x.jpg", "a.webp", "notes.txt")

names = st.text(st.characters(blacklist_characters="\0", codec="utf-8"), min_size=1)
odd = st.binary(min_size=1).map(lambda b: os.fsdecode(b.replace(b"\0", b"")) or "x")


@pytest.fixture
def _tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in TREE:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def listed(*words: str, stdin: bytes = b"") -> list[str]:
    with find_images(words, io.TextIOWrapper(io.BytesIO(stdin))) as found:
        assert len(found) == len(list(found))
        return list(found)


@pytest.mark.usefixtures("_tree")
class TestWords:
    def test_folder_is_walked_sorted_without_what_is_hidden_or_no_image(self) -> None:
        assert listed(".") == ["a.webp", "b/10.JPG", "b/2.jpg", "b/c/1.png"]

    def test_named_file_is_taken_whatever_its_suffix(self) -> None:
        assert listed("notes.txt", "b/.hidden.jpg") == ["notes.txt", "b/.hidden.jpg"]

    def test_order_of_the_words_is_kept_and_doubles_come_once(self) -> None:
        assert listed("b/c", "./a.webp", "b/2.jpg", "b", "a.webp") == [
            "b/c/1.png",
            "a.webp",
            "b/2.jpg",
            "b/10.JPG",
        ]

    @pytest.mark.parametrize(
        ("pattern", "expected"),
        [
            ("b/*.jpg", ["b/2.jpg"]),
            ("**/*.png", ["b/c/1.png"]),
            ("**", ["a.webp", "b/10.JPG", "b/2.jpg", "b/c/1.png"]),
            ("b/[0-9].jpg", ["b/2.jpg"]),
            ("?", ["b/10.JPG", "b/2.jpg", "b/c/1.png"]),
        ],
    )
    def test_pattern(self, pattern: str, expected: list[str]) -> None:
        assert sorted(listed(pattern)) == expected

    def test_file_with_a_pattern_for_a_name_is_that_file(self) -> None:
        Path("b/[0-9].jpg").touch()
        assert listed("b/[0-9].jpg") == ["b/[0-9].jpg"]

    @pytest.mark.parametrize("word", ["nothing.jpg", "*.gif", "b/.git/none", "", "x\0y"])
    def test_word_that_means_nothing_is_refused(self, word: str) -> None:
        with pytest.raises(InputError, match="means no image: correct or leave out"):
            listed("a.webp", word)

    def test_folder_without_images_is_refused(self) -> None:
        Path("empty").mkdir()
        with pytest.raises(InputError, match="but empty means no image"):
            listed("empty")

    def test_folder_that_cannot_be_listed_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        scandir = os.scandir

        def refuse(folder: str) -> object:
            if str(folder).endswith("c"):
                raise PermissionError(13, "Permission denied", folder)
            return scandir(folder)

        monkeypatch.setattr(os, "scandir", refuse)
        with pytest.raises(InputError, match=r"b/c cannot be listed \(Permission denied\)"):
            listed("b")

    def test_links_to_folders_are_followed_but_not_in_a_circle(self) -> None:
        Path("b/c/up").symlink_to("..", target_is_directory=True)
        assert listed("b/c") == ["b/c/1.png"]
        assert listed("b/c/up/c") == ["b/c/up/c/1.png"]

    def test_no_words_are_refused(self) -> None:
        with pytest.raises(InputError, match="images are required"):
            listed()


class TestStandardInput:
    def test_lines(self) -> None:
        assert listed("-", stdin=b"b.jpg\n\r\n\na b.jpg\r\n./b.jpg\nlast") == [
            "b.jpg",
            "a b.jpg",
            "last",
        ]

    def test_zero_bytes(self) -> None:
        stdin = b"two\nlines.jpg\0cr\r\0\xff.jpg\0"
        assert listed("-", stdin=stdin) == ["two\nlines.jpg", "cr\r", "\udcff.jpg"]

    def test_longer_than_a_chunk(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(paths_module, "_CHUNK", 7)
        expected = [f"folder/{n}.jpg" for n in range(50)]
        assert listed("-", stdin="\n".join(expected).encode()) == expected

    def test_nothing_is_refused(self) -> None:
        with pytest.raises(InputError, match="standard input has none"):
            listed("-", stdin=b"\n\n")


@given(st.lists(st.one_of(names, odd, st.sampled_from("abc"))))
def test_list_is_its_paths_without_doubles(paths: list[str]) -> None:
    encodable = [path for path in paths if os.fsdecode(os.fsencode(path)) == path]
    with PathList(encodable) as found:
        assert list(found) == list(dict.fromkeys(encodable))
        assert len(found) == len(set(encodable))


def test_equal_hashes_are_no_doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        paths_module, "_repeated", lambda hashes: np.ones(len(hashes), bool), raising=True
    )
    with PathList(["a", "b", "a", "c"]) as found:
        assert list(found) == ["a", "b", "c"]


def test_two_readers_at_once() -> None:
    expected = [f"{n}.jpg" for n in range(20000)]
    with PathList(expected) as found:
        assert list(zip(found, found, strict=True)) == list(zip(expected, expected, strict=True))


def test_digest_tells_paths_and_order() -> None:
    lists = (["a", "b"], ["b", "a"], ["ab"], ["a", "b", "c"])
    digests = set()
    for paths in lists:
        with PathList(paths) as one, PathList([*paths, paths[0]]) as doubled:
            assert one.digest() == doubled.digest()
            digests.add(one.digest())
    assert len(digests) == len(lists)
