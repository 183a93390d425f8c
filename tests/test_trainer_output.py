"""Why a run failed, from what its processes printed: the cause itself, however much there was."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from tests.test_trainer_processes import CONFIG, ON_TWO
from tests.trainer_runs import write_text
from utils.recipe import TrainingRecipe
from utils.trainer.command import ERROR
from utils.trainer.output import GONE, KEPT_CHARACTERS, SENTENCE_CHARACTERS, reason
from utils.trainer.process import WatchedProcess
from utils.trainer.start import TrainingFailed, start_training

CRASH = """
import hashlib, os, sys
def sha256(*_):
    raise KeyError("no such key\\n" + "and more " * 10_000)
if os.environ.get("RANK", "0") == "{rank}" and "torch.distributed.run" not in sys.orig_argv:
    hashlib.sha256 = sha256
"""
AGENT = "E1201 00:10:55.4 10826 site-packages/torch/distributed/elastic/api.py:1002] "
REPORT = f"""W{AGENT[1:]}Sending process 10832 closing signal SIGTERM
{AGENT}failed (exitcode: 1) local_rank: 1 (pid: 10833) of binary: python
Traceback (most recent call last):
    raise ChildFailedError(
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
Root Cause (first observed failure):
[0]:
  rank      : 1 (local_rank: 1)
  exitcode  : {{}}
  traceback : To enable traceback see: https://pytorch.org/docs/stable/elastic/errors.html
============================================================
"""
EARLY = """Traceback (most recent call last):
  File "train.py", line 8, in <module>
ModuleNotFoundError: No module named 'torch'
step      1  loss  5.6
"""


@pytest.mark.parametrize("recipe, rank", [(TrainingRecipe(), 0), (ON_TWO, 1)])
def test_a_crash_of_the_trainer_is_named_with_its_place(
    recipe: TrainingRecipe, rank: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(CRASH.replace("{rank}", str(rank)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    text = write_text(tmp_path / "text.txt")
    with pytest.raises(TrainingFailed) as failed:
        start_training(recipe, folder=tmp_path / "run", config=CONFIG, text=text)
    said, who = str(failed.value), "rank 1" if recipe.num_ranks == 2 else "the trainer"
    assert said.startswith(f"{who} crashed: KeyError: 'no such key")
    assert said.endswith(" ... (cut) (line 4 of sitecustomize.py)") and "\n" not in said
    assert len(said) < 400
    assert "in text_of\n" in failed.value.output  # the traceback is there to be read


@pytest.mark.parametrize(
    "printed, words",
    [
        (EARLY + REPORT.format("1 (pid: 10833)"), "ModuleNotFoundError: No module named 'torch'"),
        ("no error\n" + REPORT.format("1 (pid: 10833)"), "no error"),
        (EARLY, "ModuleNotFoundError: No module named 'torch'"),
        ("Killed at dawn\n======\n------\n", "Killed at dawn"),
        (REPORT.format("1 (pid: 10833)"), "it said nothing"),
        ("", "it said nothing"),
    ],
)
def test_without_a_sentence_of_the_trainer_the_last_exception_is_told(
    printed: str, words: str
) -> None:
    assert reason(1, printed, []) == f"The training ended with exit code 1: {words}"


@pytest.mark.parametrize(
    "exit_code, how",
    [
        ("-9 (pid: 10833) (SIGKILL)", "was ended from outside (SIGKILL), as the system does when"),
        ("-11 (pid: 10833) (SIGSEGV)", "crashed (SIGSEGV): --resume goes on"),
    ],
)
def test_a_rank_that_is_killed_is_the_cause(exit_code: str, how: str) -> None:
    said = reason(1, REPORT.format(exit_code), [f"{GONE}: it did."])
    assert said.startswith(f"Rank 1 {how}")


def test_a_rank_that_lost_another_one_is_not_the_cause() -> None:
    assert reason(1, "", [f"{GONE}: go on.", "rank 1 crashed: E", "Later."]) == "rank 1 crashed: E"


def test_a_long_sentence_is_cut() -> None:
    for said in (reason(2, "", ["x" * 10**6]), reason(1, "x" * 10**6, [])):
        assert said.endswith("xx ... (cut)") and len(said) < SENTENCE_CHARACTERS + 100


@pytest.mark.parametrize("floods", ["'line\\n' * 4_000_000", "'x' * 20_000_000"])
def test_a_run_that_prints_without_end_is_kept_within_bounds(floods: str) -> None:
    """What the trainer says before that is not lost."""
    said = ERROR + "It broke."
    script = f"print({said!r}); print({floods}); print('the end'); raise SystemExit(2)"
    process = WatchedProcess([sys.executable, "-c", script])
    process.follow(time.monotonic() + 90, lambda: None)
    process.stop()
    assert process.reason == "It broke." and process.output.endswith("the end\n")
    assert KEPT_CHARACTERS <= len(process.output) <= 2 * KEPT_CHARACTERS
