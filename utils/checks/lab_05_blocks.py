"""Judge of lab 05, offloading with a limit: what moves, what comes back, what stays in memory."""

from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from utils.checks.diagnose import require_function
from utils.checks.engine import exercise
from utils.checks.helpers import NotYet, require
from utils.checks.truth_05 import torch_left_alone
from utils.checks.truth_05_blocks import Inspector, SavedStorage, Vault, moved_by_age
from utils.checks.truth_05_offload import (
    Measured,
    forward_peak,
    hooks_of,
    measure,
    plain_step,
    reference,
    small_model,
)
from utils.plots import bytes_text

TRIALS = (  # dtype, and the share of the saved bytes that may stay
    (torch.float32, 0.4), (torch.float32, 0.0), (torch.float32, 1.0), (torch.bfloat16, 0.4),
)  # fmt: skip
SLACK_BYTES = 2048


@exercise(
    "05.4",
    "move only what does not fit",
    hints=[
        "The graph holds what pack returns, and nothing else may hold a block: keep weak "
        "references, in the order of first saving. Which of these blocks are in memory, how many "
        "bytes do they take, and which goes first?",
        "In pack: a tensor whose storage is a weight's goes back as it is. Else find the block "
        "with is_of(storage) among the living ones, or make it and append weakref.ref(block); "
        "move the first ones in memory while the sum is above memory_bytes; return (block, dtype, "
        "storage_offset, shape, stride). In unpack: torch.empty(0, dtype=dtype).set_("
        "block.storage(), offset, shape, stride).",
    ],
    seconds=60,
    lab="lab_05_choosing_what_to_keep",
)
def judge_blocks(answer: Callable) -> str:
    """Two dtypes, three limits, two steps each; the second run is under the meter."""
    require_function(answer)
    moved = []
    for dtype, share in TRIALS:
        saved, gradients = plain_step(dtype)
        total = sum(each.num_bytes for each in saved if not each.is_weight)
        limit, name = int(share * total), str(dtype).removeprefix("torch.")
        given = f"In {name}, with {limit:,} of {total:,} saved bytes allowed in memory"
        with torch_left_alone():
            _require_values(answer, dtype, limit, gradients, given)
            run = measure(answer, dtype, limit)
        _require_freed(run, given)
        _require_moved(run.store, saved, limit, given)
        _require_memory(run, reference(dtype, limit), given)
        moved.append(f"{bytes_text(run.store.bytes_out // 2)} of {bytes_text(total)} in {name}")
    return (
        f"Gradients equal in every bit in {len(TRIALS)} trials. With {share:.0%} allowed in "
        f"memory, {moved[0]} and {moved[-1]} moved in each step, the oldest first."
    )


def _require_values(
    answer: Callable, dtype: torch.dtype, limit: int, gradients: list[Tensor], given: str
) -> None:
    """Two steps with the same hooks, each tensor inspected on its way back."""
    model, forward = small_model(dtype)
    inspector = Inspector(*hooks_of(answer, Vault(), model, limit))
    for step in (1, 2):
        try:
            with saved_tensors_hooks(inspector.pack, inspector.unpack):
                loss = forward()
            loss.backward()
        except Exception:
            if not inspector.problem:
                raise
        if inspector.problem:
            likely = _problem_mistake(inspector.problem)
            raise NotYet(f"{given}, step {step}: {inspector.problem}", likely=likely)
    pairs = zip(model.parameters(), gradients, strict=True)
    same = all(torch.equal(parameter.grad, exact) for parameter, exact in pairs)
    require(same, f"{given}, a gradient differs from the one without hooks")


