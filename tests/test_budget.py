"""The dynamic programme against every nested plan of short chains, its bytes against the meter."""

import random
from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest
import torch
from torch import nn

from tests.checkpoint_cases import CONFIG
from tests.helpers import batch_for
from utils.memory import MemoryMeter
from utils.model import build_gpt
from utils.techniques.budget import (
    cheapest_plan,
    least_budget_bytes,
    plan_flops,
    plan_peak_bytes,
)
from utils.techniques.chain import LayerCost, gpt_chain, halves, measure_layers
from utils.techniques.checkpointing import checkpoint_by_function, checkpoint_by_hooks
from utils.techniques.segments import layers_of, run_plan, runs_of


@cache
def all_plans(first, last):
    """Every nested plan of these layers, but for brackets that hold nothing but a bracket."""
    if first > last:
        return [()]
    plans = [(first, *rest) for rest in all_plans(first + 1, last)]
    for end in range(first, last + 1):
        inside = [(first, *rest) for rest in all_plans(first + 1, end)]
        for cut in range(first, end):
            brackets = [plan for plan in all_plans(first, cut) if len(plan) > 1 or plan == (first,)]
            inside += [(one, *rest) for one in brackets for rest in all_plans(cut + 1, end)]
        plans += [(one, *rest) for one in inside for rest in all_plans(end + 1, last)]
    return plans


def random_costs(num_layers, generator, scale=1):
    """Layers with no rule behind their sizes but those of nature."""
    costs = []
    for _ in range(num_layers):
        size = partial_sizes(generator, scale)
        output, saved = size(1, 9), size(0, 30)
        plain = output + size(0, 40)
        graph = output + saved + size(0, 5)  # a kernel without a graph may need more than with one
        backward = saved + output + size(0, 15)
        costs.append(LayerCost(generator.randint(1, 9), output, saved, plain, graph, backward))
    return costs


def partial_sizes(generator, scale):
    return lambda low, high: generator.randint(low, high) * scale + generator.randrange(scale)


def test_all_plans_are_all():
    """Counted by hand for two layers: each layer bare or not, together or apart, nested or not."""
    two = {(0, 1), ((0,), 1), (0, (1,)), ((0,), (1,)), ((0, 1),), (((0,), 1),), ((0, (1,)),)}
    assert set(all_plans(0, 1)) == two | {(((0,), (1,)),)}
    assert len(all_plans(0, 4)) == len(set(all_plans(0, 4))) > 1000
    assert all(layers_of(plan) == [0, 1, 2, 3] for plan in all_plans(0, 3))


@pytest.mark.parametrize("seed", range(24))
def test_no_plan_of_all_is_cheaper_at_any_budget(seed):
    generator = random.Random(seed)
    num_layers = 1 + seed % 5
    costs = random_costs(num_layers, generator)
    plans = all_plans(0, num_layers - 1)
    known = [(plan_peak_bytes(plan, costs), plan_flops(plan, costs)) for plan in plans]
    peaks = sorted({peak for peak, _ in known})
    assert least_budget_bytes(costs) == peaks[0]
    for budget_bytes in [*peaks, *(peak + 1 for peak in peaks)]:
        plan = cheapest_plan(costs, budget_bytes)
        assert layers_of(plan) == list(range(num_layers))
        assert plan_peak_bytes(plan, costs) <= budget_bytes
        fewest = min(flops for peak, flops in known if peak <= budget_bytes)
        assert plan_flops(plan, costs) == fewest


@pytest.mark.parametrize("seed", range(6))
def test_in_coarse_slots_it_is_never_over_and_at_most_one_percent_too_careful(seed):
    costs = random_costs(5, random.Random(seed), scale=100_003)
    known = [(plan_peak_bytes(p, costs), plan_flops(p, costs)) for p in all_plans(0, 4)]
    least = least_budget_bytes(costs)
    assert least == min(peak for peak, _ in known)
    for extra in (0, 1, 1000, 10_000, 50_000, 200_000, 10**6, 3 * 10**6):
        plan = cheapest_plan(costs, least + extra)
        assert plan_peak_bytes(plan, costs) <= least + extra
        reachable = 0.99 * (least + extra)
        best = min((flops for peak, flops in known if peak <= reachable), default=float("inf"))
        assert plan_flops(plan, costs) <= best


