"""Judge of lab 06, the mean over all tokens: what is sent, what the optimizer sees, the norm."""

from collections.abc import Callable

import torch

from utils.checks.diagnose import require_function, require_number
from utils.checks.engine import exercise
from utils.checks.helpers import NotYet, close_to, require
from utils.checks.on_ranks import on_ranks
from utils.checks.truth_06_tokens import (
    EASY_CASES,
    GRADIENT_BYTES,
    HARD_CASES,
    Case,
    Run,
    clipped,
    mistakes,
    tokens_trial,
)

RTOL = 1e-4
SMALL_BYTES = 64  # a number of tokens may travel besides
LIKELY_STUCK = (
    "every rank sends once a step, however many micro-batches it has, and also when it has none"
)


@exercise(
    "06.4",
    "the mean over all tokens",
    hints=[
        "Let backward add up sums, not means. Which two totals over all ranks does the mean per "
        "token need, and can one message carry both?",
        "One flat tensor: all gradients (zeros for None), then the number of tokens; one "
        "all_reduce; divide by its last value; give the parts back to p.grad; clip_grad_norm_; "
        "step; zero_grad.",
    ],
    seconds=200,
    lab="lab_06_data_parallel",
)
def judge_tokens(answer: Callable) -> str:
    """Three steps on two ranks; then three ranks that have different numbers of micro-batches."""
    require_function(answer)
    for cases, likely in ((EASY_CASES, ""), (HARD_CASES, LIKELY_STUCK)):
        num_ranks = len(cases[0].tokens)
        by_rank = on_ranks(tokens_trial, num_ranks, answer, cases, likely=likely)
        for case, runs in zip(cases, zip(*by_rank, strict=True), strict=True):
            where = f"On {num_ranks} ranks, {case.name}"
            _require_traffic(where, case, runs)
            for rank, run in enumerate(runs):
                _require_update(f"{where}: rank {rank}", case, rank, run)
    num_steps = len(EASY_CASES) + len(HARD_CASES)
    return f"{num_steps} steps equal one process with all tokens; each gradient is sent once."


def _require_traffic(where: str, case: Case, runs: tuple[Run, ...]) -> None:
    """All ranks together send 2 (N - 1) times the gradients, however they are cut."""
    one_sync = 2 * (len(runs) - 1) * GRADIENT_BYTES
    sent = sum(run.bytes_sent for run in runs)
    if sent <= one_sync * (1 + SMALL_BYTES / GRADIENT_BYTES):
        return
    num_micro = max(map(len, case.tokens))
    each_time = num_micro > 1 and close_to(sent, num_micro * one_sync, rtol=0.1)
    likely = "sync in every micro-batch: add up first, and send after the last one"
    what = f"{where}: the gradients are sent {sent / one_sync:.3g} times"
    raise NotYet(what, 1, float(f"{sent / one_sync:.3g}"), likely if each_time else "")


def _require_update(where: str, case: Case, rank: int, run: Run) -> None:
    likely = "call optimizer.step() once" if run.num_updates == 0 else (
        "the micro-batches add up to one update"
    )
    what = f"{where} updates its weights {run.num_updates} times"
    require(run.num_updates == 1, what, 1, run.num_updates, likely)
    mean_P = case.mean_P()
    truth_P = clipped(mean_P, case.max_norm)
    atol = RTOL * truth_P.abs().max().item()
    if not torch.allclose(run.gradient_P, truth_P, rtol=RTOL, atol=atol):
        found = (text for text, value in mistakes(case, rank) if _equals(run, value))
        norms = truth_P.norm().item(), run.gradient_P.norm().item()
        if close_to(*norms, rtol=1e-3):
            what = f"{where} updates by a wrong gradient, though of the right norm"
            raise NotYet(what, likely=next(found, ""))
        what = f"{where} updates by a wrong gradient, its norm is off"
        raise NotYet(what, *norms, next(found, ""))
    _require_norm(where, case, run, mean_P.norm().item())
    likely = "optimizer.zero_grad() at the end, or the next step adds to it"
    require(not run.is_left, f"{where} leaves a gradient behind", likely=likely)


def _equals(run: Run, value: torch.Tensor) -> bool:
    atol = RTOL * value.abs().max().item()
    return torch.allclose(run.gradient_P, value, rtol=RTOL, atol=atol)


def _require_norm(where: str, case: Case, run: Run, true_norm: float) -> None:
    require_number("The norm that is returned", run.returned)
    if close_to(run.returned, true_norm, RTOL):
        return
    likely = ""
    if close_to(run.returned, min(true_norm, case.max_norm), RTOL):
        likely = "return the norm before clipping, as clip_grad_norm_ does"
    raise NotYet(f"{where} returns a wrong norm", true_norm, run.returned, likely)
