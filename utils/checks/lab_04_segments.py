"""Judge of lab 04, segments for a budget: the plan is carried out under the meter."""

from collections.abc import Callable, Sequence
from typing import Any

from utils.checks.diagnose import require_function
from utils.checks.engine import exercise
from utils.checks.helpers import NotYet, require
from utils.checks.truth_04 import INPUT_BYTES, best_lengths, chain_peak_bytes, plan_of

# Number of blocks, tensors that a block keeps, and tensors that there is room for.
TRIALS = ((7, 4, 28), (8, 3, 23), (6, 3, 12), (10, 2, 8), (9, 3, 9), (12, 3, 13), (11, 2, 7))
TOO_SMALL = ((10, 2, 6), (5, 4, 3))
LATER_ONES_ARE_GONE = "when a part runs again, the inputs of later parts are gone"


@exercise(
    "04.3",
    "the fewest blocks to run again",
    hints=[
        "Backward goes from the last part to the first. When part k runs again, which inputs are "
        "still there, which are gone, and where is the kept part by then?",
        "Part k (from 0) lives beside k inputs: it has room for (room_bytes - k * input_bytes) // "
        "block_bytes blocks. Add parts until all blocks have a place, then shorten the first ones, "
        "for the last one is the one that need not run again.",
    ],
    seconds=60,
    lab="lab_04_checkpoint_by_hand",
)
def judge_segments(answer: Callable) -> str:
    """Lengths that fit, to the byte, and of which no others run fewer blocks again."""
    require_function(answer)
    for num_blocks, depth, num_tensors in TRIALS:
        room_bytes = num_tensors * INPUT_BYTES
        block_bytes = depth * INPUT_BYTES
        got = answer(num_blocks, block_bytes, INPUT_BYTES, room_bytes)
        of = f"With {_words(num_blocks, depth, num_tensors)}"
        _require_lengths(of, got, num_blocks)
        peak_bytes = chain_peak_bytes(plan_of(got), num_blocks, depth)
        if peak_bytes > room_bytes:
            _refuse_too_large(of, got, depth, num_tensors, peak_bytes - room_bytes)
        _require_fewest(of, got, num_blocks, depth, num_tensors)
    for num_blocks, depth, num_tensors in TOO_SMALL:
        sizes = (depth * INPUT_BYTES, INPUT_BYTES, num_tensors * INPUT_BYTES)
        got = answer(num_blocks, *sizes)
        is_empty = isinstance(got, (list, tuple)) and len(got) == 0
        what = f"With {_words(num_blocks, depth, num_tensors)} no lengths fit"
        require(is_empty, what, "an empty list", got, "say so with an empty list")
    num_blocks, depth, num_tensors = TRIALS[-1]
    return (
        f"{len(TRIALS)} chains stay in their room, to the byte; the last one runs all but "
        f"{best_lengths(num_blocks, depth, 1, num_tensors)[-1]} of its {num_blocks} blocks again, "
        f"in {num_tensors} of the {num_blocks * depth} tensors that it keeps plain."
    )


def _words(num_blocks: int, depth: int, num_tensors: int) -> str:
    return f"{num_blocks} blocks as large as {depth} inputs each and room for {num_tensors} inputs"


def _require_lengths(of: str, got: Any, num_blocks: int) -> None:
    require(isinstance(got, (list, tuple)), f"{of}, a list of lengths is asked", got=got)
    require(len(got) > 0, f"{of}, there is a way", got=list(got), likely=LATER_ONES_ARE_GONE)
    require(len(got) <= num_blocks, f"{of}, there are more parts than blocks", got=len(got))
    whole = all(isinstance(n, int) and not isinstance(n, bool) and n >= 1 for n in got)
    require(whole, f"{of}, every length is a whole number of at least 1", got=list(got))
    total = sum(got)
    likely = "a segment off by one: the last blocks are in no part" if total < num_blocks else (
        "a segment off by one: the lengths are more than there are blocks"
    )
    require(total == num_blocks, f"{of}, the lengths {list(got)} make {total} blocks", num_blocks,
            total, likely)


def _refuse_too_large(
    of: str, got: Sequence[int], depth: int, num_tensors: int, extra_bytes: int
) -> None:
    """The plan ran, and the meter saw too much: say at which part."""
    needs = [k + depth * length for k, length in enumerate(got)]
    worst = max(range(len(needs)), key=needs.__getitem__)
    likely = ""
    if got[worst] * depth <= num_tensors:
        likely = f"the inputs of the {worst} part(s) before it are alive as well"
    elif len(got) == 1:
        likely = "not everything can be kept: cut the chain"
    where = "the kept part at the end of forward" if worst == len(got) - 1 else (
        f"part {worst + 1} of {len(got)} when it runs again"
    )
    num_inputs = extra_bytes // INPUT_BYTES
    what = f"{of}, {list(got)} takes {num_inputs} input(s) too much: the worst is {where}"
    raise NotYet(what, likely=likely)


def _require_fewest(
    of: str, got: Sequence[int], num_blocks: int, depth: int, num_tensors: int
) -> None:
    best = best_lengths(num_blocks, depth, 1, num_tensors)
    again, fewest = num_blocks - got[-1], num_blocks - best[-1]
    if again == fewest:
        return
    careful = best_lengths(num_blocks, depth, 1, num_tensors, extra_inputs=1)
    all_alive = _lengths_beside_all_inputs(num_blocks, depth, num_tensors)
    likely = "the last part is kept: make it as long as its room allows"
    if all_alive and again == num_blocks - all_alive[-1]:
        likely = LATER_ONES_ARE_GONE
    elif careful and again == num_blocks - careful[-1]:
        likely = "off by one: a part's own input is among its blocks' bytes; count earlier ones"
    if got[-1] == min(got) and again > fewest and max(got) >= best[-1]:
        likely = "the longest part belongs to the end, where it is kept and not run again"
    if max(got) == 1:
        likely = "longer parts fit as well"
    what = f"{of}, {list(got)} fits, but {again} blocks run again where {fewest} would do"
    raise NotYet(what, likely=likely)


def _lengths_beside_all_inputs(num_blocks: int, depth: int, num_tensors: int) -> list[int]:
    """What comes out if each part is thought to live beside the inputs of all parts."""
    for num_parts in range(1, num_blocks + 1):
        longest = (num_tensors - (num_parts - 1)) // depth
        if longest >= 1 and longest * num_parts >= num_blocks:
            return [num_blocks - longest, longest] if num_parts > 1 else [longest]
    return []
