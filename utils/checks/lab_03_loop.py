"""Judge of lab 03, the loop with masters: each of six steps against the same run in fp32."""

from collections.abc import Callable

import torch
from torch import Tensor

from utils.checks.diagnose import require_function
from utils.checks.engine import exercise
from utils.checks.helpers import NotYet, require
from utils.checks.truth_03 import (
    START_SCALE,
    StepCase,
    StepRecord,
    ToyModel,
    flat,
    run_steps,
    step_cases,
    true_run,
)

RTOL = 1e-5
FP16_COPIES = (
    "the masters were updated from fp16 copies of themselves: never write the model's weights "
    "back into them, or small updates are rounded away"
)


@exercise(
    "03.4",
    "a colleague's loop",
    hints=[
        "Go through her loop line by line: in which format do two micro-batches add up, where do "
        "the masters get their value from, and what is the norm of a gradient that is still "
        "scaled?",
        "Collect inside the loop over micro-batches, drop the three lines that copy weights into "
        "masters, and call scaler.unscale_(optimizer) before clipping.",
    ],
    seconds=60,
    lab="lab_03_loss_scaling",
)
def judge_loop(answer: Callable) -> str:
    """Six steps; the first difference from fp32 is explained."""
    require_function(answer)
    start = flat(ToyModel().parameters())
    before = StepRecord(None, start, flat([start.half()]), START_SCALE)
    truth_before = before
    records = zip(step_cases(), true_run(), run_steps(answer), strict=True)
    for number, (case, truth, got) in enumerate(records, start=1):
        where = f"In step {number} ({case.name})"
        _require_update(where, case, got)
        if truth.gradient is not None:
            _require_gradient(where, case, truth.gradient, got.gradient, truth_before.scale)
        _require_masters(where, truth, got, truth_before)
        _require_weights(where, truth, got, before)
        likely = "set the gradients to None at the end: optimizer.zero_grad()"
        require(not got.left, f"{where}, a gradient was left behind", likely=likely)
        likely = "scaler.update() belongs at the end of each step, exactly once"
        good = got.scale == truth.scale
        require(good, f"{where}, the scale is off afterwards", truth.scale, got.scale, likely)
        before, truth_before = got, truth
    moved = (truth.masters - start).norm().item()
    return f"Six steps equal fp32's, two of them skipped; the masters moved by {moved:.3g} in all."


def _require_update(where: str, case: StepCase, got: StepRecord) -> None:
    """One update, or none after an overflow."""
    if case.overflows:
        likely = "scaler.step(optimizer) looks first; optimizer.step() does not"
        what = f"{where}, the weights were updated although a gradient is inf or NaN"
        require(got.num_updates == 0, what, likely=likely)
    else:
        likely = "the micro-batches add up to one update" if got.num_updates > 1 else (
            "the scaler skipped a good step, or was never asked to step"
        )
        what = f"{where}, the optimizer stepped {got.num_updates} times"
        require(got.num_updates == 1, what, 1, got.num_updates, likely)


def _require_gradient(
    where: str, case: StepCase, truth: Tensor, got: Tensor, scale: float
) -> None:
    """The gradient that the optimizer saw."""
    if torch.allclose(got, truth, rtol=RTOL, atol=0.0):
        return
    likely = ""
    for mistake, value in _gradient_mistakes(case, truth, scale):
        if torch.allclose(got, value, rtol=RTOL, atol=0.0):
            likely = mistake
            break
    what = f"{where}, the optimizer got a wrong gradient; its norm is off"
    if torch.allclose(got.norm(), truth.norm(), rtol=1e-3):
        what = f"{where}, the optimizer got a wrong gradient, though nearly of the right norm"
    raise NotYet(what, truth.norm().item(), got.norm().item(), likely)


def _gradient_mistakes(case: StepCase, truth: Tensor, scale: float) -> list[tuple[str, Tensor]]:
    """(mistake, the gradient it leads to); `truth` is clipped."""
    num = len(case.micro_batches)
    parts = [flat(each) for each in case.micro_batches]
    mean = torch.stack(parts).mean(dim=0)
    norm = mean.norm()
    clipped_scaled = mean * (case.max_norm / (scale * norm)).clamp(max=1.0)
    in_16_bits = sum(((part * (scale / num)).half() for part in parts[1:]), start=(
        parts[0] * (scale / num)).half())
    mistakes = [
        ("unscaling twice: the scale was taken off again", truth / scale),
        ("the scale was never taken off", truth * scale),
        ("the mean was not clipped", mean),
    ]
    if not torch.allclose(clipped_scaled, truth, rtol=RTOL):
        likely = "clipping before unscaling: the norm of a scaled gradient says nothing"
        mistakes.insert(0, (likely, clipped_scaled))
    if num > 1:
        likely = "collect after every micro-batch: in fp16 sums small gradients vanish"
        mistakes += [
            (likely, in_16_bits.float() / scale),
            ("divide each loss by the number of micro-batches", mean * num),
            ("the loss is divided by the number of micro-batches twice", mean / num),
            ("only the last micro-batch counted", parts[-1]),
            ("only the last micro-batch counted", parts[-1] / num),
            ("only the first micro-batch counted", parts[0]),
            ("only the first micro-batch counted", parts[0] / num),
        ]
    return mistakes


def _require_masters(
    where: str, truth: StepRecord, got: StepRecord, truth_before: StepRecord
) -> None:
    if torch.allclose(got.masters, truth.masters, rtol=0.0, atol=1e-6):
        return
    update = truth.masters - truth_before.masters
    from_copies = truth_before.masters.half().float() + update
    rounded_after = truth.masters.half().float()
    copied = (from_copies, rounded_after)
    is_copy = any(torch.allclose(got.masters, each, rtol=0.0, atol=2e-6) for each in copied)
    error = (got.masters - truth.masters).norm().item()
    what = f"{where}, the masters differ from fp32's weights by {error:.3g}"
    raise NotYet(what, likely=FP16_COPIES if is_copy else "")


def _require_weights(
    where: str, truth: StepRecord, got: StepRecord, before: StepRecord
) -> None:
    if torch.allclose(got.weights, truth.weights, rtol=2.0**-9, atol=0.0):
        moved = not torch.equal(got.weights, before.weights)
        if moved or torch.equal(truth.weights, before.weights):
            return
    likely = ""
    if torch.equal(got.weights, before.weights):
        likely = "copying back is missing: the model goes on with its old weights"
    raise NotYet(f"{where}, the model's weights are not its masters' values in fp16", likely=likely)
