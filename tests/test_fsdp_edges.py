"""FSDP with models and uses that are not plain: tied, frozen, rootless, evaluated, in groups."""

from dataclasses import replace

import torch
from torch import nn

from tests.fsdp_runs import Way, one_process, shard, threaded, train_all, ways, whole_bytes
from tests.zero_runs import CONFIG, Case, adam, backward, gap, subgroup
from utils.model import build_gpt
from utils.ranks import TrafficLedger, run_ranks
from utils.techniques.fsdp import FullySharded
from utils.techniques.fsdp_formulas import gather_bytes, layouts_of
from utils.techniques.sharding import Sharding


def only(*names):
    """All beginnings of names in the model but these."""
    whole = [name for name, _ in Case().model().named_parameters()]
    return tuple(name for name in whole if not name.startswith(names))


BIASES = tuple(f"blocks.{i}.{part}.bias" for i in range(3) for part in (
    "attention.output", "feed_forward.narrow", "attention_norm"
))  # fmt: skip
MODELS = {
    "tied": Case(replace(CONFIG, tied_embeddings=True)),
    "tied, bf16": Case(replace(CONFIG, tied_embeddings=True), low=True),
    "a block frozen": Case(frozen=("blocks.1.",)),
    "a block frozen, bf16": Case(frozen=("blocks.1.",), low=True),
    "the beginning frozen": Case(frozen=("token", "position", "blocks.0.", "blocks.1.")),
    "the end frozen": Case(frozen=("blocks.2.", "final_norm", "output")),
    "embeddings frozen": Case(frozen=("token", "position")),
    "the root frozen": Case(frozen=("token", "position", "final_norm", "output")),
    "small ones train inside of frozen blocks": Case(frozen=only(*BIASES)),
    "the same in bf16": Case(frozen=only(*BIASES), low=True),
    "one value of a block": Case(frozen=only("blocks.1.feed_forward.narrow.bias")),
}
WAYS = [ways(prefetch=0), threaded(ways(prefetch=2)), ways(reshard_after_forward=False)]


def frozen_bytes(case, way, world_size):
    """A frozen layer is gathered for backward only if something in or before it trains."""
    model = case.model()
    options = replace(way.options, compute_bytes=case.dtype.itemsize)
    sent, trains = 0, model.token_embedding.weight.requires_grad
    for block in model.blocks:
        trains |= any(p.requires_grad for p in block.parameters())
        layers, _ = layouts_of(model, [block], world_size, is_frozen=True)
        num_gathers = 2 if trains and options.reshard_after_forward else 1
        sent += sum(num_gathers * gather_bytes(layer, options) for layer in layers)
    _, root = layouts_of(model, model.blocks, world_size, is_frozen=True)
    return sent + (gather_bytes(root, options) if root else 0)


def test_tied_and_frozen_models_equal_one_process_and_send_no_more_than_they_must():
    runs = [(case, way) for case in MODELS.values() for way in WAYS]
    found = run_ranks(train_all, 3, runs, timeout_s=120, quiet=True)[2]
    for name, case in MODELS.items():
        oracle = one_process(case, 3)
        for way in WAYS:
            mine = found.pop(0)
            assert gap(mine.parameters, oracle.parameters) == 0.0, name
            assert mine.sent == mine.expected + frozen_bytes(case, way, 3), (name, way)
            assert mine.whole == (0, 0, 0)


def no_root(rank, world_size):
    """All parameters are in layers, and none of the model's own gather anything."""
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(3)))
    FullySharded(model, list(model), Sharding(rank, world_size))
    with TrafficLedger() as ledger:
        model(torch.ones(2, 4)).sum().backward()
    return ledger.calls["all_gather"]


def test_a_model_without_a_root_gathers_each_layer_twice():
    assert run_ranks(no_root, 2, quiet=True) == [6, 6]


def evaluate(rank, world_size):
    """Losses without gradients, in two modes and both ways of resharding, between two steps."""
    found = []
    for way in (Way(), threaded(ways(reshard_after_forward=False, prefetch=2))):
        case = Case()
        model, plain = case.model(), case.model()
        fsdp = shard(model, rank, world_size, case, way)
        optimizer = adam(fsdp.parameters())
        for batch in case.batches()[:2]:
            for mode in (torch.no_grad, torch.inference_mode):
                with mode():
                    for mine, each in zip(fsdp.whole_parameters(), plain.parameters(), strict=True):
                        each.copy_(mine)
                    tokens_BT = batch[0]
                    found.append(torch.equal(model(tokens_BT), plain(tokens_BT)))
                found.append(whole_bytes(fsdp) == 0)
            backward(model, batch, rank, world_size, 1)
            optimizer.step()
            optimizer.zero_grad()
    return found


def test_an_evaluation_sees_the_newest_weights_and_leaves_none():
    assert run_ranks(evaluate, 2, quiet=True) == [[True] * 16] * 2


def in_subgroups(rank, world_size):
    members = [[0, 3], [1, 2]]
    groups = [subgroup(rank, world_size, each) for each in members]
    mine = next(i for i, group in enumerate(groups) if group is not None)
    case, model = Case(), build_gpt(CONFIG, seed=rank)
    place = members[mine].index(rank)
    fsdp = FullySharded(model, model.blocks, Sharding(place, 2, groups[mine]))
    optimizer = adam(fsdp.parameters())
    for batch in case.batches():
        backward(model, batch, place, 2, 1)
        optimizer.step()
        optimizer.zero_grad()
    return fsdp.whole_parameters()


def as_rank_1(model):
    model.load_state_dict(build_gpt(CONFIG, seed=1).state_dict())


def test_groups_of_ranks_train_beside_each_other():
    oracle = one_process(Case(), 2)
    # Ranks 0 and 1 come first in their groups, so each group has its own weights.
    second = one_process(Case(change=as_rank_1), 2)
    found = run_ranks(in_subgroups, 4, quiet=True)
    assert [gap(found[rank], oracle.parameters) for rank in (0, 3)] == [0.0, 0.0]
    assert [gap(found[rank], second.parameters) for rank in (1, 2)] == [0.0, 0.0]
