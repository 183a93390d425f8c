"""`utils.prove_stopped`: what a stop leaves behind is found, and nothing else is."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tests.prove_course import make_course
from utils import prove_stopped

LEAVES = """
import builtins
import time

builtins.busy = getattr(builtins, "busy", 0) + 1
if not hasattr(builtins, "has_slept"):
    builtins.has_slept = True
    time.sleep(60)
builtins.busy -= 1
print(builtins.busy)
"""
TIDIES = """
import builtins
import time

builtins.busy = getattr(builtins, "busy", 0) + 1
try:
    if not hasattr(builtins, "has_slept"):
        builtins.has_slept = True
        time.sleep(60)
finally:
    builtins.busy -= 1
print(builtins.busy)
"""


def test_each_cell_is_stopped_first_and_then_stands_as_it_was() -> None:
    cells = [new_code_cell(text) for text in ("first = 1", "second = 'it''s'", "third = 3")]
    notebook = new_notebook(cells=[new_markdown_cell("# A title"), *cells])
    made = prove_stopped.with_stopped_cells(notebook, random.Random(1)).cells
    assert made[3:] == cells and len(notebook.cells) == 4
    assert made[0].source == f"first = 1\n{prove_stopped.IMPORTS}"
    for own, stopped in zip(cells[1:], made[1:3], strict=True):
        assert f"run_cell({own.source!r})" in stopped.source
        compile(stopped.source, "cell", "exec")
    tags = [cell.metadata.get("tags") for cell in made]
    assert tags == [["nbval-ignore-output", "raises-exception"]] * 3 + [None] * 3
    assert len({cell.id for cell in made}) == 6


def test_the_moments_come_from_the_seed_and_reach_from_10_ms_to_10_s() -> None:
    chance = random.Random(4)
    delays_s = [prove_stopped._delay_s(chance) for _ in range(1000)]
    assert delays_s[:9] == [prove_stopped._delay_s(c) for c in [random.Random(4)] for _ in range(9)]
    assert 0.01 <= min(delays_s) < 0.011 and 9 < max(delays_s) <= 10
    assert 280 < sum(delay_s < 0.1 for delay_s in delays_s) < 390  # a third


@pytest.mark.slow
@pytest.mark.parametrize(("code", "status"), [(TIDIES, 0), (LEAVES, 1)])
def test_what_a_stop_leaves_behind_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], code: str, status: int
) -> None:
    course = make_course(tmp_path / "course", a=[("first = 1", ""), (code, "0\n")])
    before = (course / "notebooks" / "a.ipynb").read_bytes()
    words = ["--seed", "2", "--folder", str(course), "--", "--log", str(tmp_path / "log")]
    assert prove_stopped.main(words) == status
    said = capsys.readouterr().out
    assert "Stopped at the moments of --seed 2." in said
    assert ("failed: notebooks/a.ipynb::Cell 3" in said) == bool(status)
    assert (course / "notebooks" / "a.ipynb").read_bytes() == before


def test_what_cannot_be_asked_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prove_stopped.main(["--only", "12_none"]) == 2
    assert capsys.readouterr().err.startswith("There is no notebook named '12_none'; take one of ")
    assert prove_stopped.main(["--folder", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"{tmp_path} has no notebooks in ")
