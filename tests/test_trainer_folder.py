"""A folder that holds another run, or this one without --resume, is left as it is."""

from __future__ import annotations

import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.test_trainer_failures import small_disk
from tests.trainer_runs import call_main, log_of, train_on_ranks, words_of
from utils.recipe import TrainingRecipe
from utils.trainer.folder import write_whole
from utils.trainer.log import TrainingLog, read_log
from utils.trainer.settings import TrainerError
from utils.trainer.start import TrainingFailed, start_training

ALONE = TrainingRecipe()
SAVING = ("--no-memory", "--save-every", "2")


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


@pytest.mark.parametrize(
    ("recipe", "more", "said"),
    [
        (ALONE, (), "holds a run already: go on with --resume, or choose another --folder."),
        (replace(ALONE, precision="bf16"), ("--resume",),
         "holds another run, whose precision is fp32 and here bf16"),
        (replace(ALONE, batch_size=4), ("--resume",), 
         "whose sequences per step is 8 and here 4: give --sequences-per-step 8, or choose"),
        (replace(ALONE, method="fsdp"), ("--resume",),
         "whose method is single or ddp and here fsdp: give --method single or ddp, or choose"),
        (ALONE, ("--resume", "--steps", 7), "whose steps is 6 and here 7"),
        (ALONE, ("--resume", "--num-layers", 1), "whose num layers is 2 and here 1"),
        (ALONE, ("--resume", "--seed", 1), "whose seed is 0 and here 1: give --seed 0, or"),
        (ALONE, ("--resume", "--no-bias"), "whose bias is True and here False: give --bias, or"),
        (ALONE, ("--resume", "--ff-dim", 16), "give --ff-dim 0, or choose"),
    ],
    ids=lambda each: None if isinstance(each, str) else str(getattr(each, "name", each)),
)  # fmt: skip
def test_another_run_s_folder_is_refused(
    recipe: TrainingRecipe, more: tuple, said: str, finished: Path
) -> None:
    folder = finished
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    (ended,) = train_on_ranks(recipe, folder, "--no-memory", *more)
    assert ended.code == 2 and said in ended.err and ended.err.count("\n") == 1
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_another_text_is_another_run(whole: TrainingLog, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(text.read_text().replace("small", "large"))
    ended = call_main(words_of(ALONE, tmp_path / "run", "--resume"))
    assert ended.code == 2 and "whose text's checksum is" in ended.err
    assert "give the same --text, or choose" in ended.err


def test_a_folder_without_its_run_json_is_refused(whole: TrainingLog, tmp_path: Path) -> None:
    (tmp_path / "run" / "run.json").write_text("{")
    ended = call_main(words_of(ALONE, tmp_path / "run", "--resume"))
    assert ended.code == 2 and "nobody knows which run this is" in ended.err


def test_a_run_that_saved_nothing_may_be_begun_anew(tmp_path: Path) -> None:
    """What the sentence after a loss that is no number says, in the same folder."""
    folder = tmp_path / "run"
    (ended,) = train_on_ranks(ALONE, folder, "--no-memory", "--learning-rate", "1e25")
    assert ended.code == 2 and "lower the learning rate and start again. Nothing" in ended.err
    assert read_log(folder).losses and not read_log(folder).is_finished
    log = log_of(ALONE, folder, *SAVING)
    assert [each["step"] for each in log.steps] == [1, 2, 3, 4, 5, 6] and log.is_finished
    assert log.start["settings"]["learning_rate"] == 2e-3 and log.start["resumed_from"] is None
    assert log.notes == ["The run was begun anew."]
    assert log.losses == log_of(ALONE, tmp_path / "other", *SAVING).losses
    again = log_of(ALONE, folder, *SAVING, "--resume")  # run.json is the new run's
    assert again.losses == log.losses


def test_a_log_of_more_is_not_begun_anew(whole: TrainingLog, tmp_path: Path) -> None:
    """Somebody may keep the log of a run whose checkpoints took too much room."""
    folder = tmp_path / "run"
    for place in folder.glob("step-*"):
        shutil.rmtree(place)
    log = folder / "log.jsonl"
    for kept in (log.read_bytes(), b"another program's log\n"):
        log.write_bytes(kept)
        ended = call_main(words_of(ALONE, folder, *SAVING))
        assert ended.code == 2 and "holds a run already" in ended.err
        assert log.read_bytes() == kept


def test_a_file_of_a_run_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    path = write_whole(folder / "prediction.json", {"loss": 4.5})
    with small_disk(4_096), pytest.raises(TrainerError) as refused:
        write_whole(path, {"losses": [4.5] * 10_000})
    assert str(refused.value).startswith(f"The folder {folder} cannot be written (File too large):")
    with pytest.raises(TypeError):
        write_whole(path, {"loss": path})
    assert json.loads(path.read_text()) == {"loss": 4.5} and [*folder.iterdir()] == [path]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"),
                                   KeyboardInterrupt()])  # fmt: skip
def test_a_prediction_that_is_cut_short_leaves_the_older_one(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_whole(tmp_path / "prediction.json", {"loss": 4.5})

    def half(path: Path, text: str, encoding: str) -> None:
        path.write_bytes(text.encode()[:8])
        raise error

    monkeypatch.setattr(Path, "write_text", half)
    is_stop = isinstance(error, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt if is_stop else TrainingFailed) as ended:
        start_training(ALONE, folder=tmp_path, prediction={"loss": 3.25})
    assert is_stop or str(ended.value) == (
        f"The folder {tmp_path} cannot be written (No space left on device): choose another "
        "--folder."
    )
    assert json.loads(path.read_text()) == {"loss": 4.5} and [*tmp_path.iterdir()] == [path]


def test_a_folder_that_is_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(TrainingFailed, match=r"run cannot be written \(File exists\): choose"):
        start_training(ALONE, folder=tmp_path / "run", prediction={"loss": 3.25})
    assert (tmp_path / "run").read_text() == "mine"
