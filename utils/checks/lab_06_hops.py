"""Judge of lab 06, fewer hops: values, messages, bytes sent and bytes held of an all-reduce."""

from collections.abc import Callable

import torch
from torch import Tensor

from utils.checks.diagnose import require_function
from utils.checks.engine import exercise
from utils.checks.helpers import NotYet, require
from utils.checks.on_ranks import on_ranks
from utils.checks.truth_06_hops import CASES, Case, Run, hops_trial

WORLD_SIZES = (4, 2, 8)
LIKELY_STUCK = (
    "two ranks that swap must name each other (rank ^ distance, with distances N/2, ..., 1 and "
    "then back) and cut the same piece at the same place, in the tensors' own dtype"
)
LIBRARY = "the exercise is to write it from `swap`"


@exercise(
    "06.1",
    "fewer hops",
    hints=[
        "Rank r swaps with r ^ (N/2) first: each sends the half that the other one will look "
        "after, and adds what comes to the half it keeps. Then the same within that half, with "
        "r ^ (N/4), down to r ^ 1. What has each rank got now, and who has the rest?",
        "One flat copy of all tensors; start, end = 0, P. While distance >= 1: middle = (start + "
        "end) // 2, the lower rank of the pair keeps the lower half; note (kept, given, partner). "
        "Divide what is left by N. Then go through the notes backwards: send kept, receive given.",
    ],
    seconds=300,
    lab="lab_06_data_parallel",
)
def judge_hops(answer: Callable) -> str:
    """Values, then messages, bytes sent and bytes held, on 4, 2 and 8 ranks."""
    require_function(answer)
    for world_size in WORLD_SIZES:
        by_rank = on_ranks(hops_trial, world_size, answer, likely=LIKELY_STUCK)
        for case, runs in zip(CASES, zip(*by_rank, strict=True), strict=True):
            where = f"On {world_size} ranks, {case.name}"
            _require_values(where, case, [run.got_P for run in runs])
            _require_traffic(where, case, runs)
            _require_memory(where, case, runs)
    shares = runs[0].calls["send"], 2 * (world_size - 1)
    return (
        f"Right on 2, 4 and 8 ranks, each with 2 (N - 1) / N of the bytes. On {world_size} ranks: "
        f"{shares[0]} messages for a whole list of tensors, where the ring takes {shares[1]}."
    )


def _require_values(where: str, case: Case, got: list[Tensor]) -> None:
    sum_P = case.sum_P(len(got))
    truth_P = sum_P / len(got)
    for rank, got_P in enumerate(got):
        if torch.equal(got_P, truth_P):
            continue
        likely = _value_mistake(case, rank, got_P, sum_P, len(got))
        wrong = got_P != truth_P
        what = f"{where}: rank {rank} has {int(wrong.sum())} of {wrong.numel()} values wrong"
        place = int(wrong.nonzero()[0])
        raise NotYet(what, truth_P[place].item(), got_P[place].item(), likely)


def _value_mistake(case: Case, rank: int, got_P: Tensor, sum_P: Tensor, num_ranks: int) -> str:
    own_P, wrong = case.values_P(rank), got_P != sum_P / num_ranks
    if torch.equal(got_P, sum_P):
        return "sum instead of mean: divide by world_size"
    if torch.equal(got_P, sum_P / num_ranks**2):
        return "divided by world_size twice"
    if torch.equal(got_P, own_P):
        return "nothing has changed here: copy the result back into the tensors"
    if not got_P.any():
        return "all-zero tensors agree on every rank, too"
    if int(wrong.sum()) < num_ranks:
        return "halves that do not divide evenly must still cover every value"
    turned = case.transposed is not None and torch.equal(got_P[wrong], own_P[wrong])
    if turned and int(wrong.sum()) <= case.tensors(rank)[case.transposed].numel():
        return (
            "reshape(-1) of a transposed tensor is a copy: write back with "
            "tensor.copy_(part.view_as(tensor))"
        )
    if 2 * int(wrong.sum()) >= wrong.numel() and torch.isin(got_P[~wrong], sum_P / num_ranks).any():
        return "only a part is finished on each rank: hand the finished parts out, on the way back"
    return ""


def _require_traffic(where: str, case: Case, runs: tuple[Run, ...]) -> None:
    num_ranks = len(runs)
    steps = (num_ranks - 1).bit_length()
    others = sorted(set(runs[0].calls) - {"send", "recv"})
    require(not others, f"{where}: the ledger has {', '.join(others)}", likely=LIBRARY)
    value_bytes = case.dtype.itemsize
    allowed = 2 * (num_ranks - 1) * case.num_bytes / num_ranks + 2 * steps * value_bytes
    most = max(range(num_ranks), key=lambda rank: runs[rank].bytes_sent)
    sent, messages = runs[most].bytes_sent, max(run.calls.get("send", 0) for run in runs)
    if sent > allowed:
        what = f"{where}: right, but rank {most} sends {sent:,} bytes; {allowed:,.0f} are enough"
        raise NotYet(what, likely=_bytes_mistake(sent, case, runs))
    if messages > 2 * steps:
        likely = ""
        if messages == 2 * (num_ranks - 1):
            likely = "this is the lesson's ring; partners at distances 1, 2, 4, ... need fewer hops"
        elif messages % (2 * steps) == 0:
            likely = "one all-reduce per tensor: put them behind each other first"
        raise NotYet(f"{where}: right, but in too many messages", 2 * steps, messages, likely)


def _require_memory(where: str, case: Case, runs: tuple[Run, ...]) -> None:
    extra = max(run.extra_bytes for run in runs)
    what = f"{where}: right, but {extra:,} bytes were made beside the tensors' {case.num_bytes:,}"
    likely = "halves of the flat tensor are views: send them, note them, add to them; clone nothing"
    allowed = 2 * case.num_bytes + 8 * 8
    require(extra <= allowed, what, f"at most {allowed:,}", f"{extra:,}", likely)


def _bytes_mistake(sent: int, case: Case, runs: tuple[Run, ...]) -> str:
    num_ranks = len(runs)
    least = min(run.bytes_sent for run in runs)
    if num_ranks > 2 and sent >= (num_ranks - 1) * case.num_bytes and least <= case.num_bytes:
        return "gathering at one rank: it sends everything to everybody"
    if sent == (num_ranks - 1) * case.num_bytes:
        return "the whole tensor in every hop, all the way round"
    if sent == (num_ranks - 1).bit_length() * case.num_bytes:
        return "the whole tensor in every hop: send the half that you give away, keep the other"
    return "in each hop send only what the partner will look after"
