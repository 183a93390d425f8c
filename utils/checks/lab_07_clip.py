"""Judge of lab 07, one norm for all: messages, the norm, and every value that was scaled."""

import math
from collections.abc import Callable, Sequence
from numbers import Real

import torch

from utils.checks.diagnose import require_function, require_number
from utils.checks.engine import exercise
from utils.checks.helpers import NotYet, close_to, require
from utils.checks.on_ranks import on_ranks
from utils.checks.truth_07_clip import (
    CASES,
    NUM_RANKS,
    Case,
    Run,
    clip_trial,
    norm_mistakes,
    value_mistakes,
)

MAX_BYTES = 32  # a number from each rank, however it is exchanged
LIKELY_STUCK = "one message from every rank, also from one whose shards are all padding"
RTOL = {torch.float32: 1e-4, torch.float16: 4e-3}


@exercise(
    "07.4",
    "one norm for all",
    hints=[
        "Squares add up over shards and over ranks; roots do not. Of how many values of shards[k] "
        "should this rank add the squares, and which ranks add those of `whole`?",
        "num_mine = max(0, sizes[k] - rank * S). Squares of shards[k][:num_mine].double() into one "
        "number, those of `whole` on rank 0 only; one all_reduce; norm = root / num_micro; every "
        "gradient *= min(1, max_norm / norm) / num_micro, where a norm of 0 scales nothing.",
    ],
    seconds=120,
    lab="lab_07_zero",
)
def judge_clip(answer: Callable) -> str:
    """The norm, the values and the messages of each case, on three ranks."""
    require_function(answer)
    by_rank = on_ranks(clip_trial, NUM_RANKS, answer, likely=LIKELY_STUCK)
    for case, runs in zip(CASES, zip(*by_rank, strict=True), strict=True):
        for rank, run in enumerate(runs):
            _require_norm(f"On {NUM_RANKS} ranks, {case.name}: rank {rank}", case, rank, run)
        for rank, run in enumerate(runs):
            _require_values(f"On {NUM_RANKS} ranks, {case.name}: rank {rank}", case, rank, run)
        _require_traffic(case, runs)
    return (
        f"{len(CASES)} sets of gradients have the norm of one process, and all ranks scale alike, "
        "for one message of one number."
    )


def _require_norm(where: str, case: Case, rank: int, run: Run) -> None:
    returned = run.returned
    if isinstance(returned, Real) and not math.isfinite(returned):
        likely = "the padding is counted: NaN in it is in the sum"
        if case.dtype == torch.float16:
            likely = "squares in fp16 overflow at 256: square in fp32 or fp64"
        elif case.norm == 0:
            likely = "a norm of 0 is divided by"
        raise NotYet(f"{where} returns a norm that is not finite", case.norm, returned, likely)
    require_number("The norm that is returned", returned)
    rtol = RTOL[case.dtype]
    if close_to(returned, case.norm, rtol, atol=1e-6):
        return
    found = (text for text, norm in norm_mistakes(case, rank) if close_to(returned, norm, rtol))
    raise NotYet(f"{where} returns a wrong norm", case.norm, returned, next(found, ""))


def _require_values(where: str, case: Case, rank: int, run: Run) -> None:
    num_shards = len(case.sizes)
    sums = [
        *(each[: case.num_mine(k, rank)].double() for k, each in enumerate(case.shards(rank))),
        *case.sums[num_shards:],
    ]
    right = case.factor / case.num_micro
    for k, (got, before) in enumerate(zip([*run.shards, *run.whole], sums, strict=True)):
        if _is_times(got, before, right, case):
            continue
        name = f"shards[{k}]" if k < num_shards else f"whole[{k - num_shards}]"
        norms = (right * before.norm()).item(), got.double().norm().item()
        likely = next((t for t, f in value_mistakes(case) if _is_times(got, before, f, case)), "")
        if case.norm == 0:
            likely = "a norm of 0 is divided by: gradients of zero stay zero"
        raise NotYet(f"{where} has wrong values in {name}, their norm is off", *norms, likely)


def _is_times(got: torch.Tensor, before: torch.Tensor, factor: float, case: Case) -> bool:
    atol = 1e-4 if case.dtype == torch.float16 else 1e-7
    return torch.allclose(got.double(), factor * before, rtol=RTOL[case.dtype], atol=atol)


def _require_traffic(case: Case, runs: Sequence[Run]) -> None:
    calls = max(sum(run.calls.values()) for run in runs)
    sent = max(run.bytes_sent for run in runs)
    likely = "the gradients themselves are sent: the sum of their squares is enough"
    where = f"On {NUM_RANKS} ranks, {case.name}: right, but"
    too_many = (NUM_RANKS - 1) * sum(each.nbytes for each in case.shards(0))
    what = f"{where} a rank sends too many bytes"
    require(sent < max(too_many, MAX_BYTES), what, f"at most {MAX_BYTES}", sent, likely)
    likely = "one message per tensor: add up this rank's squares first"
    require(calls == 1, f"{where} in several messages", 1, calls, likely)
