"""ZeRO around other techniques and models: checkpointing, autocast, frozen, tied, odd results."""

from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from tests.zero_runs import CONFIG, STAGES, Case, gap, one_process, subgroup, train, train_in
from utils.ranks import run_ranks
from utils.techniques.autocast import ManualAutocast
from utils.techniques.checkpointing import checkpoint_by_function, checkpoint_by_hooks
from utils.techniques.flat import split_into_units
from utils.techniques.segments import checkpointed, segments
from utils.techniques.zero_formulas import sent_bytes

PLANS = {"each layer": segments([1, 1, 1]), "two": segments([1, 2]), "nested": (((0, 1), 2),)}
WAYS = {"hooks": checkpoint_by_hooks, "function": checkpoint_by_function}


def run_again(plan, way):
    return lambda model: checkpointed(model, PLANS[plan], WAYS[way])


@pytest.mark.parametrize("way", WAYS)
def test_checkpointing_changes_no_bit_and_gathers_nothing_twice(way):
    plain = Case(replace(CONFIG, dropout=0.1))
    cases = [plain, *(replace(plain, around=run_again(plan, way)) for plan in PLANS)]
    for found in run_ranks(train, 2, cases):
        for run in (each[stage] for each in found for stage in STAGES):
            assert gap(run.parameters, found[0][1].parameters) == 0.0
            assert torch.equal(run.losses, found[0][1].losses)
        for each in found[1:]:
            assert [each[stage].sent for stage in STAGES] == [
                found[0][stage].sent for stage in STAGES
            ]


@contextmanager
def autocast_and_checkpoint(model):
    with torch.autocast("cpu", torch.bfloat16), run_again("two", "hooks")(model):
        yield


@contextmanager
def ours_and_checkpoint(model):
    with ManualAutocast(), run_again("each layer", "function")(model):
        yield


def test_autocast_torchs_and_ours_alone_and_with_checkpointing():
    """Backward is outside in real training; here it is inside, which must not matter either."""
    torchs, ours = (lambda _: torch.autocast("cpu", torch.bfloat16)), (lambda _: ManualAutocast())
    pairs = [
        (Case(around=torchs), torchs),
        (Case(around=autocast_and_checkpoint), torchs),
        (Case(around=ours), ours),
        (Case(around=ours_and_checkpoint), ours),
    ]
    found = run_ranks(train, 2, [case for case, _ in pairs])[0]
    for (_, plain), mine in zip(pairs, found, strict=True):
        oracle = one_process(Case(around=plain), 2)
        for stage in STAGES:
            assert gap(mine[stage].parameters, oracle.parameters) == 0.0


def only(*names):
    """All beginnings of names in the model but these."""
    whole = [name for name, _ in Case().model().named_parameters()]
    return tuple(name for name in whole if not name.startswith(names))


MODELS = {
    "tied": Case(replace(CONFIG, tied_embeddings=True)),
    "tied, bf16": Case(replace(CONFIG, tied_embeddings=True), low=True),
    "grouped queries": Case(replace(CONFIG, num_kv_heads=1)),
    "explicit attention, no biases": Case(replace(CONFIG, attention="explicit", bias=False)),
    "a block frozen": Case(frozen=("blocks.1.",)),
    "a block frozen, bf16": Case(frozen=("blocks.1.",), low=True),
    "embeddings frozen": Case(frozen=("token", "position")),
    "half of a block frozen": Case(frozen=("blocks.0.attention.",)),
    "all but one frozen": Case(frozen=only("final_norm.bias")),
    "all but the first frozen": Case(frozen=only("blocks.0.attention_norm.weight"), low=True),
    "all frozen but a block": Case(frozen=only("blocks.2.")),
}


def test_tied_grouped_and_frozen_models_equal_one_process():
    found = run_ranks(train, 3, list(MODELS.values()), timeout_s=120)[2]
    for (name, case), mine in zip(MODELS.items(), found, strict=True):
        oracle, model = one_process(case, 3), case.model()
        layouts = [unit.layout for unit in split_into_units(model, model.blocks, 3)]
        for stage in STAGES:
            assert gap(mine[stage].parameters, oracle.parameters) == 0.0, (name, stage)
            assert mine[stage].sent == sent_bytes(layouts, stage, case.low), (name, stage)


def in_subgroups(rank, world_size):
    members = [[0, 3], [1, 2]]
    groups = [subgroup(rank, world_size, each) for each in members]
    mine = next(i for i, group in enumerate(groups) if group is not None)
    place = members[mine].index(rank)
    return [train_in(stage, place, 2, Case(), groups[mine]).parameters for stage in STAGES]


def test_groups_of_ranks_train_beside_each_other():
    oracle = one_process(Case(), 2)
    for found in run_ranks(in_subgroups, 4):
        assert [gap(parameters, oracle.parameters) for parameters in found] == [0.0] * 3


class Odd(nn.Module):
    """Layers that return tuples, one of them used twice, and parameters that few or none use."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(OddBlock() for _ in range(3))
        self.blocks[2].line = self.blocks[0].line
        self.scale, self.idle = nn.Parameter(torch.ones(())), nn.Parameter(torch.ones(2))

    def forward(self, x, uses_gate):
        gates = []
        for block in self.blocks:
            x, gate = block(x, uses_gate)
            gates.append(gate)
        return {"x": (self.scale * x, gates), "note": "no tensor"}


class OddBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.line, self.gate = nn.Linear(3, 3), nn.Linear(3, 1)
        self.tiny = nn.Parameter(torch.ones(1))

    def forward(self, x, uses_gate):
        gate = self.gate(x) if uses_gate else x.sum()
        return self.tiny * (x + self.line(x)).tanh(), gate


def odd_loss(model, rank):
    """Rank 0 alone uses the gates; two forward passes before one backward."""
    total = torch.zeros(())
    for number in range(2):
        x = torch.full((2, 3), 0.1 * (rank + 1) + number)
        x, gates = model(x, rank == 0)["x"]
        total = total + x.square().mean() + (sum(gates).mean() if rank == 0 else 0.0)
    return total


def odd(rank, world_size):
    found = []
    for kind in STAGES.values():
        torch.manual_seed(rank)
        model = Odd()
        zero = kind(model, model.blocks, partial(torch.optim.AdamW, lr=0.01), rank, world_size)
        for _ in range(3):
            odd_loss(model, rank).backward()
            with torch.no_grad():  # an evaluation between backward and step
                model(torch.ones(1, 3), True)
            zero.step()
        found.append(zero.whole_parameters())
    return found


def test_odd_results_shared_layers_unused_parameters_and_one_value_on_four_ranks():
    """What a step does not use counts as a gradient of zeros, on whichever ranks it is."""
    torch.manual_seed(0)
    model = Odd()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(3):
        for rank in range(4):
            (odd_loss(model, rank) / 4).backward()
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else (
                parameter.grad
            )
        optimizer.step()
        optimizer.zero_grad()
    expected = [p.detach() for p in model.parameters()]
    for by_stage in run_ranks(odd, 4):
        for parameters in by_stage:
            assert gap(parameters, expected) < 1e-6
            assert gap(parameters, by_stage[0]) == 0.0
