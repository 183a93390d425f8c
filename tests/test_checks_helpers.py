"""What judges say and compare with."""

import math

import pytest
import torch

from utils.checks import NotYet, close_to, format_bytes, require
from utils.checks.helpers import one_line, shown


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"what": "Wrong"}, "Wrong."),
        ({"what": "Wrong.", "expected": 12_345, "got": None}, "Wrong. Expected 12,345, got None."),
        ({"what": "Odd!", "got": 0.1 + 0.2}, "Odd! Got 0.3."),
        (
            {"what": "Off", "expected": "1 GiB", "got": "2 GiB", "likely": "counted twice"},
            "Off. Expected 1 GiB, got 2 GiB. Likely mistake: counted twice.",
        ),
    ],
)
def test_not_yet_is_written_in_full_sentences(fields, text):
    assert str(NotYet(**fields)) == text


def test_require_raises_only_when_the_condition_fails():
    require(torch.tensor(True), "never said")
    with pytest.raises(NotYet, match=r"^Too big\. Expected 1, got 2\.$"):
        require(False, "Too big", 1, 2)


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (1.0000001, 1),
        (math.inf, math.inf),
        (torch.tensor(2.0), 2),
        ([1, 2.0], torch.tensor([1.0, 2.0])),
        ((1, (2, 3)), [1, [2, 3]]),
    ],
)
def test_close(got, expected):
    assert close_to(got, expected)


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (1.00001, 1),
        (math.nan, 1),
        (math.nan, math.nan),
        (math.inf, 1),
        (None, 1),
        ("1", 1),
        (True, 1),
        (1 + 0j, 1),
        (1, [1]),
        ([1, 2], [1, 2, 3]),
        (torch.ones(2, 2), torch.ones(4)),
        ([1, math.nan], [1, 2]),
    ],
)
def test_not_close(got, expected):
    assert not close_to(got, expected)


def test_close_within_a_tolerance():
    assert close_to(98, 100, rtol=0.02) and not close_to(97, 100, rtol=0.02)
    assert close_to(0.0, 1e-9, atol=1e-8) and not close_to(0.0, 1e-9)


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(532, "532 bytes"), (14_680_064, "14.0 MiB (14,680,064 bytes)"), (0, "0 bytes")],
)
def test_bytes_are_written_in_the_courses_unit_and_exactly(num_bytes, text):
    assert format_bytes(num_bytes) == text


class Loud:
    shape = property(lambda self: 1 / 0)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "True"),
        (1234567.0, "1.23457e+06"),
        (torch.tensor([1.0, 2.5]), "[1, 2.5]"),
        (torch.zeros(3, 4), "a Tensor of shape (3, 4)"),
        (list(range(20)), "[0, 1, 2, 3, 4, 5, 6, 7, ...]"),
        (len, "the function len"),
        ({"a": 1}, "{'a': 1}"),
        ("two\nlines", "two lines"),
        (object(), "<object object at 0x...>"),
        (Loud(), "an object of type Loud"),
    ],
)
def test_values_are_shown_short_and_the_same_each_time(value, text):
    assert shown(value) == text


def test_long_texts_are_cut():
    assert shown(10**5000) == "an object of type int"  # more digits than Python writes
    assert one_line("a  b\n" * 1000, 10) == "a b a b a ... (cut)"
    assert len(shown("x" * 10_000)) < 350
