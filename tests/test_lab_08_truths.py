"""What lab 08's checks compare with is true: the stack, the store, means, micro-batches, bills."""

from dataclasses import replace

import pytest
import torch
import torch.distributed as dist

from tests.wrong_builders_08 import right
from utils.checks.helpers import NotYet
from utils.checks.on_ranks import on_ranks
from utils.checks.truth_08_hybrid import Cluster, bytes_sent, mistakes, true_mean_P
from utils.checks.truth_08_log import sent, split
from utils.checks.truth_08_micro import (
    NUM_MICRO,
    MicroUnit,
    build_model,
    coefficients_P,
    micro_loss,
)
from utils.checks.truth_08_micro_mistakes import masters_P, shards, true_P
from utils.checks.truth_08_micro_mistakes import mistakes as micro_mistakes
from utils.checks.truth_08_pay import CASES, Job, fewest_gpus, gpt_job, needed_bytes, tight
from utils.checks.truth_08_pay_mistakes import gpu_mistakes
from utils.checks.truth_08_stack import Stack, inputs_BD, one_process, stack_trial
from utils.checks.truth_08_store import BACKWARD, FORWARD, LateLane, Store, tell
from utils.config import PRESETS
from utils.predict_sharded import smallest_number_of_gpus
from utils.ranks import run_ranks
from utils.techniques.flat import split_into_units


class Reports:
    """Stands in for a store: remembers when which layer reads weights."""

    def __init__(self):
        self.seen = []

    def computes(self, what, place):
        self.seen.append((what, place))


def test_each_layer_reports_both_products_in_forward_and_in_backward():
    model = Stack((1, 0))
    model.store = Reports()
    model(inputs_BD(0, 0)).backward()
    order = [(FORWARD, 1), (FORWARD, 1), (FORWARD, 0), (FORWARD, 0),
             (BACKWARD, 0), (BACKWARD, 0), (BACKWARD, 1), (BACKWARD, 1)]  # fmt: skip
    assert model.store.seen == order


def test_one_process_trains_with_the_mean_over_ranks():
    first, _, last = one_process((0, 1), 2)
    model = Stack((0, 1))
    with torch.no_grad():
        for parameter, *each in zip(model.parameters(), *first.gradients, strict=True):
            parameter -= 0.1 * sum(each) / 2
    assert model(inputs_BD(2, 1)).item() == pytest.approx(last.losses[1], rel=1e-6)


def never_gathers(layers, gather, free):
    """No hook at all: the store itself must keep the rank alive."""


def test_a_store_lives_on_without_any_gather_and_computes_the_right_loss():
    runs = on_ranks(stack_trial, 2, never_gathers, (0, 1, 2), ("gather",))
    for rank, passes in enumerate(runs):
        assert sent(passes[0].entries) == []
        assert [each.what for each in split(passes[0].entries)[0][:2]] == [FORWARD, "missing"]
        assert passes[0].loss == pytest.approx(one_process((0, 1, 2), 2)[0].losses[rank])


def late(rank, world_size):
    model = Stack((0, 1, 2))
    store = Store(model, model.layers, rank, world_size, LateLane())
    waits = [store.start_gather(k) for k in range(3)]
    before = [shard.flat_P.clone() for shard in store.shards]
    waits[1].wait()
    whole = [torch.equal(*map(torch.Tensor.nan_to_num, pair)) for pair in
             zip(before, (shard.flat_P for shard in store.shards), strict=True)]  # fmt: skip
    return whole[2], store.most_bytes == store.total_bytes


def test_a_late_lane_delivers_what_is_waited_for_and_nothing_later():
    assert run_ranks(late, 2) == [(True, True)] * 2


def tells(rank, world_size, name):
    tell("gather layers.1")
    try:
        tell(f"gather layers.{rank}" if name else "")
    except NotYet as error:
        return str(error)
    return "alike"


