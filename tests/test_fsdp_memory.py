"""When FSDP's weights exist: the timeline of a step, the most that is whole, bytes held."""

from dataclasses import replace
from itertools import pairwise

import pytest

from tests.fsdp_runs import Way, shard, ways
from tests.zero_runs import CONFIG, Case, adam
from utils.memory import MemoryMeter
from utils.model import build_gpt, next_token_loss
from utils.peers import TrainingJob
from utils.peers.harness import measure_system
from utils.peers.ours import fsdp_system
from utils.ranks import run_ranks
from utils.techniques.checkpointing import checkpoint_by_function, checkpoint_by_hooks
from utils.techniques.fsdp_formulas import FsdpOptions, held_bytes, layouts_of, most_whole_bytes
from utils.techniques.segments import checkpointed, segments

DEEP = replace(CONFIG, num_layers=4)


def segmented(lengths, way):
    return lambda model: checkpointed(model, segments(lengths), way)


def whole_weights(rank, world_size, case, way):
    """How the bytes of gathered weights change in a step, the second one."""
    with MemoryMeter() as meter:
        model = case.model()
        fsdp = shard(model, rank, world_size, case, way)
        optimizer = adam(fsdp.parameters())
        for number, batch in enumerate(case.batches()[:2]):
            meter.mark(f"step {number}")
            with case.around(model):
                loss = next_token_loss(model, *batch.chunk(world_size, dim=1)[rank])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        meter.label("parameters", *(each.flat_P for each in fsdp.shards))
    report = meter.report()
    first = dict(report.marks)["step 1"] - 1  # the last event before it
    values = report.timeline["parameters"][first:]
    assert values[0] == values[-1] == 0
    return [int(b - a) for a, b in pairwise(values) if a != b]


def each_whole_weights(rank, world_size, runs):
    return [whole_weights(rank, world_size, case, way) for case, way in runs]


# A plus gathers, a minus frees; R is the root, the digits are the layers.
TIMELINES = {
    (True, 0): "+R +0 -0 +1 -1 +2 -2  +2 -2 +1 -1 +0 -0 -R",
    (True, 1): "+R +0 +1 -0 +2 -1 -2  +2 +1 -2 +0 -1 -0 -R",
    (True, 2): "+R +0 +1 +2 -0 -1 -2  +2 +1 +0 -2 -1 -0 -R",
    (False, 1): "+R +0 +1 +2  -2 -1 -0 -R",
}


def test_each_layers_weights_come_and_go_as_drawn():
    layers, root = layouts_of(model := build_gpt(CONFIG), model.blocks, 2)
    size = {"R": 4 * root.padded_values} | {
        str(number): 4 * layer.padded_values for number, layer in enumerate(layers)
    }
    runs = [
        (Case(), ways(reshard_after_forward=reshard, prefetch=prefetch))
        for reshard, prefetch in TIMELINES
    ]
    for found in run_ranks(each_whole_weights, 2, runs, quiet=True):
        for changes, drawn in zip(found, TIMELINES.values(), strict=True):
            signs = {"+": 1, "-": -1}
            assert changes == [signs[one[0]] * size[one[1]] for one in drawn.split()], drawn


MOST = [
    *((Case(DEEP), ways(prefetch=prefetch), 1) for prefetch in (0, 1, 2, 5)),
    (Case(DEEP, low=True), Way(), 1),
    (Case(DEEP), ways(reshard_after_forward=False), 1),
    *(
        (Case(DEEP, around=segmented([2, 2], way)), ways(prefetch=prefetch), 2)
        for way in (checkpoint_by_function, checkpoint_by_hooks)
        for prefetch in (0, 1)
    ),
]


def test_the_most_weights_that_are_whole_at_once_by_formula():
    layers, root = layouts_of(model := build_gpt(DEEP), model.blocks, 2)
    runs = [(case, way) for case, way, _ in MOST]
    for found in run_ranks(each_whole_weights, 2, runs, quiet=True):
        for changes, (case, way, segment) in zip(found, MOST, strict=True):
            options = replace(way.options, compute_bytes=case.dtype.itemsize)
            highest = max(sum(changes[:end]) for end in range(len(changes)))
            assert highest == most_whole_bytes(layers, root, options, segment)


def test_the_formula_in_units_of_layers():
    layers, root = layouts_of(model := build_gpt(DEEP), model.blocks, 2)
    layer, rest = 4 * layers[0].padded_values, 4 * root.padded_values

    def most(segment=1, **options):
        return most_whole_bytes(layers, root, FsdpOptions(**options), segment) - rest

    assert [most(prefetch=p) // layer for p in range(6)] == [1, 2, 3, 4, 4, 4]
    assert most(reshard_after_forward=False) == most(keep_weights=True) == 4 * layer
    assert [most(prefetch=0, segment=s) // layer for s in (1, 2, 4)] == [1, 2, 4]
    assert most(segment=2) == 3 * layer and most(compute_bytes=2) + rest == (2 * layer + rest) // 2


JOB = TrainingJob(CONFIG, batch_size=12, num_steps=2)


def held(rank, world_size):
    """Bytes after backward, whatever the options."""
    two = replace(JOB, num_micro_batches=2)
    return [
        measure_system(rank, world_size, fsdp_system(**options), job).held
        for job, options in (
            (JOB, {}),
            (replace(JOB, low_precision=True), dict(low_reduce=True)),
            (JOB, dict(reshard_after_forward=False, prefetch=2)),
            (two, dict(no_sync=True, keep_weights=True)),
        )
    ]


@pytest.mark.parametrize("world_size", [2, 3])
def test_bytes_held_are_sixteen_a_parameter_over_ranks(world_size):
    layers, root = layouts_of(model := build_gpt(CONFIG), model.blocks, world_size)
    expected = held_bytes(layers, root)
    num_values = sum(layout.padded_values for layout in (*layers, root))
    assert sum(expected.values()) == 16 * num_values // world_size + 4 * 4  # Adam's counters
    for found in run_ranks(held, world_size, quiet=True):
        assert found == [expected] * 4
