"""What lab 04's judges compare with is true, and no answer harms what comes after it."""

import itertools
from functools import partial

import pytest
from torch.utils.checkpoint import checkpoint

from tests.wrong_builders_04 import right
from utils.checks.truth_04 import (
    INPUT_BYTES,
    best_lengths,
    chain_peak_bytes,
    lengths_text,
    num_wrong_gradients,
    parallel_bytes,
    plan_of,
)
from utils.checks.truth_04_layer import held_bytes, plain_bytes, plainly
from utils.checks.truth_04_loop import Case, plain_loss, report_rows, traced, true_trace
from utils.techniques.checkpointing import checkpoint_by_function, checkpoint_by_hooks


def one_level_plans(num_blocks, start=0):
    """Every plan in which a block runs at most twice: kept blocks and parts, in any order."""
    if start == num_blocks:
        yield ()
    for rest in one_level_plans(num_blocks, start + 1) if start < num_blocks else ():
        yield (start, *rest)
    for end in range(start + 1, num_blocks + 1):
        for rest in one_level_plans(num_blocks, end):
            yield (tuple(range(start, end)), *rest)


@pytest.mark.slow
def test_no_plan_of_a_chain_runs_fewer_blocks_again_in_the_same_room():
    num_blocks, depth = 4, 3
    measured = [
        (chain_peak_bytes(plan, num_blocks, depth) // INPUT_BYTES,
         sum(len(step) for step in plan if isinstance(step, tuple)))
        for plan in one_level_plans(num_blocks)
    ]  # fmt: skip
    assert len(measured) == 34
    for room in range(1, num_blocks * depth + 1):
        best = best_lengths(num_blocks, depth, 1, room)
        fewest = min((again for peak, again in measured if peak <= room), default=None)
        assert fewest == (num_blocks - best[-1] if best else None), room


@pytest.mark.parametrize("lengths", [[6], [5, 1], [1, 3, 2], [2, 2, 2], [1, 1, 1, 1, 1, 1]])
@pytest.mark.parametrize("depth", [2, 4])
def test_the_peak_of_a_chain_is_the_formula_to_the_byte(lengths, depth):
    expected = max(k + depth * length for k, length in enumerate(lengths)) * INPUT_BYTES
    assert chain_peak_bytes(plan_of(lengths), 6, depth) == expected


def test_the_solution_of_04_3_agrees_with_the_truth_everywhere():
    sizes = itertools.product(range(1, 9), (2, 3, 5), range(1, 26))
    for num_blocks, depth, room in sizes:
        got, truth = right["cut_chain"](num_blocks, depth, 1, room), best_lengths(
            num_blocks, depth, 1, room)
        assert got[-1:] == truth[-1:] and sum(got) == sum(truth)


def test_the_plan_of_lengths():
    assert plan_of([2, 1, 2]) == ((0, 1), (2,), 3, 4) and plan_of([3]) == (0, 1, 2)
    assert lengths_text([3, 2, 2, 1]) == "1 x 3, 2 x 2, 1 x 1"


def test_a_chain_of_parallel_blocks_keeps_what_both_kinds_of_checkpoint_keep():
    plain, checkpointed = parallel_bytes(3, 2, 8, 32, 4, 80)
    one, _ = parallel_bytes(1, 2, 8, 32, 4, 80)
    assert plain == 3 * one and checkpointed == one + 2 * 4 * 2 * 8 * 32


def test_only_the_replay_mends_what_torch_forgets():
    assert num_wrong_gradients(lambda layer, x: layer(x)) == 0
    assert num_wrong_gradients(partial(checkpoint, use_reentrant=True)) > 4
    with pytest.raises(RuntimeError, match="something else when it ran again"):
        num_wrong_gradients(checkpoint_by_hooks)


def test_the_real_layer_keeps_nothing_under_the_lessons_checkpoints():
    assert held_bytes(checkpoint_by_function) == held_bytes(checkpoint_by_hooks) == (0, 0)
    assert plain_bytes() > 500_000 and held_bytes(plainly)[1] == 0


def test_the_order_of_runs_is_that_of_the_case():
    for case in (Case(5, 2), Case(6, 3), Case(2, 3), Case(4, 1, is_frozen=True)):
        assert true_trace(case).order == case.expected_order
    case = Case(6, 2, in_bytes=True)
    assert true_trace(case).kept_bytes < 0.5 * traced(plain_loss, case).kept_bytes


def test_the_colleagues_four_bugs_show_and_the_solution_has_none():
    rows = report_rows(right["colleagues_loss"])
    assert [row[1:3] for row in rows] == [(1, 0), (1, 0), (0, 1), (0, 1)]
    assert {row[4] for row in rows} == {"missing"}
    mended = report_rows(right["segmented_loss"])
    assert [row[1:] for row in mended] == [(1, k < 2, "right", "right") for k in range(4)]