def test_ranks_that_differ_all_say_so():
    assert run_ranks(tells, 2, "") == ["alike", "alike"]
    for text in run_ranks(tells, 2, "x"):
        assert text.startswith("Rank 0: gather layers.0, while rank 1: gather layers.1.")


def accumulated(rank, world_size):
    model = build_model()
    units = [MicroUnit(unit, rank, world_size) for unit in split_into_units(model, list(model), 1)]
    for unit in units:
        unit.gather()
    sums = [torch.zeros(parameter.shape) for parameter in model.parameters()]
    for micro in range(NUM_MICRO):
        micro_loss(units, coefficients_P(0, micro, 0), lambda: None).backward()
        for total, parameter in zip(sums, model.parameters(), strict=True):
            total += parameter.grad
        model.zero_grad()
    return torch.cat([total.flatten() for total in sums]) / NUM_MICRO


def test_autograd_finds_the_gradients_of_micro_batches_that_the_truth_says():
    assert torch.equal(run_ranks(accumulated, 1)[0], true_P(0, 1))


def test_every_mistake_with_micro_batches_shows():
    for step in (0, 1):
        for _, value in micro_mistakes(step, 2):
            assert not torch.allclose(value, true_P(step, 2), rtol=1e-5)
    parts = [torch.cat(each) for each in zip(*(shards(masters_P(0, 2), r, 2) for r in (0, 1)),
                                              strict=True)]  # fmt: skip
    assert sum(len(part) for part in parts) == 74  # 71 values, one of padding in each unit


@pytest.mark.parametrize("cluster", [Cluster(6, 2), Cluster(4, 2), Cluster(6, 3)], ids=str)
def test_every_mistake_with_two_levels_shows(cluster):
    for rank in range(cluster.world_size):
        true = cluster.shard(true_mean_P(cluster, 0), rank)
        assert len(true) == 24
        for text, value in mistakes(cluster, rank, 0):
            assert not torch.allclose(true, value, rtol=1e-5, atol=1e-5), text


def crossings(rank, world_size):
    cluster, tensor = Cluster(world_size, 2), torch.ones(8)
    neighbour, far = rank ^ 1, (rank + 2) % world_size

    def sends(partner):
        for work in (dist.isend(tensor, partner), dist.irecv(torch.empty(8), partner)):
            work.wait()

    functions = (lambda: sends(neighbour), lambda: sends(far), lambda: dist.all_reduce(tensor))
    return [bytes_sent(cluster, rank, function) for function in functions]


@pytest.mark.filterwarnings("ignore:4 ranks on")
def test_what_leaves_a_node_is_told_from_what_stays():
    for near, far, everybody in run_ranks(crossings, 4):
        assert (near, far) == ((32, 0), (0, 32))
        assert everybody[0] == 0 and everybody[1] > 0


def test_tight_jobs_are_tight_and_each_mistake_shows_in_one_of_them():
    for job in CASES[:3]:
        fewest = fewest_gpus(job)
        assert needed_bytes(job, fewest) == job.memory_bytes
        assert fewest_gpus(replace(job, memory_bytes=job.memory_bytes - 1)) != fewest
    for text, variant in gpu_mistakes():
        assert any(variant(job) != fewest_gpus(job) for job in CASES), text
    assert [fewest_gpus(job) for job in CASES[-2:]] == [None, None]


def test_the_bill_agrees_with_the_courses_prediction_for_llama():
    for name in ("llama2-7b-shape", "llama2-70b-shape"):
        job = gpt_job(PRESETS[name], "H100 SXM", PRESETS[name].context_length, 4e11, 4.0)
        predicted = smallest_number_of_gpus(PRESETS[name], "FSDP", 80e9)
        assert abs(right["does_it_pay"](job)[0] - predicted) <= 1


def test_one_gpu_sends_nothing_and_waits_for_nothing():
    job = tight(Job(2, 10, 10, 1, 1, 4, 0, 1.0, 1.0, 1.0), 1)
    assert right["does_it_pay"](job) == (1, 0, 0.0)
