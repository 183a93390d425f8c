"""The trainer as processes: torchrun, kill -9, a notebook that goes, Ctrl-C.

Each start imports torch in every process, so there are few of them, and each shows several things.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.trainer_runs import log_of, words_of, write_text
from utils.config import GPTConfig
from utils.recipe import TrainingRecipe
from utils.trainer.command import ERROR
from utils.trainer.log import Event, TrainingLog, read_log
from utils.trainer.process import ROOT
from utils.trainer.start import TrainingFailed, command_words, start_training

ON_TWO = TrainingRecipe(method="fsdp", num_ranks=2, batch_size=4)
CONFIG = GPTConfig(num_layers=2, num_heads=2, model_dim=32, context_length=32)
LONG = ("--no-memory", "--steps", "60", "--save-every", "5")
ENDLESS = (*LONG, "--steps", "100000")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
LIMIT_S = 90


def wait_for(is_so: object, what: str) -> None:
    end_s = time.monotonic() + LIMIT_S
    while not is_so():
        assert time.monotonic() < end_s, f"{what} did not happen within {LIMIT_S} s"
        time.sleep(0.02)


def num_saved(folder: Path) -> int:
    try:
        return len(read_log(folder).saved)
    except (OSError, ValueError):
        return 0


def ranks_below(pid: int) -> list[psutil.Process]:
    """The processes that train: those of this module's command which have a number."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sorted(
        (each for each in processes if "RANK" in each.environ()),
        key=lambda each: each.environ()["RANK"],
    )


def is_gone(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> TrainingLog:
    """The run that nobody kills."""
    return log_of(ON_TWO, tmp_path_factory.mktemp("whole") / "run", *LONG)


@pytest.mark.parametrize("victim", ["a rank", pytest.param("torchrun", marks=pytest.mark.slow)])
def test_a_run_that_is_killed_goes_on_with_the_same_losses(
    victim: str, whole: TrainingLog, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    words = words_of(ON_TWO, folder, *LONG)
    torchrun = command_words(ON_TWO, folder=folder)
    torchrun = [*torchrun[: torchrun.index("utils.train") + 1], *words]
    agent = subprocess.Popen(
        torchrun, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        wait_for(lambda: num_saved(folder) > 0, "a checkpoint")
        ranks = ranks_below(agent.pid)
        wait_for(lambda: num_saved(folder) > 1, "two checkpoints")
        assert [each.environ()["RANK"] for each in ranks] == ["0", "1"]
        (ranks[1] if victim == "a rank" else agent).kill()
        output, _ = agent.communicate(timeout=LIMIT_S)
    finally:
        agent.kill()
    assert agent.returncode != 0
    wait_for(lambda: all(map(is_gone, ranks)), "the end of all ranks")
    assert "Traceback" not in output.split("torch/distributed")[0]
    killed = read_log(folder)
    assert not killed.is_finished and len(killed.losses) < 60
    again = log_of(ON_TWO, folder, *LONG, "--resume")
    assert again.losses == whole.losses and again.start["resumed_from"] >= 10 - 5
    assert again.end["validation_loss"] == whole.end["validation_loss"]


def test_start_training_returns_the_log_and_tells_of_each_event(
    tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    text, folder = write_text(tmp_path / "text.txt"), tmp_path / "a run"
    options = ("--steps", "6", "--save-every", "4", "--no-memory")
    told: list[Event] = []
    log = start_training(
        TrainingRecipe(), *options, folder=folder, config=CONFIG, text=text, report=told.append,
        prediction={"loss": 4.5},
    )  # fmt: skip
    assert log.start["prediction"] == {"loss": 4.5}
    assert [each["event"] for each in told] == [
        "start", *["step"] * 4, "saved", *["step"] * 2, "saved", "validation", "end"
    ]  # fmt: skip
    assert [each["loss"] for each in told if each["event"] == "step"] == log.losses
    assert log.is_finished and GPTConfig(**log.start["config"]) == CONFIG
    assert {path.name for path in tmp_path.iterdir()} == {"text.txt", "a run"}
    assert capfd.readouterr() == ("", "")


def test_start_training_hands_on_the_trainer_s_sentence(tmp_path: Path) -> None:
    text = write_text(tmp_path / "text.txt")
    with pytest.raises(TrainingFailed) as failed:
        start_training(ON_TWO, "--chip", "H1000", folder=tmp_path / "run", text=text)
    assert str(failed.value).startswith("There is no chip 'H1000'; the known ones are:")
    assert failed.value.output.count(ERROR) == 1


def test_a_report_that_raises_ends_all_ranks(tmp_path: Path) -> None:
    """As Ctrl-C does, which is an exception in the same place."""
    text, seen = write_text(tmp_path / "text.txt"), []
    before = set(psutil.Process().children())  # the server of run_ranks

    def report(event: Event) -> None:
        if event["event"] == "saved":
            (agent,) = set(psutil.Process().children()) - before
            seen.extend([agent, *ranks_below(agent.pid)])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start_training(
            ON_TWO, *ENDLESS, folder=tmp_path / "run", config=CONFIG, text=text, report=report
        )
    assert len(seen) == 3 and all(map(is_gone, seen))


def test_a_run_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    text, before = write_text(tmp_path / "text.txt"), set(psutil.Process().children())
    with pytest.raises(TrainingFailed, match=r"did not end within 0\.5 s .* after 0 steps"):
        start_training(TrainingRecipe(), folder=tmp_path / "run", text=text, timeout_s=0.5)
    assert set(psutil.Process().children()) == before


def test_no_rank_outlives_the_notebook_and_its_run_goes_on(
    whole: TrainingLog, tmp_path: Path
) -> None:
    """Whoever kills a kernel kills all ranks at once, at whatever point."""
    text, folder = write_text(tmp_path / "text.txt"), tmp_path / "run"
    notebook = subprocess.Popen(
        [sys.executable, "-c", NOTEBOOK, str(folder), str(text)], env=ENVIRONMENT
    )
    try:
        wait_for(lambda: num_saved(folder) > 0, "a checkpoint")
        processes = psutil.Process(notebook.pid).children(recursive=True)
        assert len(ranks_below(notebook.pid)) == 2 and len(processes) == 3
        wait_for(lambda: num_saved(folder) > 1, "two checkpoints")
    finally:
        notebook.kill()
    notebook.wait()
    wait_for(lambda: all(map(is_gone, processes)), "the end of torchrun and its ranks")
    assert not read_log(folder).is_finished
    again = log_of(ON_TWO, folder, *LONG, "--resume")
    assert again.losses == whole.losses and len(again.starts) == 2


NOTEBOOK = """
import sys
from tests.test_trainer_processes import CONFIG, LONG, ON_TWO, start_training
folder, text = sys.argv[1:]
more = (*LONG, "--warmup-steps", "2")
start_training(ON_TWO, *more, folder=folder, config=CONFIG, text=text)
"""


def test_ctrl_c_in_a_terminal_leaves_no_rank(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    text = write_text(tmp_path / "text.txt")
    words = command_words(TrainingRecipe(), *ENDLESS, folder=folder, text=text, config=CONFIG)
    with subprocess.Popen(words, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as trainer:
        wait_for(lambda: num_saved(folder) > 0, "a checkpoint")
        trainer.send_signal(signal.SIGINT)
        _, said = trainer.communicate(timeout=LIMIT_S)
    assert trainer.returncode == 130
    assert said == f"{ERROR}Interrupted; --resume goes on from the last complete step-*.\n"
    assert not list(folder.glob("*.unfinished/trainer.json"))
