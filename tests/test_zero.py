"""ZeRO's three stages against one process, bit for bit, and against what they should send."""

from dataclasses import replace

import pytest
import torch

from tests.zero_runs import CONFIG, STAGES, Case, adam, backward, gap, one_process, train
from utils.model import build_gpt
from utils.ranks import TrafficLedger, run_ranks
from utils.ranks.gloo_bytes import all_reduce
from utils.techniques.flat import split_into_units
from utils.techniques.zero_formulas import sent_bytes


def layouts_of(world_size, config=CONFIG):
    model = build_gpt(config)
    return [unit.layout for unit in split_into_units(model, model.blocks, world_size)]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_all_stages_equal_one_process_bit_for_bit(world_size):
    cases = [Case(), Case(low=True)]
    by_rank = run_ranks(train, world_size, cases)
    for number, case in enumerate(cases):
        oracle = one_process(case, world_size)
        for stage in STAGES:
            for run in by_rank:
                assert gap(run[number][stage].parameters, oracle.parameters) == 0.0
                expected = sent_bytes(layouts_of(world_size), stage, case.low)
                assert run[number][stage].sent == expected
            assert torch.equal(by_rank[0][number][stage].losses, oracle.losses)


def test_micro_batches_add_up_and_cost_messages():
    """Gradients are added before the ring in stage 1, after it in 2 and 3: other roundings."""
    cases = [Case(num_micro=3), Case(num_micro=3, low=True)]
    first, second = run_ranks(train, 2, cases)
    for number, case in enumerate(cases):
        mine, oracle = first[number], one_process(case, 2)
        assert gap(mine[1].parameters, oracle.parameters) == 0.0
        assert 0 < gap(mine[2].parameters, oracle.parameters) < (0.02 if case.low else 2e-5)
        assert gap(mine[2].parameters, mine[3].parameters) == 0.0
        for stage in STAGES:
            assert gap(mine[stage].parameters, second[number][stage].parameters) == 0.0
            assert mine[stage].sent == sent_bytes(layouts_of(2), stage, case.low, 3)


def test_clipping_equals_torchs_in_one_process():
    cases = [Case(max_norm=0.3), Case(max_norm=0.3, low=True)]
    by_rank = run_ranks(train, 3, cases)
    for number, case in enumerate(cases):
        oracle = one_process(case, 3)
        for stage in STAGES:
            for run in (each[number][stage] for each in by_rank):
                assert run.norms == pytest.approx(oracle.norms, rel=1e-6)
                assert gap(run.parameters, oracle.parameters) < 2e-5
        assert min(oracle.norms) > 0.3  # it did clip, and without it the weights are others
        plain = one_process(replace(case, max_norm=None), 3)
        assert gap(oracle.parameters, plain.parameters) > 1e-4


def clip_traffic(rank, world_size):
    sent = []
    for max_norm in (None, 1.0):
        model = build_gpt(CONFIG)
        zero = STAGES[2](model, model.blocks, adam, rank, world_size)
        backward(model, Case().batches()[0], rank, world_size, 1)
        with TrafficLedger() as ledger:
            zero.step(max_norm)
        kernel = ledger.kernel_bytes_sent()
        assert kernel is None or kernel == ledger.bytes_sent + ledger.envelope_bytes
        sent.append(ledger.bytes_sent)
    return sent[1] - sent[0]


def test_clipping_sends_one_number():
    expected = [all_reduce(8, 8, rank, 4).data_bytes for rank in range(4)]
    assert run_ranks(clip_traffic, 4) == expected


def other_optimizer(rank, world_size):
    found = []
    for kind in STAGES.values():
        model = build_gpt(CONFIG, seed=rank)
        zero = kind(model, model.blocks, momentum, rank, world_size)
        for batch in Case().batches():
            backward(model, batch, rank, world_size, 1)
            zero.step()
        found.append(zero.whole_parameters())
    return found


def momentum(parameters):
    return torch.optim.SGD(parameters, lr=0.3, momentum=0.9)


def test_any_optimizer_that_works_value_by_value():
    model = build_gpt(CONFIG)
    optimizer = momentum(model.parameters())
    for batch in Case().batches():
        for part in range(2):
            backward(model, batch, part, 2, 1)
        for parameter in model.parameters():
            parameter.grad /= 2
        optimizer.step()
        optimizer.zero_grad()
    expected = [p.detach() for p in model.parameters()]
    for found in run_ranks(other_optimizer, 2)[1]:
        assert gap(found, expected) == 0.0


def whole_between_steps(rank, world_size):
    seen = {}
    for stage, kind in STAGES.items():
        model = build_gpt(CONFIG)
        zero = kind(model, model.blocks, adam, rank, world_size)
        seen[stage] = [[unit.is_whole for unit in zero.units]]
        backward(model, Case().batches()[0], rank, world_size, 1)
        seen[stage].append([unit.is_whole for unit in zero.units])
        zero.step()
        seen[stage].append([unit.is_whole for unit in zero.units])
    return seen


def test_only_stage_3_has_no_weights_between_forwards():
    for seen in run_ranks(whole_between_steps, 2):
        assert seen == {stage: [[stage < 3] * 4] * 3 for stage in STAGES}
