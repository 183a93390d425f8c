"""Checkpoints of sharded training: written on N ranks, read on M, bit for bit."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from tests.zero_runs import CONFIG, STAGES, Case, adam, backward, gap
from utils.ranks import run_ranks
from utils.techniques.zero_checkpoint import cut, load_shards, newest, save_shards

CASES = {"fp32": Case(), "bf16": Case(low=True)}
SAVED_STEP = 2
KEYS = ("master", "exp_avg", "exp_avg_sq", "step")


def sharded(case, stage, rank, world_size, seed=0, make_optimizer=adam):
    model = case.model(seed=seed)
    kind = STAGES[stage]
    return kind(model, model.blocks, make_optimizer, rank, world_size, dtype=case.dtype)


def go_on(zero, rank, world_size, batches):
    losses = []
    for batch in batches:
        losses.append(backward(zero.model, batch, rank, world_size, 1))
        zero.step()
    return torch.stack(losses) if losses else None


def state_of(zero):
    """This rank's shards: for each unit the values of KEYS."""
    found = []
    for unit in zero.units:
        state = {"master": unit.master_S.detach(), **zero.optimizer.state[unit.master_S]}
        found.append([state[key].clone() for key in KEYS])
    return found


def write(rank, world_size, folder):
    """Train, save, train on."""
    found = {}
    for name, case in CASES.items():
        zero = sharded(case, 1 + world_size % 3, rank, world_size)
        go_on(zero, rank, world_size, case.batches()[:SAVED_STEP])
        save_shards(zero, folder / name, SAVED_STEP)
        state = state_of(zero)
        losses = go_on(zero, rank, world_size, case.batches()[SAVED_STEP:])
        found[name] = state, losses, zero.whole_parameters()
    return found


def read(rank, world_size, folders, stage):
    """Load each checkpoint into other weights, and train on from there."""
    found = []
    for folder in folders:
        found.append({})
        for name, case in CASES.items():
            zero = sharded(case, stage, rank, world_size, seed=7)
            # Everything that is there must go: moments, and a gradient that was not used.
            go_on(zero, rank, world_size, case.batches()[:1])
            backward(zero.model, case.batches()[0], rank, world_size, 1)
            step = load_shards(zero, newest(folder / name))
            state = state_of(zero)
            losses = go_on(zero, rank, world_size, case.batches()[step:])
            found[-1][name] = state, losses, zero.whole_parameters()
    return found


def put_together(by_rank, num_values):
    """Whole tensors of every unit from the shards of all ranks; padding must be zero."""
    whole = []
    for number, size in enumerate(num_values):
        shards = [state[number] for state in by_rank]
        flat = [torch.cat([each[key] for each in shards]) for key in range(3)]
        assert all(each[size:].eq(0).all() for each in flat)
        assert {each[3].item() for each in shards} == {float(SAVED_STEP)}
        whole.append([each[:size] for each in flat])
    return whole


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders by the number of ranks that wrote there, and what the writers had."""
    root = tmp_path_factory.mktemp("Läufe mit λ und Leerzeichen")
    folders = {n: root / f"{n} ranks" for n in (1, 2, 3, 4)}
    return folders, {n: run_ranks(write, n, folder) for n, folder in folders.items()}


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_what_any_number_of_ranks_wrote_any_number_reads(saved, world_size):
    folders, written = saved
    stage = 1 + (world_size + 1) % 3
    by_rank = run_ranks(read, world_size, list(folders.values()), stage, timeout_s=120)
    sizes = [4085, 4085, 4085, 1494]
    for place, num_writers in enumerate(folders):
        for name, case in CASES.items():
            theirs = put_together([each[name][0] for each in written[num_writers]], sizes)
            mine = put_together([each[place][name][0] for each in by_rank], sizes)
            for a, b in zip(mine, theirs, strict=True):
                assert all(map(torch.equal, a, b))
            losses = torch.stack([each[place][name][1] for each in by_rank]).mean(0)
            expected = torch.stack([each[name][1] for each in written[num_writers]]).mean(0)
            torch.testing.assert_close(losses, expected, rtol=0, atol=2e-2 if case.low else 1e-6)
            distance = gap(by_rank[0][place][name][2], written[num_writers][0][name][2])
            same = num_writers == world_size
            assert distance == 0.0 if same else distance < (2e-2 if case.low else 1e-4)


def test_a_file_holds_this_ranks_shards_and_nothing_more(saved):
    for num_ranks, folder in saved[0].items():
        place = newest(folder / "fp32")
        assert place.name == "step-000002"
        files = sorted(each.name for each in place.iterdir())
        assert files == ["manifest.json", *(f"rank-{r:04d}.0.pt" for r in range(num_ranks))]
        values = sum(-(-size // num_ranks) for size in (4085, 4085, 4085, 1494))
        for path in place.glob("*.pt"):
            assert 12 * values < path.stat().st_size < 12 * values + 20_000


def momentum(parameters, momentum=0.9):
    return torch.optim.SGD(parameters, lr=0.1, momentum=momentum)


def others(rank, world_size, folder):
    """Frozen weights, buffers, and optimizers with less state or none yet."""
    gaps = []
    frozen = Case(replace(CONFIG, attention="explicit"), frozen=("blocks.1.", "token"), low=True)
    for number, (make, num_steps) in enumerate(
        [(adam, 1), (adam, 0), (momentum, 1), (partial(momentum, momentum=0), 1)]
    ):
        zero = sharded(frozen, 2, rank, world_size, 0, make)
        again = sharded(frozen, 3, rank, world_size, 5, make)
        for each, value in ((zero, 3.0), (again, 4.0)):
            each.model.blocks[0].register_buffer("seen", torch.full((2,), value))
        go_on(zero, rank, world_size, frozen.batches()[:num_steps])
        place = save_shards(zero, folder / str(number), 1_000_000 + num_steps)
        assert load_shards(again, place) == 1_000_000 + num_steps
        gaps.append(gap(again.whole_parameters(), zero.whole_parameters()))
        for each in (zero, again):
            go_on(each, rank, world_size, frozen.batches()[num_steps:])
        gaps.append(gap(again.whole_parameters(), zero.whole_parameters()))
        assert again.model.blocks[0].seen.tolist() == [3.0, 3.0]
    return gaps


def test_frozen_weights_buffers_and_other_optimizers(tmp_path):
    assert run_ranks(others, 2, tmp_path) == [[0.0] * 8] * 2


def test_the_newest_has_the_highest_step_also_with_seven_digits(tmp_path):
    for step in (999_999, 1_000_000, 3):
        place = tmp_path / f"step-{step:06d}"
        place.mkdir()
        (place / "manifest.json").write_text(f'{{"format": 1, "step": {step}, "files": []}}')
    (tmp_path / "step-2000000").mkdir()  # not finished
    assert newest(tmp_path).name == "step-1000000"


def test_cut_takes_the_ranges_that_overlap():
    whole = torch.arange(1.0, 11.0)  # ten values, in pieces of 4 with padding of 9
    pieces = [(0, whole[:4]), (4, whole[4:8]), (8, torch.tensor([9.0, 10.0, 9.0, 9.0]))]
    assert cut(pieces, 3, 3, 10).tolist() == [4, 5, 6]
    assert cut(pieces, 0, 10, 10).tolist() == whole.tolist()
    assert cut(pieces, 8, 5, 10).tolist() == [9, 10, 0, 0, 0]
    assert cut(pieces, 12, 2, 10).tolist() == [0, 0]
