"""Tables of recorded experiments: every row of every device, in the headers' units."""

import pytest

from utils.recorded import RecordedRun, load_recorded, write_recorded
from utils.recorded_rows import rows_problem
from utils.recorded_tables import TABLES, show_table, table_rows

ROWS = {
    "whole_step": [
        {"recipe": "bf16, one process", "precision": "bf16", "library": "torch", "seconds": 0.5,
         "tokens_per_s": 2048.4, "peak_bytes": 2**21},
        {"recipe": "fp32, one process", "precision": "fp32", "library": "torch", "seconds": 2.0,
         "tokens_per_s": 512.0, "peak_bytes": None},
    ],
    "capstone": [
        {"precision": "bf16", "is_compiled": compiled, "batch_size": 8, "seconds": 1.0,
         "tokens_per_s": 1e5, "mfu": mfu, "peak_flops_per_s": None, "peak_source": "chips.csv"}
        for compiled, mfu in ((False, 0.4125), (True, None))
    ],
    "ranks": [
        {"recipe": "fp32, 2 x DDP", "method": "ddp", "library": "torch", "num_ranks": 2,
         "seconds": 0.05, "held_bytes": 2**20, "peak_bytes": 2**21, "sent_bytes": 2**19}
    ],
    "collectives": [{"backend": "gloo", "num_ranks": 2, "bytes": 10**6, "seconds": 0.01}],
}  # fmt: skip
EXPECTED = {
    "whole_step": [("bf16, one process", "500", "2,048", "2.00 MiB"),
                   ("fp32, one process", "2,000", "512", "-")],
    "capstone": [("bf16", "as it is", "8", "100,000", "41.2%", "chips.csv"),
                 ("bf16", "compiled", "8", "100,000", "-", "chips.csv")],
    "ranks": [("fp32, 2 x DDP", "50.0", "1.00 MiB", "2.00 MiB", "512 KiB")],
    "collectives": [("gloo", "2", "977 KiB", "10.0", "100")],
}  # fmt: skip
RUN = RecordedRun("Chip X", "cpu", "Linux", "2.13.0", "2026-11-24", "abc", ROWS)


@pytest.mark.parametrize("name", TABLES)
def test_every_row_is_shown_under_its_headers(name):
    assert rows_problem(name, ROWS[name]) == ""
    cells = list(table_rows(name, [RUN]))
    assert cells == [("Chip X", *row) for row in EXPECTED[name]]
    assert all(len(row) == 1 + len(TABLES[name].headers) for row in cells)


@pytest.mark.parametrize("name", TABLES)
def test_the_block_is_not_compared_and_says_when_there_is_no_gpu(name, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr("utils.recorded.measured_text", lambda *block: shown.append(block))
    show_table(name, tmp_path)
    write_recorded(RUN, tmp_path)
    show_table(name, tmp_path)
    assert [title for title, _ in shown] == [TABLES[name].title] * 2
    assert all("GPU: not recorded yet" in text for _, text in shown)
    assert "Chip X" not in shown[0][1] and shown[1][1].count("Chip X") == len(ROWS[name])


def test_an_unknown_table_is_one_sentence():
    with pytest.raises(ValueError, match="There is no table of 'speed'; take one of whole_step,"):
        show_table("speed")


def test_the_courses_own_files_fit():
    for name in TABLES:
        assert isinstance(list(table_rows(name, load_recorded(name, report=lambda _: None))), list)
