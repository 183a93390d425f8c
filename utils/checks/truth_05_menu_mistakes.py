"""Lab 05, the menus: what typical mistakes choose, so that a wrong answer can be named.

How it works: a mistake is another idea of what fits, or another way to choose. One that gives the
bill of every answer of the learner's explains them.
"""

from collections.abc import Callable, Sequence

from utils.checks.truth_05_menus import Menu, Option, again_flops, highest_peak, picked, search

Choice = tuple[int, ...] | None
Trial = tuple[tuple[Menu, ...], int]


def explain(trials: Sequence[Trial], choices: Sequence[Choice]) -> str:
    """The mistake that explains all choices, or what catches the eye in them."""
    pairs = list(zip(trials, choices, strict=True))
    for words, mistaken in MISTAKES.items():
        if all(_bill(trial, mistaken(*trial)) == _bill(trial, choice) for trial, choice in pairs):
            return words
    found = [choice for choice in choices if choice is not None]
    if len(found) > len(choices) / 2 and all(len(set(choice)) == 1 for choice in found):
        return "one option for all layers is rarely the best; each layer has a choice of its own"
    if found and all(choice in (None, _smallest(menus)) for (menus, _), choice in pairs):
        return "fewest FLOPs are asked for, not fewest bytes"
    if len(found) == len(choices):
        return "say None when no choice fits"
    return ""


def _bill(trial: Trial, choice: Choice) -> tuple[int, int] | None:
    if choice is None:
        return None
    options = picked(trial[0], choice)
    return again_flops(options), highest_peak(options)


def _if(fits: Callable) -> Callable[[Sequence[Menu], int], Choice]:
    """Search with another idea of what fits."""
    return lambda menus, budget_bytes: search(menus, budget_bytes, fits)


def _kept(options: Sequence[Option]) -> list[int]:
    return [option.kept_bytes for option in options]


def _smallest(menus: Sequence[Menu]) -> Choice:
    """The fewest kept bytes in each layer."""
    return tuple(min(range(len(m)), key=lambda k, m=m: m[k].kept_bytes) for m in menus)


def _greedy_from_the_first(menus: Sequence[Menu], budget_bytes: int) -> Choice:
    choice, left = [], budget_bytes
    for menu in menus:
        fitting = [k for k, option in enumerate(menu) if option.peak_bytes <= left]
        if not fitting:
            return None
        choice.append(min(fitting, key=lambda k: menu[k].again_flops))
        left -= menu[choice[-1]].kept_bytes
    return tuple(choice)


def _greedy_by_price(menus: Sequence[Menu], budget_bytes: int) -> Choice:
    """All plain at first; then the next step down that saves the most bytes per FLOP."""
    choice = [0] * len(menus)
    while highest_peak(picked(menus, choice)) > budget_bytes:
        steps = [k for k, menu in enumerate(menus) if choice[k] + 1 < len(menu)]
        if not steps:
            return None
        choice[max(steps, key=lambda k: _bytes_per_flop(*menus[k][choice[k] : choice[k] + 2]))] += 1
    return tuple(choice)


def _bytes_per_flop(before: Option, after: Option) -> float:
    flops = after.again_flops - before.again_flops
    return (before.kept_bytes - after.kept_bytes) / max(flops, 1)


MISTAKES: dict[str, Callable[[Sequence[Menu], int], Choice]] = {
    "while a layer runs backward, the layers after it are done: what they kept is free again": _if(
        lambda o, budget: max(sum(_kept(o)) - k.kept_bytes + k.peak_bytes for k in o) <= budget
    ),
    "peak_bytes already contain what the layer itself keeps; only the layers before it are added"
    "": _if(
        lambda o, budget: all(
            sum(_kept(o)[: k + 1]) + o[k].peak_bytes <= budget for k in range(len(o))
        )
    ),
    "kept bytes are not all: a layer that runs again needs its peak_bytes in backward": _if(
        lambda o, budget: sum(_kept(o)) <= budget
    ),
    "a layer that is done gives its working bytes back and holds only its kept_bytes": _if(
        lambda o, budget: sum(each.peak_bytes for each in o) <= budget
    ),
    "the layers before this one keep their bytes: subtract them from what is left": _if(
        lambda o, budget: all(each.peak_bytes <= budget for each in o)
    ),
    "off by one: the layer just before this one keeps its bytes as well": _if(
        lambda o, budget: all(
            sum(_kept(o)[: max(0, k - 1)]) + o[k].peak_bytes <= budget for k in range(len(o))
        )
    ),
    "a peak of exactly the budget still fits": _if(
        lambda o, budget: highest_peak(o) < budget
    ),
    "the cheapest option that fits now takes the room of later layers: try what each leaves": (
        _greedy_from_the_first
    ),
    "the most bytes per FLOP first is a good guess, not the optimum": _greedy_by_price,
}  # fmt: skip
