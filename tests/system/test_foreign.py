"""Texts that others may have written: read, or refused with one kind of error."""

from __future__ import annotations

import pytest

from scenetrack.system.foreign import distinct_names, parsed_json, whole_number


def test_json() -> None:
    assert (
        parsed_json('{"a": [1, "é"]}') == parsed_json('{"a": [1, "é"]}'.encode()) == {"a": [1, "é"]}
    )


@pytest.mark.parametrize("text", ["", "[", "[" * 100_000, '{"a":' * 100_000, b"\xff", "1" * 5000])
def test_no_json(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        parsed_json(text)


def test_names() -> None:
    assert distinct_names(["coast", "forêt", "=1+1"]) == ("coast", "forêt", "=1+1")


@pytest.mark.parametrize(
    "value", [None, "ab", {"a": 1}, ["a", 1], ["a", "a"], ["a", ""], ["\ud800"]]
)
def test_no_names(value: object) -> None:
    with pytest.raises(ValueError):
        distinct_names(value)


def test_whole_numbers() -> None:
    assert [whole_number(text, -5, 20) for text in ("0", "007", "-5", "20")] == [0, 7, -5, 20]


@pytest.mark.parametrize(
    "text", ["", "-", "--1", "x", "1.0", "1_0", " 1", "٣", "²", "1e1", "21", "-6"]
)
def test_no_whole_numbers(text: str) -> None:
    with pytest.raises(ValueError, match="a whole number from -5 to 20 is required"):
        whole_number(text, -5, 20)
