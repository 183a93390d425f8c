"""Judge of lab 10, train to the target: an audit of the log of a real run."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from utils.checks.diagnose import require_function
from utils.checks.engine import exercise
from utils.checks.helpers import NotYet, require
from utils.checks.truth_10_audit import audit
from utils.checks.truth_10_run import CLOUD, JOB, TARGET_LOSS
from utils.trainer.log import TrainingLog, read_log

_runs: list[TrainingLog] = []


def last_run() -> TrainingLog | None:
    """The log that check 10.3 has accepted last in this kernel; None without one."""
    return _runs[-1] if _runs else None


@exercise(
    "10.3",
    "train to the target",
    hints=[
        "Which recipe does your choose_recipe take for JOB on CLOUD? Write what predict_run says "
        "of it into a file, as JSON, and give that file to start_training. The folder's parent is "
        "there, and is a good place for it.",
        'path = folder.with_name("prediction.json"); path.write_text(json.dumps(predict_run(...)))'
        '. Then start_training(recipe, "--steps", str(JOB.num_steps), "--prediction", str(path), '
        "folder=folder, config=JOB.config).",
    ],
    seconds=240,
    lab="lab_10_all_together",
)
def judge_run(answer: Callable) -> str:
    """Everything that is said of the run comes from its log; the folder is gone afterwards."""
    require_function(answer)
    place = Path(tempfile.mkdtemp(prefix="lab_10_"))
    try:
        answer(place / "run")
        log = _log(place / "run")
    finally:
        shutil.rmtree(place, ignore_errors=True)
    usd = audit(log)
    _runs[:] = [log]
    return (
        f"{log.start['name']} reaches a validation loss of {TARGET_LOSS} on {CLOUD.name}, for "
        f"${usd:.4f} of ${JOB.budget_usd:.4f}, within {CLOUD.memory_bytes:,} bytes on each. All "
        "that was predicted holds, and one process finds the same losses."
    )


def _log(folder: Path) -> TrainingLog:
    likely = "start_training(..., folder=folder): the folder that your function gets"
    require((folder / "log.jsonl").exists(), "There is no log of a run in the folder",
            likely=likely)  # fmt: skip
    try:
        return read_log(folder)
    except ValueError:
        raise NotYet("The log is none of the trainer's", likely="it has been edited") from None
