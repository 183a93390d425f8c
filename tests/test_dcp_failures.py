"""Distributed checkpoints: a rank that dies, a full disk, other models, damaged files."""

import os
from dataclasses import replace

import pytest
import torch
from torch.distributed.checkpoint import FileSystemWriter
from torch.distributed.device_mesh import init_device_mesh

from tests.test_dcp import load_flat, save_flat
from utils.config import GPTConfig
from utils.model import build_gpt
from utils.peers.dcp import (
    UNFINISHED,
    flat_shard,
    load_sharded,
    load_training,
    newest_sharded,
    save_sharded,
    save_training,
)
from utils.ranks import RankError, run_ranks
from utils.techniques.zero_checkpoint import CheckpointError

CONFIG = GPTConfig(2, 2, 30, 16, 50)


def plain_model(config=CONFIG):
    model = build_gpt(config, seed=1)
    return model, torch.optim.AdamW(model.parameters())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Of a plain model, by one process."""
    return save_training(*plain_model(), tmp_path_factory.mktemp("saved") / "step-000003")


def die_while_writing(rank, world_size, folder):
    """Rank 1 has written its file when it is gone, and nobody else knows."""
    if rank == 1:
        write = FileSystemWriter.write_data

        def write_and_die(self, *arguments):
            write(self, *arguments).wait()
            os._exit(9)

        FileSystemWriter.write_data = write_and_die
    mesh = init_device_mesh("cpu", (world_size,))
    save_sharded({"flat": flat_shard(torch.full((4,), 2.0), 8, mesh)}, folder)


def test_a_rank_that_dies_leaves_the_one_before_intact(tmp_path):
    run_ranks(save_flat, 2, tmp_path / "step-000001", 8, quiet=True)
    with pytest.raises(RankError, match="rank 1"):
        run_ranks(die_while_writing, 2, tmp_path / "step-000002", quiet=True)
    assert {path.name for path in tmp_path.iterdir()} == {
        "step-000001",
        "step-000002" + UNFINISHED,
    }
    assert newest_sharded(tmp_path).name == "step-000001"
    whole = run_ranks(load_flat, 1, newest_sharded(tmp_path), 8, quiet=True)[0]
    assert torch.equal(whole, torch.arange(8.0))
    run_ranks(save_flat, 2, tmp_path / "step-000002", 8, quiet=True)  # clears what was left
    assert newest_sharded(tmp_path).name == "step-000002"
    assert len(list(tmp_path.iterdir())) == 2


def fail_while_writing(rank, world_size, folder):
    """A full disk on one rank."""

    def full(*_):
        raise OSError(28, "No space left on device")

    if rank == 1:
        FileSystemWriter.write_data = full
    try:
        save_flat(rank, world_size, folder, 8)
    except CheckpointError as error:
        return str(error)


def test_a_rank_that_cannot_write_fails_all_of_them_in_words(tmp_path):
    messages = run_ranks(fail_while_writing, 2, tmp_path / "full", quiet=True)
    assert messages[0] == messages[1] and "No space left on device" in messages[0]
    assert not (tmp_path / "full").exists()


def test_an_existing_checkpoint_is_never_written_over(tmp_path):
    state = {"x": torch.ones(3)}
    save_sharded(state, tmp_path / "one")
    with pytest.raises(CheckpointError, match="one exists already: give each save a folder"):
        save_sharded({"x": torch.zeros(3)}, tmp_path / "one")
    load_sharded(state, tmp_path / "one")
    assert torch.equal(state["x"], torch.ones(3))


@pytest.mark.parametrize(
    "config, words",
    [
        (replace(CONFIG, num_layers=3), r"blocks.2.\S+ is missing there and \(30,\) here"),
        (replace(CONFIG, num_layers=1), r"blocks.1.\S+ is \(30,\) there and missing here"),
        (replace(CONFIG, vocab_size=49), r"token_embedding\S+ is \(50, 30\) there and \(49, 30\)"),
    ],
)
def test_another_model_is_told_apart_and_nothing_is_loaded(checkpoint, config, words):
    model, optimizer = plain_model(config)
    before = [each.detach().clone() for each in model.parameters()]
    with pytest.raises(CheckpointError, match="step-000003 is of another model: .*" + words):
        load_training(model, optimizer, checkpoint)
    assert all(map(torch.equal, before, model.parameters()))


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [cut_short, flip_a_byte, os.remove])
@pytest.mark.parametrize("name", ["__1_0.distcp", ".metadata"])
def test_a_damaged_file_is_named_before_anything_changes(tmp_path, damage, name):
    folder = tmp_path / "step-000001"
    run_ranks(save_flat, 2, folder, 8, quiet=True)
    damage(folder / name)
    with pytest.raises(RankError) as caught:
        run_ranks(load_flat, 2, folder, 8, quiet=True)
    assert f"step-000001/{name} is missing, cut short or damaged" in str(caught.value)


def test_a_folder_without_a_checkpoint(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(CheckpointError, match="is no finished checkpoint: take the one before"):
            load_sharded({"x": torch.ones(1)}, folder)
        with pytest.raises(CheckpointError, match="holds no finished checkpoint"):
            newest_sharded(folder)
