"""What ZeRO holds, to the byte: against the formulas, and over the time of a backward."""

import pytest

from tests.zero_runs import CONFIG, STAGES, Case, adam, backward
from utils.memory import MemoryMeter
from utils.model import build_gpt
from utils.ranks import run_ranks
from utils.techniques.flat import split_into_units
from utils.techniques.zero_formulas import (
    bytes_per_parameter,
    held_bytes,
    most_weight_bytes,
    sent_bytes,
    traffic_factor,
)

OWNED = ("parameters", "gradients", "optimizer state")
BATCH = Case().batches()[0]


def layouts_of(world_size, config=CONFIG):
    model = build_gpt(config, device="meta")
    return [unit.layout for unit in split_into_units(model, model.blocks, world_size)]


def label(meter, model, zero):
    """Name everything that lasts; masters of 16-bit weights belong to the optimizer's state."""
    meter.label("parameters", *model.parameters(), *(unit.shard_S for unit in zero.units))
    shards = [unit.gradient_S for unit in zero.units if unit.gradient_S is not None]
    meter.label("gradients", *shards)
    meter.label("optimizer state", *(unit.master_S for unit in zero.units))
    for state in zero.optimizer.state.values():
        meter.label("optimizer state", *state.values())


def measure(rank, world_size, low, stages=(1, 2, 3)):
    """For each stage: bytes held in the second step after backward, and the report."""
    found = {}
    for stage in stages:
        model, case = build_gpt(CONFIG), Case(low=low)
        with MemoryMeter(model) as meter:
            zero = STAGES[stage](model, model.blocks, adam, rank, world_size, None, case.dtype)
            for number in range(2):
                meter.mark(f"step {number}")
                backward(model, BATCH, rank, world_size, 1)
                meter.mark(f"gradients {number}")
                label(meter, model, zero)
                zero.step()
                meter.mark(f"end {number}")
        report = meter.report()
        held = {name: report.at_mark("gradients 1")[name] for name in OWNED}
        first, middle, last = (dict(report.marks)[name] for name in MARKS)
        parts = {"backward": slice(first, middle), "update": slice(middle, last)}
        highest = {
            part: {name: int(report.timeline[name][each].max()) for name in OWNED}
            for part, each in parts.items()
        }
        found[stage] = held, highest, report.at_mark("end 1")
    return found


MARKS = ("step 1", "gradients 1", "end 1")


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_held_bytes_are_those_of_the_formula(world_size):
    for low in (False, True):
        for found in run_ranks(measure, world_size, low):
            for stage, (held, _, after) in found.items():
                assert held == held_bytes(layouts_of(world_size), stage, low)
                expected = held | {"gradients": 0}
                assert {name: after[name] for name in OWNED} == expected  # and no gradients stay


def test_stage_2_frees_gradients_during_backward_and_stage_3_weights_after_each_layer():
    """Every layer of CONFIG has the same size; the root's head waits for the embeddings."""
    *blocks, root = layouts_of(2)
    sizes = dict(zip(root.names, root.sizes, strict=True))
    head = sum(sizes[name] for name in sizes if name.startswith(("final_norm", "output")))
    at_first_block = head + blocks[0].num_values + sum(each.shard_values for each in blocks[1:])
    at_the_end = root.num_values + sum(each.shard_values for each in blocks)
    for found in run_ranks(measure, 2, False):
        highest = {stage: each[1]["backward"] for stage, each in found.items()}
        whole = sum(layout.num_values for layout in (*blocks, root))
        assert highest[1]["gradients"] == 4 * whole
        assert highest[2]["gradients"] == 4 * max(at_first_block, at_the_end)
        assert highest[3]["gradients"] == highest[2]["gradients"]
        padded = sum(layout.padded_values for layout in (*blocks, root))
        assert highest[1]["parameters"] == highest[2]["parameters"] == 4 * padded
        assert highest[3]["parameters"] == most_weight_bytes(blocks, root, False)
        # An update needs no weights but the shards.
        shards = sum(layout.shard_values for layout in (*blocks, root))
        assert found[3][1]["update"]["parameters"] == 4 * shards


def test_the_table_of_bytes_and_traffic():
    """The paper's figures for 16-bit weights and Adam, and the limit of many ranks."""
    assert [sum(bytes_per_parameter(stage, 4).values()) for stage in range(4)] == [
        16, 4 + 12 / 4, 2 + 14 / 4, 16 / 4,
    ]  # fmt: skip
    assert [sum(bytes_per_parameter(stage, 4, False).values()) for stage in range(4)] == [
        16, 8 + 8 / 4, 4 + 12 / 4, 16 / 4,
    ]  # fmt: skip
    paper = {1: 31.4, 2: 16.6, 3: 1.9}  # GB for 7.5 billion parameters on 64 GPUs, figure 1
    for stage, gigabytes in paper.items():
        assert 7.5 * sum(bytes_per_parameter(stage, 64).values()) == pytest.approx(
            gigabytes, abs=0.05
        )
    assert [traffic_factor(stage) for stage in range(4)] == [2, 2, 2, 3]
    assert [traffic_factor(stage, 4) for stage in range(4)] == [2, 2, 5, 12]


def test_exact_bytes_come_near_to_the_table():
    """What differs is padding, below N values a unit, and Adam's step counters."""
    layouts = layouts_of(7)
    num_values = sum(layout.num_values for layout in layouts)
    for stage in (1, 2, 3):
        for low in (False, True):
            exact = sum(held_bytes(layouts, stage, low).values()) / num_values
            table = sum(bytes_per_parameter(stage, 7, low).values())
            assert table <= exact < table * 1.01
            sent = sent_bytes(layouts, stage, low) / num_values / (2 if low else 4)
            assert traffic_factor(stage) * 6 / 7 <= sent < traffic_factor(stage) * 6 / 7 * 1.01
    assert sent_bytes(layouts_of(1), 3) == 0
    assert most_weight_bytes([], layouts[-1]) == 2 * (
        layouts[-1].shard_values + layouts[-1].padded_values
    )
    assert most_weight_bytes(layouts[:-1], None, False) == 4 * (
        3 * layouts[0].shard_values + layouts[0].padded_values
    )


def test_formulas_refuse_what_does_not_exist():
    with pytest.raises(ValueError, match="There is no stage 4 here: take one of 0, 1, 2, 3"):
        bytes_per_parameter(4, 2)
    with pytest.raises(ValueError, match="There is no stage 0 here: take one of 1, 2, 3"):
        held_bytes(layouts_of(2), 0)
    with pytest.raises(ValueError, match="At least 1 rank is needed, not 0"):
        bytes_per_parameter(1, 0)
    with pytest.raises(ValueError, match="at least 1 micro-batch, not 0"):
        traffic_factor(1, 0)
