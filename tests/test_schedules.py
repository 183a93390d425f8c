"""Revolve's schedules against a search through all schedules of short chains."""

import heapq
import weakref
from collections import Counter
from functools import partial
from itertools import count
from math import comb

import pytest
import torch

from tests.checkpoint_cases import OURS, leaf
from utils.techniques.schedules import binomial_plan, fewest_runs, longest_chain
from utils.techniques.segments import layers_of, run_plan, runs_of


def search(num_layers, num_inputs, most_runs=None):
    """Fewest runs of all schedules, by Dijkstra; None if no layer may run that often.

    A state is: inputs in store (of layers by number), the one at hand, how many layers still wait
    for their backward, and how often each layer has run, if that is limited.
    """
    limited = most_runs is not None
    start = (frozenset([0]), 0, num_layers, (0,) * num_layers * limited)
    queue, done, numbers = [(0, 0, start)], set(), count(1)
    while queue:
        runs, _, state = heapq.heappop(queue)
        if state[2] == 0:
            return runs
        if state in done:
            continue
        done.add(state)
        for cost, after in moves(*state, num_inputs):
            if not limited or max(after[3]) <= most_runs:
                heapq.heappush(queue, (runs + cost, next(numbers), after))
    return None


def moves(stored, at, waiting, counts, num_inputs):
    """All that can be done next, with what it costs in runs of a layer."""
    if at is not None and at < waiting:
        once_more = counts and (*counts[:at], counts[at] + 1, *counts[at + 1 :])
        if at == waiting - 1:  # the layer keeps what it saves, and its backward follows at once
            yield 1, (stored, None, waiting - 1, once_more)
        else:
            yield 1, (stored, at + 1, waiting, once_more)
        # Nothing is won by dropping an input before its place is wanted.
        for drop in [frozenset()] if len(stored) < num_inputs else map(frozenset, zip(stored)):
            yield 0, (stored - drop | {at}, at, waiting, counts)
    for one in stored:
        yield 0, (stored, one, waiting, counts)


@pytest.mark.parametrize("num_inputs", [1, 2, 3, 4])
@pytest.mark.parametrize("num_layers", range(1, 8))
def test_no_schedule_of_all_needs_fewer_runs(num_layers, num_inputs):
    fewest = search(num_layers, num_inputs)
    assert fewest_runs(num_layers, num_inputs) == fewest
    assert sum(runs_of(binomial_plan(num_layers, num_inputs)).values()) == fewest


@pytest.mark.parametrize("num_inputs, num_runs", [(1, 1), (1, 4), (2, 1), (2, 2), (3, 2), (4, 2)])
def test_the_longest_chain_is_one_layer_shorter_than_the_first_that_does_not_work(
    num_inputs, num_runs
):
    longest = longest_chain(num_inputs, num_runs)
    assert longest == comb(num_inputs + num_runs - 1, num_inputs)
    assert search(longest, num_inputs, num_runs) is not None
    assert search(longest + 1, num_inputs, num_runs) is None
    assert max(runs_of(binomial_plan(longest, num_inputs)).values()) == num_runs


@pytest.mark.parametrize("num_inputs", range(1, 7))
def test_the_closed_form_holds_for_long_chains(num_inputs):
    """r * L - C(s + r - 1, s + 1), with r the fewest runs whose longest chain is L or more."""
    for num_layers in range(1, 60):
        runs = next(r for r in range(1, 100) if longest_chain(num_inputs, r) >= num_layers)
        closed = runs * num_layers - comb(num_inputs + runs - 1, num_inputs + 1)
        assert fewest_runs(num_layers, num_inputs) == closed


def test_with_room_for_every_input_each_layer_but_the_last_runs_twice():
    assert fewest_runs(9, 9) == fewest_runs(9, 50) == 9 + 8
    assert binomial_plan(4, 4) == ((0,), (1,), (2,), 3)
    assert binomial_plan(4, 1) == ((((0,), 1), 2), 3)
    assert fewest_runs(500, 8) == 2285  # a chain that long overflows no stack


@pytest.mark.parametrize("num_layers, num_inputs", [(1, 1), (5, 1), (7, 2), (10, 3), (12, 3)])
@pytest.mark.parametrize("name", OURS)
def test_real_layers_run_as_often_as_predicted(name, num_layers, num_inputs):
    calls = Counter()

    def layer(number, x):
        calls[number] += 1
        return (x + number).sin().exp()

    layers = [partial(layer, number) for number in range(num_layers)]
    plan, x = binomial_plan(num_layers, num_inputs), leaf(1, 2)
    run_plan(plan, layers, x, OURS[name]).sum().backward()
    assert layers_of(plan) == list(range(num_layers))
    assert calls == runs_of(plan)
    assert calls.total() == fewest_runs(num_layers, num_inputs)
    z = leaf(1, 2)
    run_plan(tuple(range(num_layers)), layers, z, OURS[name]).sum().backward()
    assert torch.equal(x.grad, z.grad)


@pytest.mark.parametrize("num_layers, num_inputs", [(5, 1), (7, 2), (10, 3), (12, 3), (4, 9)])
def test_no_more_inputs_are_kept_than_there_is_room_for(num_layers, num_inputs):
    seen, most = {}, []

    def layer(x):
        storage = x.untyped_storage()
        if storage._cdata not in seen:
            seen[storage._cdata] = weakref.finalize(storage, seen.pop, storage._cdata)
        most.append(len(seen))  # the one at hand among them
        return x.sin().exp()

    plan = binomial_plan(num_layers, num_inputs)
    run_plan(plan, [layer] * num_layers, leaf(1, 2), OURS["hooks"]).sum().backward()
    assert max(most) == min(num_inputs + 1, num_layers)


def test_a_plan_may_start_at_any_layer():
    assert layers_of(binomial_plan(5, 2, first=3)) == [3, 4, 5, 6, 7]


@pytest.mark.parametrize("function", [fewest_runs, binomial_plan])
@pytest.mark.parametrize("sizes", [(0, 1), (3, 0), (-1, 2), (2, -1)])
def test_no_layer_or_no_room_is_refused(function, sizes):
    with pytest.raises(ValueError, match="at least one layer and room for one input"):
        function(*sizes)