def test_the_sentence_names_the_least_budget_and_that_one_works():
    for scale in (1, 12_345):
        costs = random_costs(5, random.Random(1), scale)
        least = least_budget_bytes(costs)
        for budget_bytes in (least - 1, 0, -5):
            sentence = f"within {budget_bytes:,} bytes; {least:,} bytes are the least that works"
            with pytest.raises(ValueError, match=sentence):
                cheapest_plan(costs, budget_bytes)
        assert plan_peak_bytes(cheapest_plan(costs, least), costs) == least


def test_flops_of_a_plan_are_those_of_all_its_runs():
    costs = random_costs(4, random.Random(2))
    for plan in all_plans(0, 3):
        runs = runs_of(plan)
        assert plan_flops(plan, costs) == sum(runs[k] * costs[k].flops for k in range(4))


def chain_of(name):
    """(layers, their input): a GPT's blocks, its halves, or layers of very different widths."""
    config = replace(CONFIG, attention="fused" if name == "fused" else "explicit", num_layers=4)
    model = build_gpt(replace(config, dropout=0.1 if name == "dropout" else 0.0))
    tokens_BT, targets_BT = batch_for(config, 2)
    embed, *blocks, loss = gpt_chain(model, targets_BT)
    if name == "halves":
        blocks = [half for block in blocks for half in halves(block)]
    if name != "unequal":
        return [embed, *blocks, loss], tokens_BT
    torch.manual_seed(0)
    widths = [16, 64, 8, 128, 32, 4]
    layers = [
        nn.Sequential(nn.Linear(a, 4 * b), nn.GELU(), nn.Linear(4 * b, b), nn.Tanh())
        for a, b in pairwise(widths)
    ]
    return [*layers, lambda x: x.square().mean()], torch.randn(32, 16)


@cache
def measured_chain(name):
    layers, x = chain_of(name)
    return layers, x, measure_layers(layers, x)


def metered_bytes(plans, layers, x, checkpoint=checkpoint_by_hooks):
    """What the meter sees above weights, gradients and the input, plan for plan."""
    with MemoryMeter() as meter:
        run_plan(tuple(range(len(layers))), layers, x, checkpoint).backward()  # now all are known
        for plan in plans:
            meter.mark("start")
            loss = run_plan(plan, layers, x, checkpoint)
            loss.backward()
            del loss
        meter.mark("start")
    report = meter.report()
    starts = [position - 1 for _, position in report.marks]
    return [int(max(report.total[a : b + 1]) - report.total[a]) for a, b in pairwise(starts)]


def random_plan(first, last, generator, depth=0):
    plan, layer = [], first
    while layer <= last:
        end = generator.randint(layer, last)
        is_whole = (layer, end) == (first, last) and depth > 0
        if generator.random() < 0.5 and not is_whole and depth < 4:
            plan.append(random_plan(layer, end, generator, depth + 1))
            layer = end + 1
        else:
            plan.append(layer)
            layer += 1
    return tuple(plan)


@pytest.mark.parametrize("name", ["explicit", "fused", "dropout", "halves", "unequal"])
def test_the_meter_never_sees_more_than_predicted_and_hardly_less(name):
    layers, x, costs = measured_chain(name)
    generator = random.Random(name)
    last = len(layers) - 1
    plans = [tuple(range(len(layers))), *(random_plan(0, last, generator) for _ in range(9))]
    for plan, seen in zip(plans, metered_bytes(plans, layers, x), strict=True):
        predicted = plan_peak_bytes(plan, costs)
        assert 0.99 * predicted <= seen <= predicted


@pytest.mark.parametrize("name", ["explicit", "halves", "unequal"])
def test_no_budget_is_ever_overdrawn_by_the_meters_count(name):
    layers, x, costs = measured_chain(name)
    plain_bytes = plan_peak_bytes(tuple(range(len(layers))), costs)
    least = least_budget_bytes(costs)
    shares = (1.0, 0.8, 0.6, 0.4, 0.2, 0.1, 0.0)
    budgets = [int(least + share * (plain_bytes - least)) for share in shares]
    plans = [cheapest_plan(costs, budget_bytes) for budget_bytes in budgets]
    assert all(map(int.__le__, metered_bytes(plans, layers, x), budgets))
    flops = [plan_flops(plan, costs) for plan in plans]
    assert flops == sorted(flops) and flops[0] < flops[-1] and least < 0.9 * plain_bytes


def test_the_function_variant_needs_more():
    layers, x, costs = measured_chain("explicit")
    plan = cheapest_plan(costs, least_budget_bytes(costs))
    (seen,) = metered_bytes([plan], layers, x, checkpoint_by_function)
    assert seen > plan_peak_bytes(plan, costs)
