"""What lab 05's judges compare with, held against searches, the lesson's code and the meter."""

import random
from itertools import product

import pytest
import torch

from utils.checks.truth_05 import PolicyCheckpoint, bill_of, calls_of, shares
from utils.checks.truth_05_actions import (
    WIDTHS,
    actions_of,
    chain,
    execute,
    programs,
    runs_of_program,
    watched,
)
from utils.checks.truth_05_menus import (
    again_flops,
    fewest_flops,
    highest_peak,
    measured_menus,
    measured_peak_bytes,
    picked,
    random_menus,
    search,
)
from utils.checks.truth_05_models import build_blocks, random_input
from utils.config import GPTConfig
from utils.techniques.checkpointing import checkpoint_by_hooks
from utils.techniques.schedules import binomial_plan, fewest_runs
from utils.techniques.segments import runs_of
from utils.techniques.selective import MATRIX_PRODUCTS, checkpoint_keeping

CONFIG = GPTConfig(2, 8, 32, 32, attention="explicit")
aten = torch.ops.aten


@pytest.mark.parametrize(
    "by_call, by_operation",
    [
        (lambda call: False, lambda operation: False),
        (lambda call: call.flops > 0, lambda operation: operation in MATRIX_PRODUCTS),
        (lambda call: call.name == "addmm", lambda operation: operation == aten.addmm.default),
        (lambda call: call.name in ("gelu", "_softmax"),
         lambda operation: operation in (aten.gelu.default, aten._softmax.default)),
    ],
    ids=["nothing", "products", "linear layers", "element-wise"],
)  # fmt: skip
def test_a_policy_by_call_keeps_what_the_lessons_policy_keeps(by_call, by_operation):
    blocks, x = build_blocks(CONFIG), random_input(CONFIG)
    ours = bill_of(blocks, x, PolicyCheckpoint(by_call))
    theirs = bill_of(blocks, x, checkpoint_keeping(by_operation))
    assert (ours.kept_bytes, ours.flops) == (theirs.kept_bytes, theirs.flops)
    for exact in (theirs, bill_of(blocks, x)):
        assert all(map(torch.equal, ours.gradients, exact.gradients))


def test_keeping_nothing_is_a_plain_checkpoint_and_each_call_is_asked_once():
    blocks, x = build_blocks(CONFIG), random_input(CONFIG)
    checkpoint = PolicyCheckpoint(lambda call: False)
    assert bill_of(blocks, x, checkpoint).flops == bill_of(blocks, x, checkpoint_by_hooks).flops
    calls = [call for block in blocks for call in calls_of(block, x)]
    assert [call for call, _ in checkpoint.decisions] == calls
    assert not any("view" in call.name for call in calls)


def test_a_policy_that_changes_its_mind_is_asked_once_for_both_runs():
    blocks, x = build_blocks(CONFIG), random_input(CONFIG)
    draw = random.Random(1)
    bill = bill_of(blocks, x, PolicyCheckpoint(lambda call: draw.random() < 0.5))
    assert all(map(torch.equal, bill.gradients, bill_of(blocks, x).gradients))


def test_keeping_all_takes_more_than_a_plain_step():
    kept, again = shares(build_blocks(CONFIG), random_input(CONFIG), lambda call: True)
    assert kept > 1 and again == 0


def test_the_programme_finds_what_the_search_finds():
    num_none = 0
    for menus, budget_bytes in random_menus(150):
        choice, flops = search(menus, budget_bytes), fewest_flops(menus, budget_bytes)
        num_none += choice is None
        assert flops == (float("inf") if choice is None else again_flops(picked(menus, choice)))
    assert 5 < num_none < 75


def test_real_blocks_never_take_more_than_their_menu_says():
    menus = measured_menus()
    input_bytes = menus[0][2].kept_bytes  # checkpointed, a block keeps only the next one's input
    choices = random.Random(2).sample([*product(range(3), repeat=len(menus))], 8)
    for choice in choices:
        promised, got = highest_peak(picked(menus, choice)), measured_peak_bytes(choice)
        assert promised - input_bytes <= got <= promised, choice


def test_the_last_block_gains_nothing_from_a_checkpoint():
    *_, last = measured_menus()
    assert max(each.peak_bytes for each in last) < 1.05 * min(each.peak_bytes for each in last)


@pytest.mark.parametrize("num_layers, num_inputs", [(1, 1), (4, 1), (5, 2), (7, 3), (9, 2)])
def test_a_plan_as_a_program_has_the_plans_runs(num_layers, num_inputs):
    plan = binomial_plan(num_layers, num_inputs)
    layers = [run.layer for run in runs_of_program(actions_of(plan))]
    assert {k: layers.count(k) for k in range(num_layers)} == runs_of(plan)
    assert len(layers) == fewest_runs(num_layers, num_inputs)


@pytest.mark.parametrize("name", programs())
def test_a_program_stores_before_it_loads_and_goes_down_layer_by_layer(name):
    actions, stored, current = programs()[name], set(), 0
    for action, number in actions:
        if action == "store":
            assert current == number
            stored.add(number)
        elif action == "load":
            assert number in stored
            current = number
        elif action == "drop":
            stored.remove(number)
        else:
            assert current == number
            current = number + 1 if action == "advance" else None
    backward = [number for action, number in actions if action == "backward"]
    assert backward == list(reversed(range(len(WIDTHS) - 1))) and stored <= {0}


def test_the_watch_sees_what_is_alive():
    layers, x = chain()
    ours, watch = watched(layers)
    y = ours[0](x)
    kept, z = y, ours[1](y)
    del y
    ours[2](z)
    assert [run.layer for run in watch.runs] == [0, 1, 2]
    assert watch.runs[2].alive == {1} and watch.alive() == {1, 2}
    del kept, z
    assert watch.alive() == set()


def test_the_plain_execution_runs_what_the_program_orders():
    for actions in programs().values():
        layers, x = chain()
        ours, watch = watched(layers)
        execute(actions, ours, x)
        expected = runs_of_program(actions)
        assert [(run.layer, run.has_graph) for run in watch.runs] == [
            (run.layer, run.has_graph) for run in expected
        ]
