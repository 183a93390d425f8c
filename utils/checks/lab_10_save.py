"""Judge of lab 10, how often to save: the best interval, its price, the discount that pays."""

from collections.abc import Callable

from utils.checks.diagnose import require_function, require_number
from utils.checks.engine import exercise
from utils.checks.helpers import NotYet, close_to, require
from utils.checks.truth_10_save import CASES, MISTAKES, Result, Spot, overhead, right

NAMES = "useful seconds between saves", "rented seconds for each useful one", "percent"
INTERVAL_RTOL, RTOL = 1e-3, 1e-5  # near its optimum the price hardly changes, the interval does


@exercise(
    "10.5",
    "how often to save",
    hints=[
        "For an interval t, what are the rented seconds for each useful one? Divide the formula "
        "by t. Saves too often on the left, too much lost on the right: search for the lowest "
        "point in between, on a scale as fine as you like.",
        "def rented(t): return M * exp(r / M) * expm1((t + c) / M) / t. It has one lowest point: "
        "start from low, high = 0, M and keep that two thirds of it, again and again, whose inner "
        "end is lower. The discount must be at least 100 * (1 - 1 / rented(t)).",
    ],
    seconds=30,
    lab="lab_10_all_together",
)
def judge_save(answer: Callable) -> str:
    """Five machines; the formula is held against simulated interruptions in the tests."""
    require_function(answer)
    for spot in CASES:  # one after the other: with a wrong unit, the last ones overflow
        got = _result(spot, answer(spot.mean_hours, spot.save_s, spot.restart_s))
        if not _same(got, right(spot)):
            _explain(spot, got)
    restless, calm = (right(spot) for spot in CASES[:2])
    return (
        f"{len(CASES)} machines. One that is lost once in {CASES[1].mean_hours:g} hours saves "
        f"every {calm[0] / 60:.1f} minutes and pays {calm[1]:.3f} hours for a useful one; lost "
        f"once an hour, every {restless[0] / 60:.1f} minutes and {restless[1]:.3f} hours."
    )


def _result(spot: Spot, got: object) -> Result:
    likely = "the function ends without a return" if got is None else ""
    fine = isinstance(got, (tuple, list)) and len(got) == len(NAMES)
    require(fine, f"Return three numbers: {'; '.join(NAMES)}", got=got, likely=likely)
    for name, value in zip(NAMES, got, strict=True):
        require_number(f"For {spot.name}, {name}", value)
    require(got[0] > 0, f"For {spot.name}, the interval must be above 0", got=got[0])
    return tuple(got)


def _same(got: Result, expected: Result) -> bool:
    rtols = INTERVAL_RTOL, RTOL, RTOL
    return all(close_to(*pair) for pair in zip(got, expected, rtols, strict=True))


def _explain(spot: Spot, got: Result) -> None:
    expected = right(spot)
    likely = next((text for text, mistaken in MISTAKES if _same(got, mistaken(spot))), "")
    rtols = INTERVAL_RTOL, RTOL, RTOL
    for name, g, e, rtol in zip(NAMES, got, expected, rtols, strict=True):
        if close_to(g, e, rtol):
            continue
        what = f"For {spot.name} ({spot.mean_hours:g} hours), {name}: wrong"
        if name == NAMES[0]:
            dearer = 100 * (overhead(spot, min(g, 3 * spot.mean_s)) / expected[1] - 1)
            what += f", and {dearer:.1g} % dearer"
        raise NotYet(what, e, g, likely)
