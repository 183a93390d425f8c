"""Judge of lab 06, the best buckets: when the last message arrives, on the simulator's timeline."""

from collections.abc import Callable
from numbers import Integral

from utils.checks.diagnose import require_function
from utils.checks.engine import exercise
from utils.checks.helpers import NotYet, close_to, require
from utils.checks.truth_06_buckets import (
    CASES,
    Case,
    Link,
    best_counts,
    equal_counts,
    greedy_counts,
)


@exercise(
    "06.2",
    "the best buckets",
    hints=[
        "Suppose that the last bucket holds gradients i to j - 1. What must you know of the first "
        "i gradients, and is it the same question as for all of them?",
        "best[j] = the earliest end for the first j gradients = the least, over i < j, of "
        "max(best[i], ready_s[j - 1]) + message_s(bytes of i to j - 1); best[0] = 0. Keep the "
        "counts beside each end.",
    ],
    seconds=30,
    lab="lab_06_data_parallel",
)
def judge_buckets(answer: Callable) -> str:
    """Six chains of gradients; any buckets that end as early as possible are right."""
    require_function(answer)
    for case in CASES:
        counts = answer(list(case.ready_s), list(case.num_bytes), case.link)
        _require_counts(case, counts)
        got_s, least_s = case.end_s(counts), case.end_s(case.best)
        if not close_to(got_s, least_s, rtol=1e-9):
            what = f"For {case.name}, the last message arrives later than it could, in ms"
            raise NotYet(what, 1e3 * least_s, 1e3 * got_s, _mistake(case, list(counts)))
    num_gradients, exposed_s = len(case.ready_s), least_s - case.ready_s[-1]
    return (
        f"The earliest end for {len(CASES)} chains. GPT-2's {num_gradients} gradients travel in "
        f"{len(counts)} buckets; {1e3 * exposed_s:.2f} ms come after backward."
    )


def _require_counts(case: Case, counts: object) -> None:
    is_list = isinstance(counts, (list, tuple)) and len(counts) > 0
    whole = is_list and all(isinstance(c, Integral) and not isinstance(c, bool) for c in counts)
    likely = "the function ends without a return" if counts is None else (
        "say how many gradients each bucket holds, not which ones" if is_list else ""
    )
    require(whole, "Return a list of whole numbers", got=counts, likely=likely)
    require(min(counts) > 0, f"For {case.name}, a bucket is empty", got=list(counts))
    total, found = len(case.ready_s), sum(counts)
    likely = "a list of bytes: the numbers of gradients are asked" if found > 100 * total else (
        "each gradient belongs into exactly one bucket"
    )
    what = f"For {case.name}, the buckets hold another number of gradients"
    require(found == total, what, total, found, likely)


def _mistake(case: Case, counts: list[int]) -> str:
    """Name the strategy that leads to these buckets."""
    gradients = case.ready_s, case.num_bytes
    free = Link(0.0, case.link.bytes_per_s)
    strategies = {
        "one bucket: all bytes wait for the last gradient": [len(case.ready_s)],
        "a message for each gradient pays the latency each time, and the link is busy "
        "meanwhile": [1] * len(case.ready_s),
        "these are the best buckets from the last to the first: gradients come in the order of "
        "ready_s": case.best[::-1],
        "whatever is finished goes off as soon as the link is free: waiting a moment for the next "
        "gradient may save a latency": greedy_counts(*gradients, case.link),
        "equally many gradients in each bucket: the last bucket and the first have other needs":
            equal_counts(case),
        "the latency is left out": best_counts(*gradients, free),
    }  # fmt: skip
    return next((text for text, mistaken in strategies.items() if counts == mistaken), "")
