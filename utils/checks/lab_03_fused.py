"""Judge of lab 03, the fused pass: values, overflows, and every operation on a gradient."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from utils.checks.diagnose import require_function, require_number
from utils.checks.engine import exercise
from utils.checks.helpers import NotYet, close_to, require
from utils.memory import MemoryMeter

SCALE, RTOL = 2.0**12, 1e-5
SMALL, LARGE = (0.3, 0.4, 0.0, 0.12), (3.0, 4.0, 0.0, 1.2)  # true norms of four gradients


class PassCounter(TorchDispatchMode):
    """Counts the operations that read each gradient's memory, and those that write it.

    A view (detach, flatten) touches no memory and does not count.
    """

    def __init__(self, gradients: Sequence[Tensor]) -> None:
        super().__init__()
        self.storages = [gradient.untyped_storage()._cdata for gradient in gradients]
        self.reads, self.writes = [0] * len(gradients), [0] * len(gradients)

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Run one operation and count the gradients among its inputs."""
        kwargs = kwargs or {}
        arguments = func._schema.arguments
        given = [*zip(arguments, args, strict=False)]
        given += [(each, kwargs[each.name]) for each in arguments if each.name in kwargs]
        written = {s for each, value in given if _is_written(each) for s in _storages(value)}
        read = {s for each, value in given if each.alias_info is None for s in _storages(value)}
        for k, storage in enumerate(self.storages):
            self.writes[k] += storage in written
            self.reads[k] += storage in read - written  # what is written anyway counts once
        return func(*args, **kwargs)


