"""Judge of lab 09, two buffers and one division: log, values, memory of each case on each rank."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from utils.checks.diagnose import require_function
from utils.checks.engine import exercise
from utils.checks.helpers import NotYet, format_bytes, require
from utils.checks.on_ranks import on_ranks
from utils.checks.truth_09_divide import (
    CASES,
    FILL,
    NUM_RANKS,
    NUM_VALUES,
    SENT,
    WAITED,
    Case,
    Run,
    divide_trial,
)
from utils.checks.truth_09_divide_mistakes import is_right, name_of, shard_of

LIKELY_STUCK = "every rank sends and waits in the same order"
SHARD_BYTES = 4 * NUM_VALUES // NUM_RANKS


@exercise(
    "09.4",
    "divide once",
    hints=[
        "Keep, for each buffer, the layer and the message that still read from it. When is the "
        "last moment to wait for it? Where do the sums of several micro-batches meet, and in "
        "which format?",
        "Count turns over all micro-batches; place = turn % len(buffers). Wait for the message of "
        "that buffer, if any, and add its sum to sums[its layer]; zero the buffer; fill; "
        "start_sum. After the last backward wait for what is left. Return each sum / (world_size "
        "* num_micro).",
    ],
    seconds=100,
    lab="lab_09_yafsdp",
)
def judge_divide(answer: Callable) -> str:
    """Three cases on three ranks."""
    require_function(answer)
    by_rank = on_ranks(divide_trial, NUM_RANKS, answer, likely=LIKELY_STUCK)
    for number, case in enumerate(CASES):
        runs = [each[number] for each in by_rank]
        for rank, run in enumerate(runs):
            _require_log(f"{case.name}, rank {rank}", case, run)
        shards = [_shards(f"{case.name}, rank {rank}", case, run) for rank, run in enumerate(runs)]
        for rank, run in enumerate(runs):
            _require_values(f"{case.name}, rank {rank}", case, shards, rank)
            _require_memory(f"{case.name}, rank {rank}", case, run)
    return (
        f"{len(CASES)} cases equal one process on {NUM_RANKS} ranks, with gradients down to "
        f"{CASES[1].scale:.1g}; while a message is under way the next layer computes in another "
        "buffer."
    )


def _require_log(where: str, case: Case, run: Run) -> None:
    order = [(micro, layer) for micro in range(case.num_micro)
             for layer in reversed(range(case.num_layers))]  # fmt: skip
    likely = "each micro-batch goes from the last layer to the first"
    require(run.filled == order, f"{where}: other backwards", order, run.filled, likely)
    likely = "fill and send the buffers themselves: copies are allocations"
    require(not run.num_elsewhere, f"{where}: memory besides the buffers is used", likely=likely)
    sent = [number for what, number in run.log if what == SENT]
    likely = "each layer leaves after its backward, in every micro-batch"
    require(len(sent) == case.num_messages, f"{where}: another number of messages",
            case.num_messages, len(sent), likely)  # fmt: skip
    if run.touched:
        message = run.touched[0]
        micro, layer = order[message]
        likely = "a buffer is overwritten while its message is under way: wait for it first"
        what = f"{where}: layer {layer}'s buffer changed in micro-batch {micro}, before it was sent"
        raise NotYet(what, likely=likely)
    waited = {number for what, number in run.log if what == WAITED}
    missing = [number for number in sent if number not in waited]
    likely = "after the last backward, messages are still under way"
    require(not missing, f"{where}: {len(missing)} messages are never waited for", likely=likely)
    _require_late(where, case, run)


def _require_late(where: str, case: Case, run: Run) -> None:
    """Message n is needed when fill n + number of buffers begins; the fill before must be free."""
    for number in range(case.num_messages - case.num_buffers + 1):
        free = run.log.index((FILL, number + case.num_buffers - 1))
        if run.log.index((WAITED, number)) < free:
            what = f"{where}: no overlap, message {number + 1} is waited for too early"
            layer_turns = number % case.num_layers == case.num_layers - 1
            likely = "wait when its buffer is needed again, not before the next backward"
            if layer_turns:
                likely = (
                    "layer modulo the number of buffers: where two micro-batches meet, the same "
                    "buffer comes twice. Count turns, not layers"
                )
            raise NotYet(what, likely=likely)


def _shards(where: str, case: Case, run: Run) -> list[Tensor]:
    got = run.returned
    likely = "the function ends without a return" if got is None else ""
    is_list = isinstance(got, Sequence) and all(isinstance(each, Tensor) for each in got)
    require(is_list, f"{where}: return a list of tensors", got=got, likely=likely)
    require(len(got) == case.num_layers, f"{where}: one shard for each layer", case.num_layers,
            len(got))  # fmt: skip
    for each in got:
        shape = (NUM_VALUES // NUM_RANKS,)
        require(tuple(each.shape) == shape, f"{where}: a shard's shape", shape, tuple(each.shape))
        likely = "16 bits lose what fp32 has added up"
        require(each.dtype == torch.float32, f"{where}: shards must be fp32", got=str(each.dtype),
                likely=likely)  # fmt: skip
    return list(got)


def _require_values(where: str, case: Case, shards: list[list[Tensor]], rank: int) -> None:
    if not is_right(shards[rank], case, rank):
        true = shard_of(case.true_LP, rank)
        layer = next((k for k, each in enumerate(shards[rank])
                      if not torch.allclose(each, true[k], rtol=1e-5, atol=1e-12)), 0)  # fmt: skip
        norms = true[layer].norm().item(), shards[rank][layer].norm().item()
        what = f"{where}: the gradient of layer {layer} is wrong, its norm is off"
        raise NotYet(what, *norms, name_of(shards, case, rank))


def _require_memory(where: str, case: Case, run: Run) -> None:
    allowed = (case.num_layers + case.num_buffers + 1) * SHARD_BYTES
    what = (
        f"{where}: right, but {format_bytes(run.extra_bytes)} beside the buffers when the last "
        f"backward begins; {format_bytes(allowed)} are enough"
    )
    likely = "the sums of all micro-batches are kept: one for each layer is enough"
    require(run.extra_bytes <= allowed, what, likely=likely)
