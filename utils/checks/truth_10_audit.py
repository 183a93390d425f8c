"""What lab 10 reads in a log: is it the job, is it whole, is it true, was it within limits?

How it works: each question raises NotYet with what the log says and what it must say. A log is
true if it agrees with itself, with the formulas of bytes and messages, and with the same training
in one process; the prediction counts only where it stands, in the log's first line.

Left out: seconds, and who ran it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from utils.checks.helpers import NotYet, close_to, format_bytes, require
from utils.checks.truth_10_cloud import KEYS, flops_again, peak_bytes, sent_bytes, useful_flops
from utils.checks.truth_10_run import (
    CLOUD,
    JOB,
    RECIPES,
    TARGET_LOSS,
    bill_of,
    course_text,
    recipe_of,
    repeat,
    same_model,
)
from utils.trainer.log import TrainingLog

BYTES_RTOL, SENT_RTOL = 0.03, 0.01  # of formulas, and of a prediction
FIRST, FIRST_ATOL, LOSS_ATOL = 3, 1e-3, 0.05  # nats; other processors round otherwise
EDITED = "the log is not what a run has written"
TOLERANCES = dict.fromkeys(KEYS, 1e-6) | {
    "peak_bytes": BYTES_RTOL, "sent_bytes_per_step": SENT_RTOL, "usd": SENT_RTOL,
}  # fmt: skip


def audit(log: TrainingLog) -> float:
    """The run's dollars on the cloud. Raises NotYet at the first question with a wrong answer."""
    _require_job(log)
    prediction = _prediction(log)
    _require_whole(log)
    _require_consistent(log)
    _require_true(log)
    bill = bill_of(log, CLOUD)
    _require_limits(log, bill)
    _require_predicted(log, bill, prediction)
    return bill["usd"]


def _require_job(log: TrainingLog) -> None:
    start, settings = log.start, log.start["settings"]
    likely = "without config=JOB.config, start_training takes the laptop preset"
    require(same_model(start["config"]), "This is the log of another model", likely=likely)
    likely = "the course's own text is wanted, which is what comes without --text"
    same_text = settings["text_sha256"] == course_text()[1]
    require(same_text, "This is the log of a run on another text", got=settings["text"],
            likely=likely)  # fmt: skip
    recipe = recipe_of(log)
    if recipe.num_ranks > CLOUD.max_devices:
        raise NotYet("More ranks than there are devices", CLOUD.max_devices, recipe.num_ranks)
    likely = "these devices have no bf16" if recipe.precision != "fp32" else "take one of RECIPES"
    expected, got = JOB.sequences_per_step, recipe.sequences_per_step
    require(got == expected, "A step has other sequences than the job wants", expected, got,
            "they are batch size x micro-batches x ranks")  # fmt: skip
    require(recipe in RECIPES, "The recipe is not in the list", got=recipe.name, likely=likely)
    likely = '"--steps", str(JOB.num_steps) is missing'
    require(settings["steps"] == JOB.num_steps, "The run was meant for another number of steps",
            JOB.num_steps, settings["steps"], likely)  # fmt: skip


def _prediction(log: TrainingLog) -> Mapping[str, float]:
    first, last = log.starts[0]["prediction"], log.start["prediction"]
    likely = "--prediction and the path of a JSON file are missing among the options"
    if first is None and last is not None:
        likely = "it came with --resume only, and that is after the run has begun"
    require(first is not None, "The log's first line has no prediction", likely=likely)
    numbers = [key for key in KEYS if not _is_number(first.get(key))]
    require(not numbers, f"The prediction has no number for {', '.join(numbers)}", got=list(first))
    return first


def _is_number(value: Any) -> bool:
    is_real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_real and math.isfinite(value)


def _require_whole(log: TrainingLog) -> None:
    likely = "it was stopped before its last line: go on with --resume, or start again"
    what = f"The run has not ended: the log has {len(log.steps)} of {JOB.num_steps} steps"
    require(log.end is not None, what, likely=likely)
    numbers = [each["step"] for each in log.steps]
    steps = list(range(1, JOB.num_steps + 1))
    require(numbers == steps, "Steps are missing in the log", likely=EDITED)
    likely = "--no-memory has left it out"
    has_bytes = all(each["peak_bytes"] for each in log.end["ranks"])
    require(has_bytes, "The log does not say what the ranks held", likely=likely)


