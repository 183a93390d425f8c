"""What lab 05's judge of menus compares with: layers that can run in several ways, and all choices.

How it works: `Option` is the bill of a layer run one way, measured by the meter. Short menus are
searched by trying every choice; long ones by a dynamic programme that the tests hold against the
search. `measured_peak_bytes` runs a choice for real.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import product

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge
from torch.utils.flop_counter import FlopCounterMode

from utils.checks.truth_05 import PolicyCheckpoint
from utils.checks.truth_05_models import build_blocks, random_input
from utils.config import GPTConfig
from utils.memory import MemoryMeter
from utils.techniques.chain import measure_layer
from utils.techniques.checkpointing import checkpoint_by_hooks


@dataclass(frozen=True)
class Option:
    """One way to run a layer: what it keeps, what it needs while it runs, what runs again."""

    name: str
    kept_bytes: int
    peak_bytes: int
    again_flops: int


Menu = tuple[Option, ...]
Fits = Callable[[Sequence[Option], int], bool]
Layer = Callable[[Tensor], Tensor]

WAYS: dict[str, Callable] = {
    "plain": lambda function, x: function(x),
    "selective": lambda function, x: PolicyCheckpoint(_is_dear)(function, x),
    "full": checkpoint_by_hooks,
}
UNEQUAL = (  # heads and feed-forward widths of the blocks of one model
    (16, 256), (4, 512), (16, 64), (8, 256),
)  # fmt: skip


def _is_dear(call: object) -> bool:
    return call.flops >= 8 * call.num_bytes


def peak_at(options: Sequence[Option], number: int) -> int:
    """Bytes while layer `number` runs: all that the layers before it keep, and its own peak."""
    return sum(option.kept_bytes for option in options[:number]) + options[number].peak_bytes


def highest_peak(options: Sequence[Option]) -> int:
    """The worst moment of forward and backward."""
    return max(peak_at(options, number) for number in range(len(options)))


def again_flops(options: Sequence[Option]) -> int:
    """FLOPs of everything that runs again."""
    return sum(option.again_flops for option in options)


def picked(menus: Sequence[Menu], choice: Sequence[int]) -> list[Option]:
    """The chosen options themselves."""
    return [menu[number] for menu, number in zip(menus, choice, strict=True)]


def search(
    menus: Sequence[Menu], budget_bytes: int, fits: Fits | None = None
) -> tuple[int, ...] | None:
    """The choice with the fewest FLOPs among all that fit, found by trying each; None without."""
    fits = fits or (lambda options, budget: highest_peak(options) <= budget)
    choices = [
        choice
        for choice in product(*(range(len(menu)) for menu in menus))
        if fits(picked(menus, choice), budget_bytes)
    ]
    return min(choices, key=lambda choice: again_flops(picked(menus, choice)), default=None)


def fewest_flops(menus: Sequence[Menu], budget_bytes: int) -> float:
    """The same for long menus, without the choice itself; inf if nothing fits."""

    @cache
    def fewest(number: int, left: int) -> float:
        if number == len(menus):
            return 0
        return min(
            (
                option.again_flops + fewest(number + 1, left - option.kept_bytes)
                for option in menus[number]
                if option.peak_bytes <= left
            ),
            default=float("inf"),
        )

    return fewest(0, budget_bytes)


def random_menus(num_trials: int) -> Iterator[tuple[tuple[Menu, ...], int]]:
    """Short chains with small numbers, and a budget from a little too tight to roomy."""
    draw = random.Random(5)
    for _ in range(num_trials):
        menus = tuple(_random_menu(draw) for _ in range(draw.randint(2, 5)))
        peaks = [
            highest_peak(picked(menus, choice))
            for choice in product(*(range(len(menu)) for menu in menus))
        ]
        yield menus, draw.randint(min(peaks) - 3, max(peaks))


def _random_menu(draw: random.Random) -> Menu:
    """A plain option, and up to two that keep less and run more again."""
    kept, work = draw.randint(8, 40), draw.randint(1, 20)
    menu = [Option("plain", kept, kept + work, 0)]
    for name, share in (("selective", 0.5), ("full", 0.1)):
        if draw.random() < 0.9:
            smaller = max(1, round(kept * share * draw.uniform(0.7, 1.3)))
            again = draw.randint(1, 30) + menu[-1].again_flops
            menu.append(Option(name, smaller, kept + work + draw.randint(0, 2), again))
    return tuple(menu)


def long_menus(num_layers: int) -> tuple[tuple[Menu, ...], int]:
    """A chain with far too many choices to try."""
    draw = random.Random(7)
    menus = tuple(_random_menu(draw) for _ in range(num_layers))
    plain = highest_peak([menu[0] for menu in menus])
    least = highest_peak([min(menu, key=lambda option: option.kept_bytes) for menu in menus])
    return menus, (plain + least) // 2


@cache
def unequal_layers() -> tuple[tuple[Layer, ...], Tensor]:
    """Blocks of one width and of different heads and feed-forward layers, and their input."""
    configs = [GPTConfig(1, h, 64, 64, ff_dim=f, attention="explicit") for h, f in UNEQUAL]
    blocks = tuple(block for config in configs for block in build_blocks(config))
    return blocks, random_input(configs[0], batch_size=2)


@cache
def measured_menus() -> tuple[Menu, ...]:
    """What each block costs when it runs plain, selective and full, under the meter."""
    blocks, x = unequal_layers()  # any input of this shape gives the same bytes
    return tuple(tuple(_measured(name, block, x) for name in WAYS) for block in blocks)


def _measured(name: str, block: Layer, x: Tensor) -> Option:
    cost = measure_layer(partial(WAYS[name], block), x)
    return Option(
        name=name,
        kept_bytes=cost.saved_bytes + cost.output_bytes,
        peak_bytes=max(cost.graph_peak_bytes, cost.backward_peak_bytes),
        again_flops=_step_flops(partial(WAYS[name], block), x) - _step_flops(block, x),
    )


def _step_flops(layer: Layer, x: Tensor) -> int:
    x = x.detach().requires_grad_()
    with FlopCounterMode(display=False) as counter:
        layer(x).sum().backward()
    return counter.get_total_flops()


def measured_peak_bytes(choice: Sequence[int]) -> int:
    """Bytes above the input at the worst moment of a real step by this choice."""
    blocks, x = unequal_layers()
    names = [option.name for option in picked(measured_menus(), choice)]
    x = x.detach().requires_grad_()
    x.grad, arriving = torch.zeros_like(x), torch.ones(()).expand_as(x)
    with MemoryMeter(*blocks) as meter:
        meter.label("temporary", x, arriving)
        x.grad = None
        meter.mark("start")
        y = x
        for name, block in zip(names, blocks, strict=True):
            y = WAYS[name](block, y)
        end = get_gradient_edge(y)
        del y
        torch.autograd.backward(end, arriving)
    report = meter.report()
    return report.peak_bytes - sum(report.at_mark("start").values())
