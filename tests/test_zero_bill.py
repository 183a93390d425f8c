"""ZeRO's bill: the paper's figures, and sums that can be done by hand."""

import pytest
from torch import nn

from utils.config import PRESETS
from utils.costs import count_parameters
from utils.techniques.flat import FlatLayout, split_into_units
from utils.zero_bill import (
    BF16,
    FEWEST_HEADERS,
    FP32,
    STAGES,
    fewest_gpus,
    fewest_row,
    formulas,
    held_bytes,
    held_per_parameter,
    largest_batch,
    sent_bytes,
    sent_weights,
)

SEVEN_VALUES = FlatLayout(("weight", "bias"), ((2, 3), (1,)), world_size=4)  # shards of 2


def test_7_5_billion_parameters_on_64_ranks_are_the_papers_figures():
    held = [7.5 * held_per_parameter(stage, 64).total for stage in STAGES]
    assert held == pytest.approx([120, 31.4, 16.6, 1.9], abs=0.05)  # GB


@pytest.mark.parametrize("n", [1, 2, 3, 64])
def test_totals_are_the_short_formulas(n):
    bf16 = [held_per_parameter(stage, n, BF16).total for stage in STAGES]
    assert bf16 == pytest.approx([16, 4 + 12 / n, 2 + 14 / n, 16 / n])
    fp32 = [held_per_parameter(stage, n, FP32).total for stage in STAGES]
    assert fp32 == pytest.approx([16, 8 + 8 / n, 4 + 12 / n, 16 / n])


def test_each_stage_divides_one_part_more():
    assert held_per_parameter(0, 4, FP32) == (4, 4, 8)
    assert held_per_parameter(1, 4, FP32) == (4, 4, 2)
    assert held_per_parameter(2, 4, FP32) == (4, 1, 2)
    assert held_per_parameter(3, 4, FP32) == (1, 1, 2)


@pytest.mark.parametrize(("micro_batches", "passes"), [(1, (2, 2, 2, 3)), (4, (2, 2, 5, 12))])
def test_passes_of_a_ring(micro_batches, passes):
    sent = [sent_weights(stage, 4, micro_batches) for stage in STAGES]
    assert sent == pytest.approx([0.75 * each for each in passes])
    assert sent_weights(3, 1, micro_batches) == 0


def test_bytes_of_seven_values_on_four_ranks_counted_on_fingers():
    layouts = [SEVEN_VALUES, SEVEN_VALUES]
    whole, shard, counters = 2 * 8, 2 * 2, 2 * 4
    assert held_bytes(layouts, 1) == 4 * whole + 4 * 14 + 8 * shard + counters
    assert held_bytes(layouts, 2) == 4 * whole + 4 * shard + 8 * shard + counters
    assert held_bytes(layouts, 3) == 4 * shard + 4 * shard + 8 * shard + counters
    assert held_bytes(layouts, 2, BF16) == 2 * whole + 2 * shard + 12 * shard + counters
    assert sent_bytes(layouts, 1) == sent_bytes(layouts, 2) == 2 * 3 * 4 * 4  # 3 hops of 2 shards
    assert sent_bytes(layouts, 3, BF16) == 3 * 3 * 4 * 2


def test_exact_and_short_formulas_meet_in_a_large_model():
    model = nn.Sequential(*(nn.Linear(64, 64) for _ in range(4)))
    layouts = [unit.layout for unit in split_into_units(model, list(model), 4)]
    size = sum(parameter.numel() for parameter in model.parameters())
    for stage in (1, 2, 3):
        short = held_per_parameter(stage, 4, FP32).total
        assert held_bytes(layouts, stage) / size == pytest.approx(short, rel=1e-3)
        assert sent_bytes(layouts, stage) == 4 * size * sent_weights(stage, 4)


def test_a_stage_without_shards_has_no_exact_bill():
    with pytest.raises(ValueError, match="Stage 0 has no shards"):
        held_bytes([SEVEN_VALUES], 0)


def test_formulas_name_stages_in_order():
    assert formulas(["a", "b"], 2) == {"a": (16, 1.0), "b": (12, 1.0)}
    assert formulas({"c": None}, 4, BF16, first=3) == {"c": (4.0, 2.25)}


def test_fewest_gpus_hold_it_and_one_less_does_not():
    size = count_parameters(PRESETS["llama2-70b-shape"]).total
    fewest = fewest_gpus("llama2-70b-shape", 3, 80e9)
    assert 16 * size / fewest <= 80e9 < 16 * size / (fewest - 1)
    assert fewest_gpus("llama2-7b-shape", 0, 80e9) == 0
    assert fewest_gpus("gpt2-1.5b", 0, 80e9) == 1
    assert fewest_gpus("llama2-70b-shape", 3, 80e9, most=13) == 0


def test_a_row_says_none_do_or_what_they_cost():
    row = fewest_row("llama2-70b-shape", 80e9, 4.0)
    assert len(row) == len(FEWEST_HEADERS)
    assert row[1:] == ("1,104 GB", "none do", "none do", "none do", "14, $56.00")


def test_sequences_are_whole_and_never_negative():
    assert largest_batch(held_bytes=10, bytes_per_sequence=3, memory_bytes=19) == 3
    assert largest_batch(held_bytes=10, bytes_per_sequence=3, memory_bytes=12.9) == 0
    assert largest_batch(held_bytes=20, bytes_per_sequence=3, memory_bytes=10) == 0
