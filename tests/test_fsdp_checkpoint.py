"""FSDP saved with torch's distributed checkpoint on some ranks and loaded on others."""

import pytest
import torch

from tests.fsdp_runs import Way, micro_batches, one_backward, shard
from tests.zero_runs import CONFIG, Case, adam, gap
from utils.peers.dcp import newest_sharded
from utils.ranks import run_ranks
from utils.techniques.fsdp_checkpoint import load_fsdp, save_fsdp
from utils.techniques.zero_checkpoint import CheckpointError

FROZEN = Case(frozen=("blocks.1.attention.", "position"))
HYBRID = Way(num_sharing=2)
CASES = {"plain": (Case(), Way()), "frozen": (FROZEN, Way()), "low": (Case(low=True), Way())}


def step(model, fsdp, optimizer, batch, rank, world_size):
    (part,) = micro_batches(batch, rank, world_size, Case())
    loss = one_backward(model, part, Case())
    optimizer.step()
    optimizer.zero_grad()
    torch.distributed.all_reduce(loss)
    return loss.item() / world_size


def train_and_save(rank, world_size, parent, case, way):
    """A step, a save, and the losses of two more steps."""
    model = case.model(seed=rank)
    fsdp = shard(model, rank, world_size, case, way)
    optimizer = adam(fsdp.parameters())
    first, *others = case.batches()
    step(model, fsdp, optimizer, first, rank, world_size)
    save_fsdp(fsdp, optimizer, parent, 1)
    saved = fsdp.whole_parameters()
    return saved, [step(model, fsdp, optimizer, each, rank, world_size) for each in others]


def load_and_train(rank, world_size, parent, case, way):
    """The same from the save, after a step of its own that is to be forgotten."""
    model = case.model(seed=5 + rank)
    fsdp = shard(model, rank, world_size, case, way)
    optimizer = adam(fsdp.parameters())
    if world_size == 1:
        step(model, fsdp, optimizer, case.batches()[0], rank, world_size)
    number = load_fsdp(fsdp, optimizer, newest_sharded(parent))
    loaded = fsdp.whole_parameters()
    others = case.batches()[1:]
    losses = [step(model, fsdp, optimizer, each, rank, world_size) for each in others]
    return loaded, losses, number, [group["lr"] for group in optimizer.param_groups]


@pytest.mark.parametrize("name", CASES)
def test_saved_on_four_ranks_loaded_on_two_and_on_one(tmp_path, name):
    case, way = CASES[name]
    saved, losses = run_ranks(train_and_save, 4, tmp_path, case, way, quiet=True)[0]
    for world_size in (2, 1):
        found = run_ranks(load_and_train, world_size, tmp_path, case, way, quiet=True)
        for loaded, mine, number, rates in found:
            assert gap(loaded, saved) == 0.0 and number == 1 and rates == [1e-2]
            assert mine == pytest.approx(losses, abs=2e-3 if case.low else 2e-6)


def test_hybrid_shards_are_saved_once_and_loaded_by_all(tmp_path):
    saved, losses = run_ranks(train_and_save, 4, tmp_path, Case(), HYBRID, quiet=True)[0]
    found = run_ranks(load_and_train, 4, tmp_path, Case(), HYBRID, quiet=True)
    found += run_ranks(load_and_train, 3, tmp_path, Case(), Way(), quiet=True)
    for loaded, mine, _, _ in found:
        assert gap(loaded, saved) == 0.0 and mine == pytest.approx(losses, abs=2e-6)


def refused(rank, world_size, place, case, make_optimizer):
    model = case.model()
    fsdp = shard(model, rank, world_size, case, Way())
    optimizer, before = make_optimizer(fsdp.parameters()), fsdp.whole_parameters()
    try:
        load_fsdp(fsdp, optimizer, place)
    except CheckpointError as error:
        assert gap(before, fsdp.whole_parameters()) == 0.0 and not optimizer.state
        return str(error)


def momentum(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)


def test_what_does_not_fit_is_refused_on_all_ranks_and_changes_nothing(tmp_path):
    run_ranks(train_and_save, 2, tmp_path, Case(), Way(), quiet=True)
    place = newest_sharded(tmp_path)
    other = Case(config=type(CONFIG)(3, 2, 20, 7, 37, ff_dim=71))
    for case, make_optimizer in ((other, adam), (FROZEN, adam), (Case(), momentum)):
        first, second = run_ranks(refused, 2, place, case, make_optimizer, quiet=True)
        assert first == second and "is of another model" in first
    torn = sorted(place.glob("*.distcp"))[0]
    torn.write_bytes(torn.read_bytes()[:-100])
    for message in run_ranks(refused, 2, place, Case(), adam, quiet=True):
        assert "is missing, cut short or damaged" in message
    for message in run_ranks(refused, 2, tmp_path / "nothing", Case(), adam, quiet=True):
        assert "is no finished checkpoint" in message
