"""Judges of lab 01, money: time and dollars of a training run."""

from collections.abc import Callable

from utils.checks.diagnose import require_function, require_value
from utils.checks.engine import exercise
from utils.checks.helpers import close_to, require

TRIALS = (
    # parameters, tokens, GPUs, peak FLOP/s, utilisation, lost share, $ per GPU hour
    (7e9, 140e9, 64, 312e12, 0.40, 0.0, 2.79),
    (70e9, 2e12, 2048, 312e12, 0.435, 0.10, 1.79),
    (124e6, 10e9, 8, 989e12, 0.35, 0.05, 3.99),
)


@exercise(
    "01.5",
    "days and dollars",
    hints=[
        "FLOPs first (6ND), then GPU seconds, then the seconds on the wall.",
        "When a share s of the time is lost, the useful time is (1 - s) of the total: divide. "
        "Every GPU is paid for every hour, lost or not.",
    ],
    lab="lab_01_the_bill",
)
def judge_bill(answer: Callable) -> str:
    """(days, dollars) of a run, exact up to rounding."""
    require_function(answer)
    for trial in TRIALS:
        num_parameters, num_tokens, num_gpus, peak, utilisation, lost, usd = trial
        gpu_hours = 6 * num_parameters * num_tokens / (peak * utilisation) / (1 - lost) / 3600
        days, dollars = gpu_hours / num_gpus / 24, gpu_hours * usd
        got = answer(*trial)
        is_pair = isinstance(got, (tuple, list)) and len(got) == 2
        require(is_pair, "Return two numbers, days and dollars", got=got)
        swapped = close_to(got[0], dollars) and close_to(got[1], days)
        require(not swapped, "Days come first, then dollars", got=got)
        shared = {
            "training is 6 FLOPs per parameter and token; 2 is forward alone": 1 / 3,
            "the peak is never reached: divide by the utilisation": utilisation,
            "lost time is missing": 1 - lost if lost else -1.0,
            "divide by (1 - lost share); 1 + share is too little": (1 - lost) * (1 + lost)
            if lost
            else -1.0,
        }
        of_days = shared | {
            "these are hours": 24.0,
            "these are seconds": 86400.0,
            "the GPUs share the work": float(num_gpus),
        }
        of_dollars = shared | {
            "every GPU is paid, not one": 1 / num_gpus,
            "these are dollars times GPUs once too often": float(num_gpus),
            "the price is per hour": 1 / 24,
        }
        _require("The number of days", got[0], days, of_days)
        _require("The price in dollars", got[1], dollars, of_dollars)
    return f"The last trial takes {days:.2f} days and ${dollars:,.0f}."


def _require(what: str, got: object, truth: float, factors: dict[str, float]) -> None:
    mistakes = {mistake: truth * factor for mistake, factor in factors.items()}
    require_value(what, got, truth, mistakes, rtol=1e-6, in_bytes=False)
