"""Outputs that appear whole, and journals that survive being cut anywhere."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet

from scenetrack.delivery import output as output_module
from scenetrack.delivery.output import Stream, format_of, journalled, output_file
from scenetrack.delivery.output_journal import Journal
from scenetrack.delivery.rows import Row, as_csv, as_jsonl
from scenetrack.errors import ConfigError, InputError, ScenetrackError
from scenetrack.system.files import lock

SETTINGS = {"model": "abc", "top": 2}


@pytest.fixture
def rows(tmp_path: Path) -> list[Row]:
    """Rows of four files that exist, and one of a file that does not."""
    made = [Row(str(tmp_path / f"{name}.jpg"), (("x", 0.5), ("y", 0.25))) for name in "abcd"]
    for row in made:
        Path(row.path).touch()
    return [*made[:2], Row(str(tmp_path / "none.jpg"), error="No such file"), *made[2:]]


def paths_of(rows: Sequence[Row]) -> list[str]:
    return [row.path for row in rows]


@pytest.fixture
def partial(tmp_path: Path, rows: list[Row]) -> Path:
    """A journal of all rows."""
    path = tmp_path / "out.partial"
    with Journal(path, SETTINGS, paths_of(rows)) as journal:
        journal.add(rows[:3])
        journal.add(rows[3:])
        assert list(journal.rows()) == rows
        assert (journal.kept, journal.failures) == (0, 1)
    return path


class TestJournal:
    def test_cut_anywhere_keeps_the_whole_rows(self, partial: Path, rows: list[Row]) -> None:
        content = partial.read_bytes()
        ends = np.cumsum([len(line) for line in content.splitlines(keepends=True)]).tolist()
        for length in range(len(content) + 1):
            partial.write_bytes(content[:length])
            expected = sum(end <= length for end in ends[1:])
            with Journal(partial, SETTINGS, paths_of(rows)) as journal:
                assert journal.kept == expected
                assert journal.failures == (expected > 2)
                journal.add(rows[expected:])
                assert list(journal.rows()) == rows
                assert journal.failures == 1

    @pytest.mark.parametrize("tail", [b"\0" * 50, b"\0" * 50 + b"\n", b"{}\n", b"\xff\xfe\n"])
    def test_strange_ends_are_cut_off(self, partial: Path, rows: list[Row], tail: bytes) -> None:
        with partial.open("ab") as file:
            file.write(tail)
        with Journal(partial, SETTINGS, [*paths_of(rows), "more.jpg"]) as journal:
            assert journal.kept == len(rows)
            assert list(journal.rows()) == rows

    @pytest.mark.parametrize("content", [b"", b"\n", b"[]\n", b"a,b\n1,2\n", b"\xff\n", b"{}\n"])
    def test_file_of_another_kind_is_begun_anew(
        self, tmp_path: Path, rows: list[Row], content: bytes
    ) -> None:
        path = tmp_path / "strange.partial"
        path.write_bytes(content)
        with Journal(path, SETTINGS, paths_of(rows)) as journal:
            assert journal.kept == 0
            journal.add(rows)
            assert list(journal.rows()) == rows

    def test_other_settings_begin_anew_and_say_so(
        self, partial: Path, rows: list[Row], caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        with Journal(partial, {**SETTINGS, "top": 3}, paths_of(rows)) as journal:
            assert journal.kept == 0
            assert list(journal.rows()) == []
        assert "starting anew" in caplog.text

    def test_says_how_many_rows_it_reuses(
        self, partial: Path, rows: list[Row], caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        Journal(partial, SETTINGS, paths_of(rows)).__exit__()
        assert f"reusing 5 rows of {partial}" in caplog.text

    def test_rows_end_at_the_first_image_that_changed(self, partial: Path, rows: list[Row]) -> None:
        began = json.loads(partial.read_bytes().split(b"\n")[0])["began"]
        later = began / 1e9 + 5
        os.utime(rows[1].path, (later, later))
        while os.stat(rows[1].path).st_ctime_ns <= began:
            os.utime(rows[1].path, (later, later))
        with Journal(partial, SETTINGS, paths_of(rows)) as journal:
            assert (journal.kept, journal.failures) == (1, 0)

    def test_rows_end_where_another_old_file_has_the_name(self, tmp_path: Path) -> None:
        # Renaming a folder changes no time of the files in it.
        for name, colour in (("a", "red"), ("b", "blue")):
            (tmp_path / name).mkdir()
            Image.new("RGB", (8, 8), colour).save(tmp_path / name / "1.bmp")
        row = Row(str(tmp_path / "a" / "1.bmp"), (("x", 0.5), ("y", 0.25)))
        path = tmp_path / "out.partial"
        with Journal(path, SETTINGS, [row.path]) as journal:
            journal.add([row])
        with Journal(path, SETTINGS, [row.path]) as journal:
            assert journal.kept == 1
        (tmp_path / "a").rename(tmp_path / "c")
        (tmp_path / "b").rename(tmp_path / "a")
        with Journal(path, SETTINGS, [row.path]) as journal:
            assert journal.kept == 0

    def test_rows_end_at_an_image_that_is_there_now(self, partial: Path, rows: list[Row]) -> None:
        began = json.loads(partial.read_bytes().split(b"\n")[0])["began"]
        Path(rows[2].path).touch()
        while os.stat(rows[2].path).st_ctime_ns <= began:
            Path(rows[2].path).touch()
        with Journal(partial, SETTINGS, paths_of(rows)) as journal:
            assert (journal.kept, journal.failures) == (2, 0)

    def test_rows_end_at_an_image_that_is_gone(self, partial: Path, rows: list[Row]) -> None:
        Path(rows[3].path).unlink()
        with Journal(partial, SETTINGS, paths_of(rows)) as journal:
            assert (journal.kept, journal.failures) == (3, 1)

    def test_no_place_for_it_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "taken").mkdir()
        with pytest.raises(InputError, match=r"rows are kept in .*taken until all are there"):
            Journal(tmp_path / "taken", SETTINGS, [])

    def test_write_that_fails_is_one_line_and_loses_nothing(
        self, partial: Path, rows: list[Row]
    ) -> None:
        more = Row(rows[0].path, error="x" * 100)
        paths = [*paths_of(rows), more.path]
        with (
            Journal(partial, SETTINGS, paths) as journal,
            file_size_limit(partial.stat().st_size + 50),
            pytest.raises(ScenetrackError, match="start the same command again"),
        ):
            journal.add([more])
        with Journal(partial, SETTINGS, paths) as journal:
            assert journal.kept == len(rows)


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Writes beyond ``size`` bytes of a file fail, as they do on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def complete(output: Path, format: str, rows: Sequence[Row]) -> None:
    with journalled(str(output), format, 2, SETTINGS, paths_of(rows)) as journal:
        journal.add(rows[journal.kept :])


def interrupted_after(count: int, output: Path, rows: Sequence[Row]) -> None:
    with journalled(str(output), "csv", 2, SETTINGS, paths_of(rows)) as journal:
        journal.add(rows[:count])
        raise KeyboardInterrupt


class TestOutput:
    def test_csv_and_jsonl(self, tmp_path: Path, rows: list[Row]) -> None:
        complete(tmp_path / "a.csv", "csv", rows)
        assert (tmp_path / "a.csv").read_bytes() == b"".join(as_csv(rows, 2, header=True))
        complete(tmp_path / "a.jsonl", "jsonl", rows)
        assert (tmp_path / "a.jsonl").read_bytes() == b"".join(as_jsonl(rows))

    def test_parquet_has_the_columns_of_csv(
        self, tmp_path: Path, rows: list[Row], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(output_module, "_ROW_GROUP", 2)
        odd = Row(os.fsdecode(b"\xffo.jpg"), (("ü", 0.125), ("y", 0.0)))
        complete(tmp_path / "a.parquet", "parquet", [*rows, odd])
        file = parquet.ParquetFile(tmp_path / "a.parquet")
        assert file.num_row_groups == 3
        table = file.read().to_pylist()
        content = b"".join(as_csv([*rows, odd], 2, header=True)).decode("utf-8", "surrogateescape")
        expected = list(csv.DictReader(io.StringIO(content)))
        assert list(table[0]) == list(expected[0])
        for came, wanted in zip(table[:-1], expected, strict=False):
            assert {k: "" if v is None else str(v) for k, v in came.items()} == wanted
        assert table[-1]["path"] == "\\udcffo.jpg"
        assert table[-1]["label"] == "ü"

    def test_nothing_stays_beside_it(self, tmp_path: Path, rows: list[Row]) -> None:
        folder = tmp_path / "new" / "folder"
        complete(folder / "a.csv", "csv", rows)
        assert os.listdir(folder) == ["a.csv"]

    def test_what_was_there_stays_until_all_is_done(self, tmp_path: Path, rows: list[Row]) -> None:
        output = tmp_path / "a.csv"
        output.write_text("old")
        with pytest.raises(KeyboardInterrupt):
            interrupted_after(2, output, rows)
        assert output.read_text() == "old"
        with journalled(str(output), "csv", 2, SETTINGS, paths_of(rows)) as journal:
            assert journal.kept == 2
            journal.add(rows[2:])
        assert output.read_bytes() == b"".join(as_csv(rows, 2, header=True))

    def test_link_is_written_through(self, tmp_path: Path, rows: list[Row]) -> None:
        (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
        complete(tmp_path / "link.csv", "csv", rows)
        assert (tmp_path / "link.csv").is_symlink()
        assert (tmp_path / "real.csv").read_bytes().startswith(b"path,")

    def test_second_writer_is_refused_at_once(self, tmp_path: Path, rows: list[Row]) -> None:
        output = tmp_path / "a.csv"
        with (
            lock(tmp_path / "a.csv.partial"),
            pytest.raises(ScenetrackError, match="another process is writing "),
        ):
            complete(output, "csv", rows)
        complete(output, "csv", rows)

    def test_folder_is_no_output(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="output must be a file"):
            output_file(str(tmp_path))


@pytest.mark.parametrize(
    ("format", "output", "expected"),
    [
        ("", "", "csv"),
        ("", "a.CSV", "csv"),
        ("", "a.jsonl", "jsonl"),
        ("", "a.parquet", "parquet"),
        ("", "a.txt", "csv"),
        ("jsonl", "", "jsonl"),
        ("jsonl", "a.csv", "jsonl"),
    ],
)
def test_format(format: str, output: str, expected: str) -> None:
    assert format_of(format, output) == expected


@pytest.mark.parametrize(
    ("format", "output", "said"),
    [
        ("parquet", "", "format parquet needs a file"),
        ("", "scene.onnx", "output must be a file for rows, not one of .onnx"),
        ("csv", "a/photo.JPG", "output must be a file for rows, not one of .jpg"),
    ],
)
def test_refused_formats(format: str, output: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        format_of(format, output)


def test_stream_writes_one_header_and_counts(rows: list[Row]) -> None:
    stream = io.BytesIO()
    output = Stream(stream, "csv", 2)
    output.add(rows[:2])
    output.add(rows[2:])
    assert stream.getvalue() == b"".join(as_csv(rows, 2, header=True))
    assert (output.kept, output.failures) == (0, 1)


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (BrokenPipeError(32, "Broken pipe"), BrokenPipeError),
        (OSError(28, "No space"), ScenetrackError),
    ],
)
def test_stream_that_fails(rows: list[Row], error: OSError, seen: type[Exception]) -> None:
    class Failing(io.BytesIO):
        def flush(self) -> None:
            raise error

    with pytest.raises(seen, match=error.strerror):
        Stream(Failing(), "csv", 2).add(rows)


class _Terminal(io.BytesIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_a_terminal_obeys_no_name(format: str) -> None:
    row = Row("\x1b[2J\udce9.jpg", (("\x1b]0;title\x07", 0.5),))
    shown, kept = _Terminal(), io.BytesIO()
    for stream in (shown, kept):
        Stream(stream, format, 1).add([row])
    assert b"\x1b" not in shown.getvalue()
    assert b"\x07" not in shown.getvalue()
    assert b"\\x1b[2J" in shown.getvalue() or b"\\u001b[2J" in shown.getvalue()
    # A file keeps what a program reads.
    assert (b"\x1b" in kept.getvalue()) == (format == "csv")
