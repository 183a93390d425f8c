"""A full disk, a loss that is no number, Ctrl-C, no memory: the last good checkpoint is kept."""

from __future__ import annotations

import errno
import json
import math
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.trainer_runs import Ended, call_main, train_on_ranks, words_of
from utils.ranks import run_ranks
from utils.recipe import TrainingRecipe
from utils.trainer import state
from utils.trainer.folder import checkpoints
from utils.trainer.log import read_log
from utils.trainer.loop import Loop

ALONE = TrainingRecipe()
ON_TWO = TrainingRecipe(method="zero1", library="ours", num_ranks=2, batch_size=4)
SAVING = ("--no-memory", "--save-every", "2")


@contextmanager
def small_disk(largest_file_bytes: int) -> Iterator[None]:
    """No file of this process can grow beyond that: every writer meets an OSError."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("recipe", [ALONE, replace(ALONE, method="zero1", library="ours"),
                                    replace(ALONE, method="fsdp", library="ours")],
                         ids=lambda recipe: recipe.name)  # fmt: skip
def test_a_disk_that_is_full_while_saving_leaves_the_checkpoint_before(
    recipe: TrainingRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    plain, limited = state._save_system, []

    def save(system: object, unfinished: Path, step: int) -> None:
        limited.append(step)
        with small_disk(2**30 if len(limited) == 1 else 100_000):
            plain(system, unfinished, step)

    monkeypatch.setattr(state, "_save_system", save)
    (ended,) = train_on_ranks(recipe, folder, *SAVING)
    assert ended.code == 2
    assert "Step 4 could not be saved (" in ended.err
    assert "step-000002 is complete: --resume goes on from it." in ended.err
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["log.jsonl", "run.json", "step-000002"]
    stopped = read_log(folder)
    assert len(stopped.losses) == 4 and "Step 4 could not be saved" in stopped.notes[0]
    monkeypatch.undo()
    (ended,) = train_on_ranks(recipe, folder, *SAVING, "--resume")
    assert ended.code == 0 and len(read_log(folder).losses) == 6
    (ended,) = train_on_ranks(recipe, tmp_path / "whole", *SAVING)
    assert read_log(folder).losses == read_log(tmp_path / "whole").losses


def test_one_rank_whose_disk_is_full_stops_all(tmp_path: Path) -> None:
    ended = run_ranks(_full_on_rank_1, 2, words_of(ON_TWO, tmp_path / "run", *SAVING), quiet=True)
    assert [each.code for each in ended] == [2, 2]
    assert "Step 2 could not be saved (rank 1: " in ended[0].err
    assert "Nothing had been saved before." in ended[0].err
    assert checkpoints(tmp_path / "run") == []


def _full_on_rank_1(rank: int, world_size: int, words: list[str]) -> Ended:
    with small_disk(20_000 if rank else 2**30):
        return call_main(words)


def test_a_log_that_does_not_fit_ends_the_run(tmp_path: Path) -> None:
    words = words_of(ALONE, tmp_path / "run", "--no-memory", "--steps", "60")
    with small_disk(3_000):
        ended = call_main(words)
    assert ended.code == 2 and "log.jsonl cannot be written" in ended.err
    log = read_log(tmp_path / "run")
    assert 0 < len(log.losses) < 60 and log.notes == []


def test_a_writer_without_space_says_what_the_system_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(state, "save_training", save)
    (ended,) = train_on_ranks(ALONE, tmp_path / "run", *SAVING)
    assert ended.code == 2 and "No space left on device" in ended.err


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    more = ("--no-memory", "--save-every", "1", "--learning-rate", "1e25")
    (ended,) = train_on_ranks(ALONE, folder, *more)
    assert ended.code == 2
    assert "lower the learning rate and start again in another --folder. step-" in ended.err
    log = read_log(folder)
    assert log.losses and all(map(math.isfinite, log.losses)) and log.end is None
    assert len(checkpoints(folder)) == min(2, len(log.losses))
    assert "no number any more" in log.notes[0]


def test_weights_that_are_no_numbers_are_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = torch.optim.AdamW.step
    num_steps = []

    def step(optimizer: torch.optim.AdamW, *arguments: object) -> None:
        plain(optimizer, *arguments)
        num_steps.append(1)
        if len(num_steps) == 4:
            optimizer.param_groups[0]["params"][3].data[0] = float("inf")

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    (ended,) = train_on_ranks(ALONE, tmp_path / "run", *SAVING)
    assert ended.code == 2 and "Weights after step 4 are no numbers any more" in ended.err
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["step-000002"]


def test_ctrl_c_before_anything_is_saved_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(loop: Loop) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(Loop, "run", run)
    (ended,) = train_on_ranks(ALONE, tmp_path / "run", *SAVING)
    assert ended.code == 130 and "--resume" not in ended.err
    assert "nothing had been saved, so the same command starts again." in ended.err
    monkeypatch.undo()
    (ended,) = train_on_ranks(ALONE, tmp_path / "run", *SAVING)
    assert ended.code == 0 and len(read_log(tmp_path / "run").losses) == 6


def test_ctrl_c_says_where_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = state._save_system

    def save(system: object, unfinished: Path, step: int) -> None:
        plain(system, unfinished, step)
        if step == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(state, "_save_system", save)
    (ended,) = train_on_ranks(ALONE, tmp_path / "run", *SAVING)
    assert ended.code == 130 and "--resume goes on" in ended.err
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["step-000002"]
    monkeypatch.undo()
    (ended,) = train_on_ranks(ALONE, tmp_path / "run", *SAVING, "--resume")
    assert ended.code == 0 and len(read_log(tmp_path / "run").losses) == 6
    last = (tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["event"] == "end"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    ],
)
def test_what_does_not_fit_into_memory_is_said(
    error: RuntimeError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(loop: Loop) -> float:
        raise error

    monkeypatch.setattr(Loop, "run", run)
    (ended,) = train_on_ranks(ALONE, tmp_path / "run", *SAVING)
    assert (
        ended.code == 2 and "rank 0: The recipe does not fit into this rank's memory" in ended.err
    )


def test_an_error_of_the_program_is_not_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(loop: Loop) -> float:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(Loop, "run", run)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        train_on_ranks(ALONE, tmp_path / "run", *SAVING)
