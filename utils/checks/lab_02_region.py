"""Judge of lab 02, the fp32 region: a function that computes in fp32 whatever surrounds it."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

import torch
from torch import Tensor

from utils.checks.engine import exercise
from utils.checks.helpers import require
from utils.techniques.autocast import ManualAutocast
from utils.techniques.autocast_rules import CUDA_RULES

SURROUNDINGS: dict[str, list[Callable[[], AbstractContextManager]]] = {
    "no autocast": [],
    "our autocast": [ManualAutocast],
    "our autocast in fp16 with CUDA's rules": [lambda: ManualAutocast(CUDA_RULES, torch.float16)],
    "torch's autocast": [lambda: torch.autocast("cpu", torch.bfloat16)],
    "a region without autocast": [ManualAutocast, lambda: ManualAutocast(enabled=False)],
}
DTYPES = ((torch.bfloat16, torch.float32), (torch.float32, torch.float16))  # of x, of weight


class Probe:
    """The function to be wrapped: a scaled product of chosen rows; it looks at its inputs first."""

    def __init__(self, look: Callable[[dict[str, Tensor]], None]) -> None:
        self.look, self.num_calls, self.product_dtype = look, 0, None

    def __call__(self, x: Tensor, weight: Tensor, rows: Tensor, *, scale: Tensor) -> Tensor:
        """x (4 x 4), weight (4 x 4), rows (integers), scale (fp64) -> chosen rows."""
        self.num_calls += 1
        self.look({"x": x, "weight": weight, "rows": rows, "scale": scale})
        product = x @ weight
        self.product_dtype = product.dtype
        return (product * scale)[rows]


def _inputs(dtype: torch.dtype, weight_dtype: torch.dtype) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(6)
    x, weight = (torch.randn(4, 4, generator=generator) for _ in range(2))
    return {
        "x": x.to(dtype).requires_grad_(),
        "weight": weight.to(weight_dtype).requires_grad_(),
        "rows": torch.tensor([3, 0]),
        "scale": torch.tensor(0.5, dtype=torch.float64),
    }


@exercise(
    "02.5",
    "a function that stays in fp32",
    hints=[
        "Two things happen on the way in: 16-bit tensors are cast up, and the surrounding autocast "
        "is switched off while the function runs.",
        "`with ManualAutocast(enabled=False), torch.autocast('cpu', enabled=False):` around the "
        "call; go through args and kwargs and change only bf16 and fp16 tensors.",
    ],
    lab="lab_02_manual_autocast",
)
def judge_region(answer: Callable) -> str:
    """Value, gradients, dtypes and calls in each surrounding, and what is left behind."""
    for name, contexts in SURROUNDINGS.items():
        for dtypes in DTYPES:
            ours = _inputs(*dtypes)
            with ExitStack() as stack:
                for context in contexts:
                    stack.enter_context(context())
                result = _fp32_result(answer, ours, name)
            _require_values(result, ours, name)  # outside: backward never belongs into autocast
    _require_restored(answer)
    return f"fp32 in {len(SURROUNDINGS)} surroundings, gradients included, and nothing left behind."


def _fp32_result(answer: Callable, ours: dict[str, Tensor], name: str) -> Tensor:
    """The result of one call with mixed inputs, positional and by keyword."""
    probe = Probe(lambda seen: _require_inputs(seen, ours, name))
    wrapped = answer(probe)
    require(callable(wrapped), "The decorator must return a function", got=wrapped)
    result = wrapped(ours["x"], rows=ours["rows"], weight=ours["weight"], scale=ours["scale"])
    require(probe.num_calls == 1, "The function must run once", 1, probe.num_calls)
    likely = "casting the inputs is half of it: switch the surrounding autocast off as well"
    is_full = probe.product_dtype == torch.float32
    require(is_full, f"With {name} around, a product inside ran in 16 bits", likely=likely)
    is_full = getattr(result, "dtype", None) == torch.float32
    require(is_full, f"With {name} around, the result is not fp32", likely="return it as it is")
    return result


def _require_inputs(inputs: dict[str, Tensor], ours: dict[str, Tensor], name: str) -> None:
    """16-bit inputs arrive in fp32, all others untouched."""
    for key, seen in inputs.items():
        given = ours[key]
        if given.dtype in (torch.bfloat16, torch.float16):
            how = "a keyword argument: cast kwargs too" if key != "x" else "cast 16-bit inputs up"
            what = f"With {name} around, a 16-bit input came in uncast"
            require(seen.dtype == torch.float32, what, likely=how)
        else:
            likely = "change only bf16 and fp16: integers are positions, fp64 was chosen on purpose"
            kind = str(given.dtype).removeprefix("torch.")
            require(seen.dtype == given.dtype, f"An input of dtype {kind} was cast", likely=likely)
            likely = "hand it on as it is: a copy costs memory"
            same = seen.data_ptr() == given.data_ptr()
            require(same, f"An input of dtype {kind} was copied", likely=likely)


def _require_values(result: Tensor, ours: dict[str, Tensor], name: str) -> None:
    """Result and gradients equal fp32's in every bit."""
    exact = {key: t.detach().clone().requires_grad_(t.requires_grad) for key, t in ours.items()}
    up = {key: exact[key].float() for key in ("x", "weight")}
    truth = Probe(lambda seen: None)(**up, rows=exact["rows"], scale=exact["scale"])
    truth.sum().backward()
    equal = torch.equal(result, truth)
    require(equal, f"With {name} around, the result differs from fp32's")
    likely = "a detached input or torch.no_grad() cuts the graph"
    require(result.requires_grad, "No gradient reaches the inputs", likely=likely)
    result.sum().backward()
    for key in ("x", "weight"):
        got, expected = ours[key].grad, exact[key].grad
        equal = got is not None and torch.equal(got, expected)
        require(equal, f"The gradient of {key} differs from fp32's", likely=likely)


def _require_restored(answer: Callable) -> None:
    """After a call and after an exception the surrounding autocast goes on."""
    x = torch.ones(2, 2)

    def fail(_: Tensor) -> None:
        raise ZeroDivisionError

    for context in (ManualAutocast, lambda: torch.autocast("cpu", torch.bfloat16)):
        with context():
            answer(torch.neg)(x)
            require((x @ x).dtype == torch.bfloat16, "Autocast stays off after the call")
            try:
                answer(fail)(x)
            except ZeroDivisionError:
                pass
            else:
                require(False, "An exception of the function was swallowed", likely="let it pass")
            likely = "only a `with` leaves the region when an exception passes through"
            left = (x @ x).dtype == torch.bfloat16
            require(left, "After an exception autocast stays off", likely=likely)
