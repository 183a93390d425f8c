"""Judge of lab 07, the bill to the byte: bytes held and sent, for every stage."""

from collections.abc import Callable, Sequence

from utils.checks.diagnose import require_function, require_number
from utils.checks.engine import exercise
from utils.checks.helpers import NotYet, close_to, require
from utils.checks.truth_07_bill import CASES, UNEVEN, Case, held_bytes, sent_bytes
from utils.checks.truth_07_bill_mistakes import Variant, held_mistakes, sent_mistakes


@exercise(
    "07.1",
    "the bill, to the byte",
    hints=[
        "Start with one unit: its shard S is an N-th of its values, rounded up. Which of weights, "
        "gradients and state have S values in each stage, and which are whole? What is kept whole "
        "need not travel again in each micro-batch.",
        "S = -(-sum(sizes) // N). Weights: N S values in stages 1 and 2, S in stage 3. Gradients: "
        "sum(sizes) in stage 1, then S. State: 8 S bytes, with a master 12 S. A message is "
        "(N - 1) S values; stage 1 sends 2 in a step, stage 2 num_micro + 1, stage 3 3 num_micro.",
    ],
    seconds=30,
    lab="lab_07_zero",
)
def judge_bill(answer: Callable) -> str:
    """All cases; a mistake that leads to all of the numbers is named."""
    require_function(answer)
    bills = [_bill(case, answer(*case.arguments)) for case in CASES]
    held, sent = zip(*bills, strict=True)
    _require_all("held", held, held_bytes, held_mistakes())
    _require_all("sent", sent, sent_bytes, sent_mistakes())
    case = Case(UNEVEN, 3, 8, 2)
    share = held_bytes(case) / case.num_values
    return (
        f"{len(CASES)} bills, right to the byte. Of units as small as these, stage 3 on 8 ranks "
        f"takes {share:.2f} bytes a parameter, not 16/8 = 2: the rest is padding."
    )


def _bill(case: Case, got: object) -> Sequence[float]:
    likely = "the function ends without a return" if got is None else ""
    is_pair = isinstance(got, (tuple, list)) and len(got) == 2
    require(is_pair, f"{case}: return two numbers, (held, sent)", got=got, likely=likely)
    for what, value in zip(("held", "sent"), got, strict=True):
        require_number(f"{case}: the number of bytes {what}", value)
    return got


def _require_all(
    what: str, got: Sequence[float], formula: Callable[[Case], int], mistakes: list[Variant]
) -> None:
    wrong = [(c, n) for c, n in zip(CASES, got, strict=True) if not close_to(n, formula(c), 1e-12)]
    if not wrong:
        return
    case, number = wrong[0]
    explains_all = (
        text
        for text, variant in mistakes
        if all(close_to(n, variant(c), 1e-12) for c, n in zip(CASES, got, strict=True))
    )  # else there are several mistakes: what explains the first wrong case?
    explains_one = (text for text, variant in mistakes if close_to(number, variant(case), 1e-12))
    likely = next(explains_all, "") or next(explains_one, "")
    raise NotYet(f"{case}, the bytes {what} are wrong", formula(case), number, likely)