def _require_consistent(log: TrainingLog) -> None:
    """With itself, and with what its recipe takes."""
    recipe, start, num_steps = recipe_of(log), log.start, JOB.num_steps
    per_step = recipe.sequences_per_step * JOB.config.context_length
    flops, again = (f(recipe, JOB) // num_steps for f in (useful_flops, flops_again))
    last = log.steps[-1]["tokens"]
    for what, expected, got in (
        ("tokens of a step", per_step, start["tokens_per_step"]),
        ("tokens of the run", per_step * num_steps, last),
        ("FLOPs of a step", flops, start["flops_per_step"]),
        ("FLOPs done again", again, start["recomputed_flops_per_step"]),
        ("ranks", recipe.num_ranks, len(log.end["ranks"])),
    ):
        what = f"The log does not agree with its recipe: {what}"
        require(got == expected, what, expected, got, EDITED)
    seconds = [each["seconds"] for each in log.steps]
    require(seconds == sorted(seconds), "Time runs backwards in the log", likely=EDITED)
    for each in log.end["ranks"]:
        _require_formula("holds at its peak", each["peak_bytes"], peak_bytes(recipe, JOB),
                         BYTES_RTOL)  # fmt: skip
        _require_formula("sends in a step", each["sent_bytes_per_step"],
                         sent_bytes(recipe, JOB.config), SENT_RTOL)  # fmt: skip


def _require_formula(what: str, got: int, expected: float, rtol: float) -> None:
    sizes = format_bytes(int(expected)), format_bytes(got)
    what = f"With this recipe no rank {what} what the log says"
    require(close_to(got, expected, rtol, 64), what, *sizes, EDITED)


def _require_true(log: TrainingLog) -> None:
    """The losses, beside those of one process."""
    truth = repeat(log)
    for number, (got, expected) in enumerate(zip(log.losses, truth.losses, strict=True), start=1):
        atol = FIRST_ATOL if number <= FIRST else LOSS_ATOL
        what = f"By the same settings, the loss of step {number} is another one"
        require(close_to(got, expected, 0, atol), what, f"{expected:.3f}", f"{got:.3f}", EDITED)
    got, expected = log.end["validation_loss"], truth.validation_loss
    what = "By the same settings, the validation loss is another one"
    require(close_to(got, expected, 0, LOSS_ATOL), what, f"{expected:.3f}", f"{got:.3f}", EDITED)


def _require_limits(log: TrainingLog, bill: Mapping[str, float]) -> None:
    loss = log.end["validation_loss"]
    likely = "the learning rate and its warm-up are yours, but their defaults will do"
    what = "The validation loss misses the target"
    require(loss <= TARGET_LOSS, what, f"at most {TARGET_LOSS}", f"{loss:.3f}", likely)
    sizes = format_bytes(CLOUD.memory_bytes), format_bytes(int(bill["peak_bytes"]))
    likely = "a smaller batch with more micro-batches, checkpointing, shards"
    what = "More memory than a device has, at the peak of a rank"
    require(bill["peak_bytes"] <= CLOUD.memory_bytes, what, *sizes, likely)
    usd = f"at most ${JOB.budget_usd:.4f}", f"${bill['usd']:.4f}"
    likely = "messages and FLOPs done again cost as well: take the cheapest that fits"
    require(bill["usd"] <= JOB.budget_usd, "Over the budget on the cloud", *usd, likely)


def _require_predicted(
    log: TrainingLog, bill: Mapping[str, float], prediction: Mapping[str, float]
) -> None:
    recipe = recipe_of(log)
    factors = (
        (recipe.num_ranks, "off by the number of ranks"),
        (JOB.num_steps, "off by the number of steps"),
        (recipe.micro_batches, "off by the number of micro-batches"),
    )
    for key in KEYS:
        said, was, rtol = prediction[key], bill[key], TOLERANCES[key]
        if close_to(said, was, rtol, 64 if key == "sent_bytes_per_step" else 0):
            continue
        off = (text for n, text in factors if n > 1 and _is_off_by(said, was, n, rtol))
        likely = next(off, "predict the recipe that runs, with what passes 10.1")
        raise NotYet(f"The prediction of {key} is not what the run took", was, said, likely)


def _is_off_by(said: float, was: float, factor: int, rtol: float) -> bool:
    return close_to(said, was * factor, rtol) or close_to(said * factor, was, rtol)
