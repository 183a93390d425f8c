"""Judge of lab 05, the menus: fewest FLOPs within a budget, against every choice and for real."""

from collections.abc import Callable, Sequence

from utils.checks.diagnose import require_function
from utils.checks.engine import exercise
from utils.checks.helpers import NotYet, require
from utils.checks.truth_05_menu_mistakes import Choice, Trial, explain
from utils.checks.truth_05_menus import (
    Menu,
    again_flops,
    fewest_flops,
    highest_peak,
    long_menus,
    measured_menus,
    measured_peak_bytes,
    peak_at,
    picked,
    random_menus,
    search,
)
from utils.plots import bytes_text

NUM_TRIALS, NUM_LAYERS = 40, 40
REAL_SHARES = (0.85, 0.6, 0.5)  # of the bytes at the peak of the plain step


@exercise(
    "05.2",
    "a menu for each layer",
    hints=[
        "Write best(k, left): the fewest FLOPs of layers k, k + 1, ... when the layers before have "
        "left `left` bytes. Which options of layer k fit, and what does each leave for the rest?",
        "An option fits if its peak_bytes are at most `left`; the rest then has `left` minus its "
        "kept_bytes. Return pairs (FLOPs, numbers) and take the smallest; past the last layer it "
        "is (0, ()). functools.cache makes 40 layers quick.",
    ],
    seconds=60,
    lab="lab_05_choosing_what_to_keep",
)
def judge_menus(answer: Callable) -> str:
    """Random short chains, a long one, and four unequal blocks that really run."""
    require_function(answer)
    trials = list(random_menus(NUM_TRIALS))
    choices = [_asked(answer, *trial) for trial in trials]
    for trial, choice in zip(trials, choices, strict=True):
        _require_best(trial, choice, lambda: explain(trials, choices))
    _require_long(answer)
    plain = highest_peak([menu[0] for menu in measured_menus()])
    for share in REAL_SHARES:
        peak = _require_real(answer, int(share * plain))
    return (
        f"The best of all choices in {NUM_TRIALS} short chains and one of {NUM_LAYERS} layers; "
        f"at {share:.0%} of the plain peak four real blocks took {bytes_text(peak)} of "
        f"{bytes_text(int(share * plain))}."
    )


def _asked(answer: Callable, menus: Sequence[Menu], budget_bytes: int) -> Choice:
    """The answer's choice, a tuple of numbers that stand in the menus."""
    choice = answer([list(menu) for menu in menus], budget_bytes)
    if choice is None:
        return None
    is_list = isinstance(choice, (list, tuple)) and all(type(each) is int for each in choice)
    likely = "return the numbers of the options, not the options or the FLOPs"
    require(is_list, "The choice must be a list of whole numbers", got=choice, likely=likely)
    what = f"{len(menus)} layers need {len(menus)} numbers"
    likely = "None says that nothing fits" if not choice else ""
    require(len(choice) == len(menus), what, got=list(choice), likely=likely)
    in_menu = all(0 <= each < len(menu) for each, menu in zip(choice, menus, strict=True))
    likely = "options are counted from 0"
    require(in_menu, "A number is not in its layer's menu", got=list(choice), likely=likely)
    return tuple(choice)


def _require_best(trial: Trial, choice: Choice, mistake: Callable[[], str]) -> None:
    menus, budget_bytes = trial
    truth = search(menus, budget_bytes)
    given = f"With {len(menus)} layers and a budget of {budget_bytes} bytes"
    if choice is None:
        what = f"{given}, None was returned, although {list(truth or ())} fits"
        require(truth is None, what, likely=mistake())
        return
    options = picked(menus, choice)
    for number in range(len(options)):
        needed = peak_at(options, number)
        what = f"{given}, {list(choice)} needs {needed} bytes while layer {number} runs"
        require(needed <= budget_bytes, what, likely=mistake())
    got, best = again_flops(options), again_flops(picked(menus, truth))
    what = f"{given}, {list(choice)} fits, but it is not the cheapest"
    require(got == best, what, f"{best} FLOPs again", f"{got}", mistake())


def _require_long(answer: Callable) -> None:
    menus, budget_bytes = long_menus(NUM_LAYERS)
    choice, best = _asked(answer, menus, budget_bytes), fewest_flops(menus, budget_bytes)
    require(choice is not None, f"{NUM_LAYERS} layers: None was returned, but a choice fits")
    options = picked(menus, choice)
    fits = highest_peak(options) <= budget_bytes
    require(fits, f"{NUM_LAYERS} layers: the choice is over the budget")
    got = again_flops(options)
    require(got == best, f"{NUM_LAYERS} layers: a cheaper choice fits", best, got)


def _require_real(answer: Callable, budget_bytes: int) -> int:
    """Run the choice for four unequal blocks under the meter."""
    menus = measured_menus()
    choice, truth = _asked(answer, menus, budget_bytes), search(menus, budget_bytes)
    what = f"Four real blocks within {budget_bytes:,} bytes: None was returned, but {truth} fits"
    require(choice is not None, what)
    peak = measured_peak_bytes(choice)
    if peak > budget_bytes:
        what = f"The real blocks ran over their budget of {budget_bytes:,} bytes"
        raise NotYet(what, got=f"{peak:,} bytes")
    got, best = (again_flops(picked(menus, each)) for each in (choice, truth))
    require(got == best, "Four real blocks: a cheaper choice fits", best, got)
    return peak
