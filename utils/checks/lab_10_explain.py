"""Judge of lab 10, explain the difference: seven factors between two bills."""

import math
from collections.abc import Callable, Mapping, Sequence

from utils.checks.diagnose import require_function, require_number
from utils.checks.engine import exercise
from utils.checks.helpers import NotYet, close_to, require
from utils.checks.truth_10_explain import CASES, FACTORS, STORY, Case, logs_of
from utils.checks.truth_10_explain_mistakes import MISTAKES


@exercise(
    "10.4",
    "explain the difference",
    hints=[
        "Sum up each job first, over all of its logs: tokens kept, tokens computed, useful FLOPs, "
        "FLOPs done, seconds, rank-seconds, dollars. Each factor is a sum over the one before it.",
        "Of each log: since = start['resumed_from'] or 0; its own steps are those after `since`. "
        "Seconds and dollars of its own: the last step's minus those of step `since` (0 for a "
        "fresh start). With the seven sums of a job, s[0], s[1] / s[0], ..., s[6] / s[5] "
        "multiply to dollars; divide the paid job's by the planned one's.",
    ],
    seconds=30,
    lab="lab_10_all_together",
)
def judge_explain(answer: Callable) -> str:
    """Six pairs of jobs."""
    require_function(answer)
    results = [
        _result(case, answer(logs_of(case.planned), logs_of(case.paid))) for case in CASES
    ]  # fmt: skip
    wrong = [k for k, case in enumerate(CASES) if not _same(results[k], case.right)]
    if wrong:
        _explain(CASES[wrong[0]], results[wrong[0]], _name_of(results, wrong))
    right = STORY.right
    return (
        f"{len(CASES)} pairs of bills, each the product of its {len(FACTORS)} factors. "
        f"{STORY.name.capitalize()}: {STORY.whole:.3f} times the plan's dollars, with "
        f"{right['repeated']:.3f} for repeated steps and {right['price']:.3f} for the price."
    )


def _result(case: Case, got: object) -> Mapping[str, float]:
    likely = "the function ends without a return" if got is None else ""
    require(isinstance(got, Mapping), "Return a dict of factors", got=got, likely=likely)
    missing = [name for name in FACTORS if name not in got]
    others = [name for name in got if name not in FACTORS]
    require(not missing, f"Factors are missing: {', '.join(missing)}", got=list(got))
    require(not others, "There are other factors than the seven", got=others)
    for name in FACTORS:
        require_number(f"For {case.name}, {name}", got[name])
    return got


def _same(got: Mapping[str, float], expected: Mapping[str, float]) -> bool:
    return all(close_to(got[name], expected[name], 1e-9, 1e-12) for name in FACTORS)


def _name_of(results: Sequence[Mapping[str, float]], wrong: Sequence[int]) -> str:
    """The mistake that explains all results, or all wrong ones, or the first of them."""
    for numbers in (range(len(CASES)), wrong, wrong[:1]):
        for text, mistaken in MISTAKES:
            if all(_same(results[k], mistaken(CASES[k])) for k in numbers):
                return text
    return ""


def _explain(case: Case, got: Mapping[str, float], likely: str) -> None:
    product = math.prod(got[name] for name in FACTORS) + 0.0  # no "-0"
    if not close_to(product, case.whole, 1e-9):
        what = f"For {case.name}: the factors do not multiply to paid over planned dollars"
        raise NotYet(what, case.whole, product, likely)
    name = next(name for name in FACTORS if not close_to(got[name], case.right[name], 1e-9))
    what = f"For {case.name}: the product is right, but {name} is not"
    raise NotYet(what, case.right[name], got[name], likely)
