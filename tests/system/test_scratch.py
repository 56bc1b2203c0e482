"""Hidden folders that are written in: those of dead processes are removed, no others."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scenetrack.system import scratch
from scenetrack.system.files import replacing
from scenetrack.system.scratch import remove_abandoned, scratch_folder

_PROGRAM = """
import sys, time
from pathlib import Path
from scenetrack.system.files import replacing
with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print("begun", flush=True)
    time.sleep(600)
"""


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    words = [sys.executable, "-c", _PROGRAM, str(tmp_path / "scene.onnx")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        (left,) = tmp_path.iterdir()
        assert remove_abandoned(tmp_path) == []
        process.send_signal(signal.SIGKILL)
    assert (left / "scene.onnx").read_text() == "half"
    with replacing(tmp_path / "other.onnx") as temporary:
        temporary.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["other.onnx"]


def test_those_of_another_machine_are_left_for_a_week(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, young = scratch_folder(tmp_path / "old"), scratch_folder(tmp_path / "young")
    week = time.time() - 8 * 86400
    os.utime(old, (week, week))
    assert remove_abandoned(tmp_path) == []
    monkeypatch.setattr(socket, "gethostname", lambda: "another")
    assert remove_abandoned(tmp_path) == [old]
    assert young.is_dir()


def test_folders_of_others_are_left_alone(tmp_path: Path) -> None:
    names = [".scene.onnx-abcd1234", ".git", "-a_1_b_c", ".a-0_1_2_3", "x-00000000_1_00000000_a"]
    for name in names:
        (tmp_path / name).mkdir()
    assert remove_abandoned(tmp_path) == []


@pytest.mark.parametrize("name", ["x" * 250, "é" * 120])
def test_a_long_name_has_room(tmp_path: Path, name: str) -> None:
    with replacing(tmp_path / name) as temporary:
        temporary.write_text("whole")
    assert (tmp_path / name).read_text() == "whole"


def test_a_folder_is_looked_through_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Path] = []
    monkeypatch.setattr(scratch, "remove_abandoned", looked.append)
    for name in "abc":
        with replacing(tmp_path / name) as temporary:
            temporary.write_text("")
    assert looked == [tmp_path]
