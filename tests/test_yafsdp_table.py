"""YaFSDP's published rows: every one with its source, and what they say of "10-25 %"."""

from dataclasses import replace
from datetime import date

import pytest

from utils.yafsdp_table import load_yafsdp_published, readings, summarise

ROWS = load_yafsdp_published()


def test_every_row_has_source_commit_and_date():
    assert len(ROWS) == 16 == len({(r.model, r.num_gpus, r.sequence_length) for r in ROWS})
    for row in ROWS:
        assert row.source.startswith("yandex/YaFSDP README.md") and "669fc36" in row.source
        assert (row.commit, row.date, row.status) == ("a61a4a6", date(2024, 6, 14), "R")
        assert "since 2024-0" in row.note  # when its percentage appeared
    assert {row.num_gpus for row in ROWS} == {64, 128, 256}


def test_three_rows_as_the_authors_print_them():
    first, last = ROWS[0], ROWS[-1]
    assert first.name == "Llama 2 7B, 64 GPUs, 2,048 tokens"
    assert (first.speedup_percent, first.yafsdp_s, first.fsdp_s) == (9.92, 0.81, 0.90)
    assert last.name == "Llama 3 70B, 256 GPUs, 2,048 tokens"
    assert (last.speedup_percent, last.yafsdp_s, last.fsdp_s) == (26.60, 7.17, 9.76)
    assert [r.checkpointed_layers for r in ROWS if r.checkpointed_layers] == [5, 10, 50, 20]


def test_printed_percentages_are_time_saved_up_to_rounding():
    for row in ROWS:
        low = readings(row.fsdp_s - 0.005, row.yafsdp_s + 0.005).less_time_percent
        high = readings(row.fsdp_s + 0.005, row.yafsdp_s - 0.005).less_time_percent
        assert low <= row.speedup_percent <= high, row.name


def test_five_of_sixteen_lie_in_the_articles_range():
    found = summarise(ROWS)
    assert (found.num_rows, found.below, found.inside, found.above) == (16, 10, 5, 1)
    assert (found.lowest_percent, found.highest_percent) == (2.32, 26.60)
    assert round(found.mean_percent, 1) == 10.7 and round(found.median_percent, 2) == 8.96


def test_the_gain_falls_with_the_tokens_of_a_gpu():
    by_length = summarise(ROWS).mean_percent_by_length
    assert [*by_length] == [2048, 4096, 8192]
    assert [round(mean, 1) for mean in by_length.values()] == [16.8, 5.5, 2.5]


def test_one_pair_of_times_gives_three_percentages():
    found = ROWS[-1].readings
    assert round(found.less_time_percent, 1) == 26.5  # 26.60 as printed
    assert round(found.more_throughput_percent, 1) == 36.1
    assert found.fewer_dollars_percent == found.less_time_percent
    half = readings(2.0, 1.0)
    assert (half.less_time_percent, half.more_throughput_percent) == (50.0, 100.0)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: readings(0.0, 1.0), "Two times above 0"),
        (lambda: summarise([]), "no rows to summarise"),
        (lambda: replace(ROWS[0], checkpointed_layers=-1), "checkpointed_layers is -1"),
        (lambda: replace(ROWS[0], yafsdp_s=0.0), "yafsdp_s is 0"),
        (lambda: replace(ROWS[0], speedup_percent=12.0), "but the seconds say 10.0"),
        (lambda: replace(ROWS[0], status="M"), "status is 'M'"),
    ],
)
def test_bad_input_gets_one_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        call()
