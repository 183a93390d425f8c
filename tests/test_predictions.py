"""What a learner reads after a guess."""

import pytest

from utils.measured import MARK
from utils.predictions import reveal


def said(capsys, *arguments, **options):
    reveal(*arguments, **options)
    return capsys.readouterr().out.strip()


def test_a_guess_is_compared_in_words(capsys):
    assert said(capsys, "Peak", 2**20, 4 * 2**20, "bytes") == (
        "Peak: 4.00 MiB; you said 1.00 MiB, which is 4.0 times too low."
    )
    assert "too high" in said(capsys, "Cost", 10.0, 2.0, "$")
    assert "right within 5 %" in said(capsys, "MFU", 0.5, 0.51)


def test_no_guess_is_fine(capsys):
    assert "you made no prediction" in said(capsys, "Peak", None, 100, "bytes")


def test_a_measured_truth_is_marked_with_its_ratio(capsys):
    text = said(capsys, "Time", 1.0, 2.0, "s", is_measured=True)
    assert text.count(MARK) == 4
    outside = "".join(text.split(MARK)[::2])
    assert "2.0" not in outside


@pytest.mark.parametrize("guess", [0, -1.0, "many"])
def test_a_guess_must_be_a_positive_number(guess):
    with pytest.raises(ValueError, match="A prediction is a positive number"):
        reveal("Peak", guess, 1.0)