def _problem_mistake(problem: str) -> str:
    mistakes = {
        "other dtype": "a block is only bytes: note the dtype in pack, and use it in unpack",
        "other shape": "note the tensor's shape in pack",
        "other strides": "note the strides in pack: a view can be a transposed one",
        "other offset": "note the offset in pack: a view can begin in the middle of its storage",
        "other values": (
            "an address (id, data_ptr, _cdata) is used again once its storage has died: ask "
            "block.is_of(storage)"
        ),
        "in place of a tensor": "unpack must return a tensor like the one that pack got",
    }
    return next(likely for words, likely in mistakes.items() if words in problem)


def _require_freed(run: Measured, given: str) -> None:
    """After backward nothing is held, neither in the store nor in memory."""
    start, end = (sum(run.report.at_mark(mark).values()) for mark in ("start", "end"))
    freed = run.num_left == 0 and end <= start + SLACK_BYTES
    likely = "the graph holds what pack returns; hold blocks by weak references besides"
    require(freed, f"{given}, blocks are still held after backward", likely=likely)


def _require_moved(store: Vault, saved: list[SavedStorage], limit: int, given: str) -> None:
    """The right blocks left memory, each once per step."""
    expected = [each.digest for each in moved_by_age(saved, limit)]
    got, right = Counter(store.digests), Counter(2 * expected)
    weights = {each.digest for each in saved if each.is_weight}
    known = {each.digest: each.num_bytes for each in saved}
    likely = "a saved view, such as a transposed weight, has the weight's storage: compare storages"
    require(not weights & set(got), f"{given}, a weight was moved", likely=likely)
    likely = "move whole storages: block.move(store)"
    require(set(got) <= set(known), f"{given}, something else than a block moved", likely=likely)
    twice = [digest for digest in got if got[digest] > 2 * sum(e.digest == digest for e in saved)]
    likely = "several operations save views of one storage: look for its block before you make one"
    require(not twice, f"{given}, a storage was moved more than once in a step", likely=likely)
    if got == right:
        return
    bytes_got, bytes_right = (
        sum(known[digest] * count for digest, count in each.items()) // 2 for each in (got, right)
    )
    what = f"{given}, {bytes_got:,} bytes moved in a step, not {bytes_right:,}"
    likely = _choice_mistake(store.digests, saved, limit, bytes_got - bytes_right)
    raise NotYet(what, likely=likely)


def _choice_mistake(
    digests: list[str], saved: list[SavedStorage], limit: int, more_bytes: int
) -> str:
    blocks = [each for each in saved if not each.is_weight]
    total = sum(each.num_bytes for each in blocks)
    if not digests:
        return "nothing moved: the limit holds after every pack"
    if digests[0] != blocks[0].digest:
        return "what was saved first is needed last: the oldest block in memory goes first"
    if limit >= total:
        return "nothing has to move while everything fits: count each storage once, and no weight"
    if more_bytes > 0:
        return "move only while the blocks in memory take more than memory_bytes"
    return "count whole storages (block.num_bytes), not the bytes of the views"


def _require_memory(run: Measured, right: Measured, given: str) -> None:
    """No more bytes than the limit asks for, and no block brought back for nothing."""
    kept, exact = (sum(each.report.at_mark("kept").values()) for each in (run, right))
    what = f"{given}, {kept - exact:,} bytes too many are alive between forward and backward"
    likely = "what pack returns must not hold the tensor or its storage besides the block"
    require(kept <= exact + SLACK_BYTES, what, likely=likely)
    over = forward_peak(run.report) - forward_peak(right.report)
    what = f"{given}, the peak of forward is {over:,} bytes above what it should be"
    likely = "the limit holds after every pack: count whole storages, not the bytes of views"
    require(over <= SLACK_BYTES, what, likely=likely)
    over = run.report.peak_bytes - right.report.peak_bytes
    what = f"{given}, the peak is {over:,} bytes above what it should be"
    require(over <= SLACK_BYTES, what, likely="a block must die when backward has used it")
    often = run.store.bytes_back > right.store.bytes_back
    likely = "block.storage() brings a block back once for all views that use it at the time"
    require(not often, f"{given}, blocks were brought back too often", likely=likely)
