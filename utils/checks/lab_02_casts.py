"""Judge of lab 02, the cache: value, count and memory of casts that live for one step."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from utils.checks.engine import exercise
from utils.checks.helpers import NotYet, require
from utils.checks.truth_02 import LOW, NUM_MICRO_BATCHES, CastRun, train_with

LAB = "lab_02_manual_autocast"
OPTIMIZERS = {
    "SGD": lambda weights: torch.optim.SGD(weights, lr=0.5),
    "a fused AdamW": lambda weights: torch.optim.AdamW(weights, lr=0.5, fused=True),
}
STALE = {
    "SGD": "a cache that survives an optimizer step: the weight has changed, its copy has not",
    "a fused AdamW": "`_version` does not count what a fused optimizer does: let the optimizer "
    "itself tell when it has stepped",
}


@exercise(
    "02.2",
    "a cache for micro-batches",
    hints=[
        "Keep a dictionary in make_cast; every optimizer has register_step_post_hook(function).",
        "What makes two copies different? Which weight it is, and whether gradients were recorded "
        "when the copy was made. Store the weight beside its copy, so that its id stays taken; "
        "empty the dictionary in the hook.",
    ],
    lab=LAB,
)
def judge_cache(answer: Callable) -> str:
    """Casts between optimizer steps: right in value, number and life time."""
    _require_single_casts(answer)
    runs = []
    for name, make_optimizer in OPTIMIZERS.items():
        truth = train_with(lambda *_: _plain_cast, make_optimizer)
        run = train_with(answer, make_optimizer)
        _require_gradients(run, truth, name)
        runs.append(run)
    for run in runs:  # a wrong value is the graver mistake, and named first
        _require_count(run)
        _require_memory(run)
    saved = sum(truth.num_casts) - sum(run.num_casts)
    return (
        f"Gradients equal in every bit, {sum(run.num_casts)} casts of weights instead of "
        f"{sum(truth.num_casts)} ({saved} fewer), {run.copy_bytes} bytes of copies until the step "
        "and 0 after it."
    )


def _plain_cast(tensor: Tensor) -> Tensor:
    return tensor.to(LOW)


def _require_single_casts(answer: Callable) -> None:
    """What one cast must do, before any training."""
    weights = [nn.Parameter(torch.full((2, 2), value)) for value in (1.0, 2.0)]
    cast = answer(torch.optim.SGD(weights, lr=0.5), LOW)
    require(callable(cast), "make_cast must return a function", got=cast, likely="return cast")
    for tensor in (torch.tensor([257]), torch.tensor([True]), torch.ones(1).double()):
        name = str(tensor.dtype).removeprefix("torch.")
        likely = "integers are positions and labels, and fp64 was chosen on purpose"
        result = cast(tensor)
        require(isinstance(result, Tensor), "The cast must return a tensor", got=result)
        kept = result.dtype == tensor.dtype
        require(kept, f"An input of dtype {name} was cast", likely=likely)
    copies = [cast(weight) for weight in weights]
    require(all(copy.dtype == LOW for copy in copies), "An fp32 weight must come back in 16 bits")
    likely = "the key is a shape or a dtype, which two weights share: use the weight itself"
    apart = all(torch.equal(copy, w.to(LOW)) for copy, w in zip(copies, weights, strict=True))
    require(apart, "Two weights of one shape got the same copy", likely=likely)
    likely = "a copy that is detached or made under no_grad cuts the weight off from its gradient"
    leads = all(copy.requires_grad for copy in copies)
    require(leads, "The copy does not lead to a gradient", likely=likely)
    _require_no_activations(cast, weights[0])
    _require_no_grad_apart(answer)


def _require_no_activations(cast: Callable, weight: Tensor) -> None:
    for name, activation in (("An input", torch.ones(2, 2)), ("An activation", weight * 1)):
        first, second = cast(activation), cast(activation)
        likely = "keep leaves that want a gradient; the next micro-batch brings other activations"
        kept = first.untyped_storage()._cdata == second.untyped_storage()._cdata
        require(not kept, f"{name} was kept, where it only takes memory", likely=likely)


def _require_no_grad_apart(answer: Callable) -> None:
    """An evaluation between two micro-batches must not spoil the training."""
    weight = nn.Parameter(torch.ones(2, 2))
    cast = answer(torch.optim.SGD([weight], lr=0.5), LOW)
    with torch.no_grad():
        cast(weight)
    likely = "a copy made under torch.no_grad() has no graph: ask torch.is_grad_enabled() as well"
    leads = cast(weight).requires_grad
    require(leads, "After an evaluation the copy does not lead to a gradient", likely=likely)


def _require_gradients(run: CastRun, truth: CastRun, name: str) -> None:
    """Equal in every bit, micro-batch by micro-batch; the second step shows stale copies."""
    per_step = NUM_MICRO_BATCHES * run.num_weights
    for k, (ours, exact) in enumerate(zip(run.gradients, truth.gradients, strict=True)):
        if ours is None or not torch.equal(ours, exact):
            is_later = k >= per_step
            where = f"in step {k // per_step + 1} with {name}"
            likely = STALE[name] if is_later else "a copy belongs to one weight, and to no other"
            raise NotYet(f"A gradient differs from the one without a cache {where}", likely=likely)


def _require_count(run: CastRun) -> None:
    for got in run.num_casts:
        what = f"Weights were cast {got} times in a step of {NUM_MICRO_BATCHES} micro-batches"
        likely = "the copies must outlive the micro-batch" if got > run.num_weights else ""
        require(got == run.num_weights, what, run.num_weights, got, likely)


def _require_memory(run: CastRun) -> None:
    for got in run.bytes_before_step:
        likely = "something besides one copy of each weight is kept"
        what = "The copies that live before the optimizer steps take other bytes than the weights'"
        require(got == run.copy_bytes, what, run.copy_bytes, got, likely)
    for got in run.bytes_after_step:
        likely = "drop the old copies when the optimizer steps, not at their next use"
        require(got == 0, "Copies of old weights are alive after the step", 0, got, likely)
