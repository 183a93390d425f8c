"""Checkpoints that cannot be written or read: a sentence on every rank, and nothing lost."""

import json
import os

import pytest
import torch

from tests.test_zero_checkpoint import go_on, momentum, sharded
from tests.zero_runs import CONFIG, Case, gap
from utils.config import GPTConfig
from utils.ranks import RankError, run_ranks
from utils.techniques import zero_checkpoint
from utils.techniques.shard_files import read_manifest, write_file
from utils.techniques.zero_checkpoint import CheckpointError, load_shards, newest, save_shards


def save(rank, world_size, folder, num_steps=1, step=1):
    zero = sharded(Case(), 2, rank, world_size)
    go_on(zero, rank, world_size, Case().batches()[:num_steps])
    save_shards(zero, folder, step)
    return zero.whole_parameters()


def load(rank, world_size, place):
    zero = sharded(Case(), 2, rank, world_size, seed=3)
    load_shards(zero, place)
    return zero.whole_parameters()


def refused(rank, world_size, place, case=None, make_optimizer=None):
    """The message of a load that fails, after which nothing has changed."""
    options = {"make_optimizer": make_optimizer} if make_optimizer else {}
    zero = sharded(case or Case(), 2, rank, world_size, **options)
    go_on(zero, rank, world_size, (case or Case()).batches()[:1])
    before = zero.whole_parameters()
    with pytest.raises(CheckpointError) as caught:
        load_shards(zero, place)
    assert gap(zero.whole_parameters(), before) == 0.0
    return str(caught.value)


def message(place, *args):
    first, second = run_ranks(refused, 2, place, *args)
    assert first == second  # every rank says the same
    return first


@pytest.fixture
def place(tmp_path):
    run_ranks(save, 2, tmp_path)
    return newest(tmp_path)


def test_torn_flipped_and_missing_files(place):
    path = place / "rank-0001.0.pt"
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    expected = f"rank 0: {path} is missing or cut short: take the checkpoint before it."
    assert message(place) == expected
    path.unlink()
    assert message(place) == expected
    path.write_bytes(content[:5000] + bytes([content[5000] ^ 1]) + content[5001:])
    assert message(place) == f"rank 0: {path} is damaged: take the checkpoint before it."


def test_no_manifest_a_torn_one_and_one_of_another_version(place, tmp_path):
    manifest = place / "manifest.json"
    text = manifest.read_text()
    for content in (text[:-20], "[]", "{}"):
        manifest.write_text(content)
        assert message(place) == (
            f"rank 0: {place} is no finished checkpoint: take the one before it."
        )
        with pytest.raises(CheckpointError, match="holds no finished checkpoint: start from the"):
            newest(tmp_path)
    manifest.write_text(json.dumps({**json.loads(text), "format": 2}))
    assert message(place).endswith(
        "has format 2, and this version reads format 1: use the version that wrote it."
    )
    with pytest.raises(RankError, match="has format 2"):  # and nobody writes over it
        run_ranks(save, 2, tmp_path)
    assert len(list(place.iterdir())) == 3


def test_another_model_or_optimizer(place):
    deeper, wider = (GPTConfig(4, 2, 18, 7, 37, ff_dim=71), GPTConfig(3, 2, 20, 7, 37, ff_dim=71))
    head = f"rank 0: {place} is of another training: "
    assert message(place, Case(deeper)) == (
        head + "blocks.3.attention_norm.weight is missing there and [18] here."
    )
    assert message(place, Case(wider)) == (
        head + "blocks.0.attention_norm.weight is [18] there and [20] here."
    )
    assert message(place, Case(CONFIG, frozen=("blocks.0.",))) == (
        head + "its layers are cut into other units, or others are frozen."
    )
    assert message(place, Case(), momentum) == head + "its optimizer is AdamW there and SGD here."


def strange(parameters):
    optimizer = torch.optim.AdamW(parameters)
    optimizer.state[parameters[0]]["table"] = torch.zeros(3, 3)
    return optimizer


def cannot_save(rank, world_size, folder, make_optimizer=None):
    options = {"make_optimizer": make_optimizer} if make_optimizer else {}
    zero = sharded(Case(), 1, rank, world_size, **options)
    with pytest.raises(CheckpointError) as caught:
        save_shards(zero, folder, 1)
    return str(caught.value)


def test_where_nobody_can_write(tmp_path):
    file = tmp_path / "a file"
    file.write_text("kept")
    for text in run_ranks(cannot_save, 2, file):
        assert text.startswith(f"rank 0: {file / 'step-000001'}") and "(Not a directory)" in text
        assert text.endswith("choose a folder that all ranks can write to.")
    assert file.read_text() == "kept"
    for text in run_ranks(cannot_save, 2, tmp_path / "b", strange):
        assert text.startswith("rank 0: The optimizer's table has not one value for each weight")
    assert not list(tmp_path.rglob("*.pt"))


def fail_while_saving(rank, world_size, folder, step, how):
    """Rank 1 writes half of its file and then dies, or finds the disk full."""
    zero_checkpoint.write_file = partly(how) if rank == 1 else write_file
    save(rank, world_size, folder, 2, step)


def partly(how):
    def write(place, rank, attempt, content):
        path = place / f"rank-{rank:04d}.{attempt}.pt"
        place.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half of it")
        if how == "die":
            os._exit(7)
        path.unlink()
        raise OSError(28, "No space left on device")

    return write


@pytest.mark.parametrize(
    "how, words, step",
    [("die", "exit code 7", 1), ("die", "exit code 7", 2), ("full", "No space left", 1)],
)
def test_a_save_that_fails_leaves_the_previous_one(tmp_path, how, words, step):
    """Also when it was to replace that very step."""
    before = run_ranks(save, 2, tmp_path)[0]
    with pytest.raises(RankError, match=words):
        run_ranks(fail_while_saving, 2, tmp_path, step, how)
    assert newest(tmp_path).name == "step-000001"
    assert gap(run_ranks(load, 3, newest(tmp_path))[2], before) == 0.0
    after = run_ranks(save, 2, tmp_path, 2, step)[0]  # and the next save is as if nothing was
    assert newest(tmp_path).name == f"step-00000{step}"
    assert gap(run_ranks(load, 2, newest(tmp_path))[0], after) == 0.0
    assert gap(before, after) > 0
    assert len(list(newest(tmp_path).iterdir())) == 3


def test_saving_a_step_again_replaces_it_whatever_the_number_of_ranks(tmp_path):
    run_ranks(save, 3, tmp_path)
    after = run_ranks(save, 2, tmp_path, 2)[0]
    place = newest(tmp_path)
    assert read_manifest(place)["attempt"] == 1
    files = sorted(each.name for each in place.iterdir())
    assert files == ["manifest.json", "rank-0000.1.pt", "rank-0001.1.pt"]
    assert gap(run_ranks(load, 1, place)[0], after) == 0.0


def test_a_file_that_fails_half_way_is_removed(tmp_path, monkeypatch):
    def half(content, path):
        path.write_bytes(b"half")
        raise RuntimeError("the disk is full")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(CheckpointError, match=r"cannot be written \(the disk is full\): choose"):
        write_file(tmp_path / "step", 0, 0, {})
    assert not list((tmp_path / "step").iterdir())
