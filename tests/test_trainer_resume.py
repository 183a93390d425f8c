"""A run that goes on gives the losses of one that was never stopped; what it cannot take, it says.

Runs are stopped here by taking their later checkpoints away; tests/test_trainer_processes.py kills.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.trainer_runs import log_of, train_on_ranks
from utils.recipe import TrainingRecipe
from utils.trainer.folder import checkpoints
from utils.trainer.log import LOG_NAME, TrainingLog, read_log

ALONE = TrainingRecipe()
SAVING = ("--no-memory", "--save-every", "2")


def go_back(folder: Path, step: int) -> None:
    """As if the run had been killed after `step`, while it wrote a line and saved."""
    for place in checkpoints(folder):
        if int(place.name[5:]) > step:
            place.rename(place.with_name(place.name + ".unfinished"))
    path = folder / LOG_NAME
    path.write_bytes(path.read_bytes()[:-40])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six steps of one process, saved after 4 and 6; to be looked at only."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    log_of(ALONE, folder, *SAVING)
    return folder


@pytest.fixture
def whole(finished: Path, tmp_path: Path) -> TrainingLog:
    """The same run in tmp_path / "run", to be changed."""
    shutil.copytree(finished.parent, tmp_path, dirs_exist_ok=True)
    return read_log(tmp_path / "run")


def test_the_last_two_checkpoints_are_kept(whole: TrainingLog, tmp_path: Path) -> None:
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == ["log.jsonl", "run.json", "step-000004", "step-000006"]
    assert [each["folder"] for each in whole.saved] == [f"step-00000{i}" for i in (2, 4, 6)]


@pytest.mark.parametrize(
    ("recipe", "others"),
    [
        (TrainingRecipe("fp16"), []),
        (
            TrainingRecipe(method="fsdp", num_ranks=2, batch_size=4),
            [TrainingRecipe(method="fsdp", batch_size=4, micro_batches=2)],
        ),
        (
            TrainingRecipe("bf16", method="zero2", library="ours", num_ranks=2, batch_size=4),
            [TrainingRecipe("bf16", method="zero2", library="ours")],
        ),
        (
            TrainingRecipe(method="yafsdp", library="ours", batch_size=4, micro_batches=2),
            [TrainingRecipe(method="yafsdp", library="ours", num_ranks=2, batch_size=4)],
        ),
        (
            TrainingRecipe(method="ddp", num_ranks=2, batch_size=4),
            [TrainingRecipe()],
        ),
    ],
    ids=lambda each: each.name if isinstance(each, TrainingRecipe) else f"{len(each)} others",
)  # fmt: skip
def test_going_on_is_as_if_nothing_had_happened(
    recipe: TrainingRecipe, others: list[TrainingRecipe], tmp_path: Path
) -> None:
    """Equal to the last bit on the same ranks; on others only the order of sums is another."""
    folder = tmp_path / "run"
    whole = log_of(recipe, folder, *SAVING)
    go_back(folder, 4)
    again = log_of(recipe, folder, *SAVING, "--resume")
    assert again.losses == whole.losses
    assert again.end["validation_loss"] == whole.end["validation_loss"]
    assert again.start["resumed_from"] == 4 and again.steps[-1]["tokens"] == 6 * 256
    assert [each["seconds"] for each in again.steps] == sorted(e["seconds"] for e in again.steps)
    for other in others:
        go_back(folder, 4)
        tolerance = 1e-3 if other.precision == "bf16" else 2e-6
        changed = log_of(other, folder, *SAVING, "--resume")
        assert changed.losses == pytest.approx(whole.losses, abs=tolerance)
        assert changed.start["recipe"]["num_ranks"] == other.num_ranks


def test_sequences_per_step_sets_the_micro_batches(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    four = TrainingRecipe(batch_size=2)
    whole = log_of(four, folder, *SAVING, "--sequences-per-step", 8)
    assert whole.start["recipe"]["micro_batches"] == 4
    go_back(folder, 4)
    again = log_of(replace(four, batch_size=4), folder, *SAVING, "--sequences-per-step", 8,
                   "--resume")  # fmt: skip
    assert again.losses == pytest.approx(whole.losses, abs=2e-6)


@pytest.mark.parametrize("damage", ["cut short", "about", "no checksums", "no shards"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(
    damage: str, whole: TrainingLog, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    newest = folder / "step-000006"
    if damage == "cut short":
        shard = next((newest / "shards").glob("*.distcp"))
        shard.write_bytes(shard.read_bytes()[:-100])
    elif damage == "about":
        (newest / "trainer.json").write_text('{"step": 6, "sec')
    elif damage == "no checksums":
        (newest / "shards" / "sha256.json").unlink()
    else:
        shutil.rmtree(newest / "shards")
    path = folder / LOG_NAME
    path.write_bytes(path.read_bytes()[:-40])  # the run had not finished
    (ended,) = train_on_ranks(ALONE, folder, *SAVING, "--resume")
    assert ended.code == 0
    (said,) = [line for line in ended.out.splitlines() if "moved aside" in line]
    assert said.startswith("step-000006") and said.endswith(", to step-000006.damaged.")
    log = read_log(folder)
    assert log.losses == whole.losses and log.start["resumed_from"] == 4
    assert (folder / "step-000006.damaged").is_dir() and (folder / "step-000006").is_dir()


def test_when_all_are_damaged_nothing_is_started_over(whole: TrainingLog, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for place in checkpoints(folder):
        (place / "trainer.json").unlink()
    finished_log = (folder / LOG_NAME).read_bytes()
    for before in (finished_log, finished_log[:-40]):
        (folder / LOG_NAME).write_bytes(before)
        (ended,) = train_on_ranks(ALONE, folder, *SAVING, "--resume")
        assert ended.code == 2
        assert "(step-000006/trainer.json is missing or damaged)" in ended.err
        assert (folder / LOG_NAME).read_bytes() == before
        assert len(checkpoints(folder)) == 2


@pytest.mark.parametrize("what", ["all", "shards"])
def test_a_finished_run_whose_last_checkpoint_is_empty_makes_it_again(
    what: str, whole: TrainingLog, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    emptied = folder / "step-000006" / ("" if what == "all" else "shards")
    shutil.rmtree(emptied)
    emptied.mkdir()
    (ended,) = train_on_ranks(ALONE, folder, *SAVING, "--resume")
    assert ended.code == 0 and "is finished" not in ended.out and "step-000006" in ended.out
    assert read_log(folder).losses == whole.losses and read_log(folder).is_finished


def test_a_finished_run_says_so_and_changes_nothing(whole: TrainingLog, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    before = (folder / LOG_NAME).read_bytes()
    (ended,) = train_on_ranks(ALONE, folder, *SAVING, "--resume")
    assert ended.code == 0
    assert ended.out == f"{folder} is finished: all 6 steps are done.\n"
    assert (folder / LOG_NAME).read_bytes() == before


def test_resume_begins_where_there_is_nothing(tmp_path: Path) -> None:
    """So a job script can always say --resume."""
    (ended,) = train_on_ranks(ALONE, tmp_path / "new", *SAVING, "--resume")
    assert ended.code == 0
    assert "no checkpoint to go on from: starting from the beginning" in ended.out
    assert read_log(tmp_path / "new").start["resumed_from"] is None


def test_a_run_that_saved_nothing_begins_again(whole: TrainingLog, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for place in checkpoints(folder):
        shutil.rmtree(place)
    log = log_of(ALONE, folder, *SAVING, "--resume")
    assert log.losses == whole.losses and log.start["resumed_from"] is None


def test_a_log_that_is_damaged_does_not_stop_a_run(whole: TrainingLog, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    go_back(folder, 4)
    path = folder / LOG_NAME
    lines = path.read_text().splitlines()
    lines[2] = '{"event": "step", "st'
    path.write_text("\n".join(lines))
    log = log_of(ALONE, folder, *SAVING, "--resume")
    assert [each["step"] for each in log.steps] == [1, 3, 4, 5, 6]
    assert log.losses[-2:] == whole.losses[-2:]
    assert "1 steps have no line." in log.notes
    assert json.loads(path.read_text().splitlines()[-1])["event"] == "end"
