"""Judge of lab 06, half the bytes: a mean in 16 bits whose errors do not add up."""

from collections.abc import Callable

import torch

from utils.checks.diagnose import require_function
from utils.checks.engine import exercise
from utils.checks.helpers import NotYet, require
from utils.checks.on_ranks import on_ranks
from utils.checks.truth_06_compression import (
    NUM_STEPS,
    NUM_VALUES,
    Run,
    compression_trial,
    drift_in_roundings,
    forgotten,
    simulated_KP,
    whole_numbers_NP,
)


@exercise(
    "06.5",
    "half the bytes, nothing lost",
    hints=[
        "Two roundings: of this rank's gradient on the way out, and of the mean on the way back. "
        "Each needs a memory of its own, made once, outside of mean_.",
        "sent = (values + lost).bfloat16(), then lost = values + lost - sent. "
        "dist.all_to_all_single brings part r of every rank's gradient to rank r, which averages "
        "them in fp32; all_gather hands the rounded means to all, the own part included.",
    ],
    seconds=200,
    lab="lab_06_data_parallel",
)
def judge_compression(answer: Callable) -> str:
    """One exact mean; then bytes and drift over many steps, on 2 and 4 ranks."""
    require_function(answer)
    for num_ranks in (2, 4):
        runs = on_ranks(compression_trial, num_ranks, answer)
        for rank, run in enumerate(runs):
            _require_exact(f"On {num_ranks} ranks, rank {rank}", run, rank, num_ranks)
        _require_bytes(runs)
        _require_same(runs)
        _require_no_drift(runs[0], num_ranks)
    plain_KP = simulated_KP(num_ranks, own="none", back="none")
    return (
        f"Half of fp32's bytes, and after {NUM_STEPS} steps the sum of all means is off by less "
        f"than one rounding of each kind; plain bf16 is off by "
        f"{drift_in_roundings(plain_KP, num_ranks):.0f} times that."
    )


def _require_exact(where: str, run: Run, rank: int, num_ranks: int) -> None:
    gradients = whole_numbers_NP(num_ranks)
    truth, got = gradients.mean(0), run.exact_P
    if torch.equal(got, truth):
        return
    own = slice(rank * len(truth) // num_ranks, (rank + 1) * len(truth) // num_ranks)
    explanations = [
        ("sum instead of mean: divide by world_size", torch.equal(got, gradients.sum(0))),
        ("divided by world_size twice", torch.equal(got, truth / num_ranks)),
        ("the result goes into gradient_P itself: copy_", torch.equal(got, gradients[rank])),
        ("all-zero gradients agree on every rank, too", not got.any()),
        ("only the part of this rank is right: all_gather hands out the others",
         torch.equal(got[own], truth[own])),
        ("all the right values at wrong places: part r of all_to_all_single goes to rank r",
         torch.equal(got.sort().values, truth.sort().values)),
    ]  # fmt: skip
    likely = next((text for text, applies in explanations if applies), "")
    what = f"{where} has a wrong mean of numbers that bf16 holds exactly"
    place = int((got != truth).nonzero()[0])
    raise NotYet(what, truth[place].item(), got[place].item(), likely)


def _require_bytes(runs: list[Run]) -> None:
    num_ranks = len(runs)
    half = NUM_STEPS * 2 * (num_ranks - 1) * 2 * NUM_VALUES
    share = sum(run.bytes_sent for run in runs) / (2 * half)
    if share <= 0.51:
        return
    likely = ""
    if "reduce_scatter" in runs[0].kinds:
        likely = "gloo's reduce_scatter is an all-reduce and a slice: take all_to_all_single"
    elif num_ranks == 2:
        likely = "fp32 is still sent" if share > 0.9 else "one of the two ways still sends fp32"
    elif share > 0.9:
        likely = "everybody sends everything to everybody: each rank needs one part of each other"
    what = f"On {num_ranks} ranks, the bytes of an fp32 ring are"
    raise NotYet(f"{what} not halved", 0.5, float(f"{share:.3g}"), likely)


def _require_same(runs: list[Run]) -> None:
    for rank, run in enumerate(runs):
        likely = (
            "the part that a rank has averaged itself must be rounded like those that it receives"
        )
        same = torch.equal(run.results_KP, runs[0].results_KP)
        require(same, f"Ranks 0 and {rank} of {len(runs)} have different means", likely=likely)


def _require_no_drift(run: Run, num_ranks: int) -> None:
    drift = drift_in_roundings(run.results_KP, num_ranks)
    if drift <= 1:
        return
    what = (
        f"On {num_ranks} ranks, the sum of {NUM_STEPS} means is off by {drift:.1f} times what one "
        "rounding of each kind can lose"
    )
    raise NotYet(what, likely=forgotten(run.results_KP, num_ranks))
