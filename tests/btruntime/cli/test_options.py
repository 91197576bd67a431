"""What a person may write for numbers and factors."""

from __future__ import annotations

import argparse
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btruntime.cli.options import numbers, speed, whole


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7", (7,)),
        ("20,36,70", (20, 36, 70)),
        ("0-4,9", (0, 1, 2, 3, 4, 9)),
        (" 3 , 1-2 ", (3, 1, 2)),
        ("1,1,0-2", (1, 0, 2)),
        ("5-5", (5,)),
    ],
)
def test_numbers_and_ranges(text: str, expected: tuple[int, ...]) -> None:
    assert numbers(text) == expected


@pytest.mark.parametrize("text", ["", ",", "1,", "a", "-1", "1-", "4-2", "1-2-3", "1.5", "0-99999999", "\u00b2"])
def test_what_is_no_list_of_numbers_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is no "):
        numbers(text)


@given(st.text("0123456789,- ", max_size=12))
def test_any_text_is_numbers_or_refused(text: str) -> None:
    try:
        found = numbers(text)
    except argparse.ArgumentTypeError:
        return
    assert len(set(found)) == len(found) > 0
    assert min(found) >= 0


@given(st.floats())
def test_a_factor_is_between_a_tenth_and_two(factor: float) -> None:
    if 0.1 <= factor <= 2:
        assert speed(repr(factor)) == factor
    else:
        with pytest.raises(argparse.ArgumentTypeError, match="no time factor"):
            speed(repr(factor))


def test_a_factor_needs_a_number() -> None:
    for text in ("", "fast", "1x"):
        with pytest.raises(argparse.ArgumentTypeError):
            speed(text)
    assert math.isclose(speed("1e-1"), 0.1)


def test_a_whole_number_has_a_least() -> None:
    assert whole(0)("0") == 0
    for text in ("-1", "x", "1.0", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="whole number of 0 or more"):
            whole(0)(text)