def _is_written(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


def _storages(value: Any) -> list[int]:
    leaves = tree_leaves(value)
    return [leaf.untyped_storage()._cdata for leaf in leaves if isinstance(leaf, Tensor)]


def extra_bytes(run: Callable[[], object], tensors: Sequence[Tensor]) -> int:
    """The most bytes that live beside `tensors` while `run()` runs."""
    with MemoryMeter() as meter:
        meter.label("gradients", *tensors)
        run()
    return meter.report().peak_bytes - sum(tensor.nbytes for tensor in tensors)


def _parameters(norms: Sequence[float], width: int = 8) -> list[nn.Parameter]:
    """One parameter for each norm, its gradient scaled, and one without a gradient."""
    generator = torch.Generator().manual_seed(7)
    parameters = [nn.Parameter(torch.zeros(width, width)) for _ in (*norms, 0)]
    for parameter, norm in zip(parameters, norms, strict=False):
        direction = torch.randn(width, width, generator=generator)
        parameter.grad = direction * (SCALE * norm / direction.norm())
    return parameters


def _gradients(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


@exercise(
    "03.3",
    "unscale, check and clip in one go",
    hints=[
        "Which single number, read off the scaled gradients, tells of an inf, of a NaN, and how "
        "much to clip? And two factors make one.",
        "One torch.linalg.vector_norm per gradient, then the norm of the norms, divided by "
        "loss_scale. If it is finite, mul_ each gradient by min(1, max_norm / (norm + 1e-6)) / "
        "loss_scale.",
    ],
    seconds=60,
    lab="lab_03_loss_scaling",
)
def judge_fused(answer: Callable) -> str:
    """First what comes out, then how often each gradient was touched."""
    require_function(answer)
    _require_values(answer, SMALL, 1.0)
    _require_values(answer, LARGE, 2.0)
    _require_values(answer, (0.0, 0.0), 1.0)
    for bad in (math.inf, -math.inf, math.nan):
        _require_skip(answer, bad)
    _require_passes(answer)
    parameters = _parameters(LARGE, 64)
    gradients = _gradients(parameters)
    extra = extra_bytes(lambda: answer(parameters, SCALE, 2.0), gradients)
    likely = "multiply with mul_, and square nothing yourself: a norm needs no second tensor"
    small_enough = extra < gradients[0].nbytes // 4
    require(small_enough, f"{extra:,} bytes were made beside the gradients", likely=likely)
    return f"One reading and one multiplication per gradient (the lesson: 4 passes), {extra} bytes."


def _require_values(answer: Callable, norms: Sequence[float], max_norm: float) -> None:
    parameters, before = _parameters(norms), _gradients(_parameters(norms))
    true_norm = math.hypot(*norms)
    addresses = [gradient.data_ptr() for gradient in _gradients(parameters)]
    got_norm = answer(parameters, SCALE, max_norm)
    given = f"With a true norm of {true_norm:g} and max_norm {max_norm:g}"
    after = _gradients(parameters)
    require(len(after) == len(before), "A parameter without gradient got one, or lost its own")
    in_place = addresses == [gradient.data_ptr() for gradient in after]
    likely = "`p.grad = p.grad * factor` is a copy; p.grad.mul_(factor) is not"
    require(in_place, "The gradients were not changed in place", likely=likely)
    clipping = min(1.0, max_norm / true_norm) if true_norm else 1.0
    for norm, new, old in zip(norms, after, before, strict=True):
        right = old * (clipping / SCALE)
        if not torch.allclose(new, right, rtol=RTOL, atol=0.0):
            likely = _value_mistake(new.norm().item(), norm, true_norm, max_norm)
            what = f"{given}, a gradient of norm {norm:g} is wrong"
            raise NotYet(what, right.norm().item(), new.norm().item(), likely)
    _require_norm(got_norm, true_norm, max_norm, given)


def _value_mistake(got: float, norm: float, true_norm: float, max_norm: float) -> str:
    """Name what leads to a gradient of norm `got`, once it is unscaled `norm`, or say nothing."""
    clipping = min(1.0, max_norm / true_norm) if true_norm else 1.0
    if math.isnan(got):
        return "0 / 0: gradients that are all zero have no direction to be clipped in"
    mistakes = {
        "the scale was not taken off": norm * clipping * SCALE,
        "clipping before unscaling: the clipped norm is the scaled one": (
            norm * max_norm / true_norm / SCALE if clipping == 1.0 and true_norm else -1.0
        ),
        "unscaling twice": norm * clipping / SCALE,
        "a gradient below max_norm stays as it is: the factor is at most 1": (
            norm * max_norm / true_norm if true_norm else -1.0
        ),
        "unscaled, but not clipped": norm,
        "clip by the norm of all gradients together, not of each one": min(norm, max_norm),
    }
    return next((name for name, value in mistakes.items() if close_to(got, value, 1e-4)), "")


def _require_norm(got: object, true_norm: float, max_norm: float, given: str) -> None:
    require_number("The norm that is returned", got)
    likely = {
        true_norm * SCALE: "this is the norm of the scaled gradients: divide it by loss_scale",
        min(true_norm, max_norm): "return the norm before clipping",
    }
    why = next((text for value, text in likely.items() if close_to(got, value, 1e-4)), "")
    good = close_to(got, true_norm, RTOL)
    require(good, f"{given}, the returned norm is wrong", true_norm, got, why)


def _require_skip(answer: Callable, bad: float) -> None:
    """One inf or NaN, in the last gradient; nothing may change, and the norm must tell."""
    parameters = _parameters(LARGE)
    _gradients(parameters)[-1][3, 3] = bad
    before = [gradient.clone() for gradient in _gradients(parameters)]
    got = answer(parameters, SCALE, 2.0)
    name = "NaN" if math.isnan(bad) else f"{bad}"
    tells = isinstance(got, (int, float)) and not math.isfinite(got)
    likely = "NaN is neither inf nor equal to anything: math.isfinite tells" if name == "NaN" else (
        "the norm must be inf or NaN, so that the caller skips the step: a size counts, not a sign"
    )
    require(tells, f"A gradient with {name} was not reported", got=got, likely=likely)
    pairs = zip(before, _gradients(parameters), strict=True)
    same = all(torch.equal(old.nan_to_num(), new.nan_to_num()) for old, new in pairs)
    likely = "look at the norm before any gradient is multiplied"
    require(same, f"With {name} in one gradient, gradients were changed", likely=likely)


def _require_passes(answer: Callable) -> None:
    parameters = _parameters(LARGE)
    with PassCounter(_gradients(parameters)) as counter:
        answer(parameters, SCALE, 2.0)
    reads, writes = max(counter.reads), max(counter.writes)
    likely = "unscaling and clipping are two factors of one multiplication"
    require(writes == 1, f"A gradient was multiplied {writes} times", 1, writes, likely)
    likely = "one norm tells of inf and NaN as well; isfinite or a second norm reads all again"
    require(reads == 1, f"A gradient was read {reads} times besides", 1, reads, likely)
