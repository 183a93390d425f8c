"""The tables of the roofline: rows hold what it says, and parts add up."""

import pytest

from utils.config import PRESETS
from utils.roofline import roofline, speed_up
from utils.roofline_precisions import PRECISIONS
from utils.roofline_tables import (
    PART_HEADERS,
    SHOWN_CHIPS,
    SPEED_UP_HEADERS,
    part_rows,
    speed_up_rows,
)

GPT2 = PRESETS["gpt2-124m"]
SMALL = PRESETS["laptop"]


def test_rows_hold_what_the_roofline_says():
    rows = {row[0]: row for row in speed_up_rows(GPT2, 8)}
    assert list(rows) == list(SHOWN_CHIPS)
    assert all(len(row) == len(SPEED_UP_HEADERS) for row in rows.values())
    h100 = dict(zip(SPEED_UP_HEADERS, rows["H100 SXM"], strict=True))
    assert h100["16-bit peak over fp32"] == "14.8"
    assert h100["bf16 over fp32"] == f"{speed_up('H100 SXM', GPT2, 8):.2f}"
    assert h100["fp8 over bf16"] == f"{speed_up('H100 SXM', GPT2, 8, 'fp8', 'bf16'):.2f}"
    assert rows["TPU v5e"][1] == "1 (multiplies in bf16)" and rows["TPU v5e"][3:] == ("-",) * 3
    assert rows["V100 32GB"][4:] == ("-", "-")
    assert speed_up_rows(GPT2, 8, ["Maia 100"]) == [("Maia 100", *("-",) * 5)]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_part_rows_add_up(precision):
    rows = part_rows("H100 SXM", GPT2, 8, precision)
    line = roofline("H100 SXM", GPT2, 8, precision)
    assert [row[0] for row in rows] == list(line.parts)
    assert all(len(row) == len(PART_HEADERS) for row in rows)
    assert sum(float(row[4]) for row in rows) == pytest.approx(1e3 * line.step_s, abs=0.06)
    gains = {row[0]: row[6] for row in rows}
    assert gains["optimizer"] == "1.00" and gains.get("casts", "-") == "-"
