"""Autocast written by hand: each operation gets its inputs in the precision that suits it.

How it works: a function mode is asked before every torch operation. It looks the operation's name
up in a rule set (autocast_rules.py), casts the floating-point inputs and calls the operation.
Backward needs nothing: a cast is an operation of the graph, so gradients return in the dtype of
what was cast. A weight is cast once and the copy is kept until the outermost context ends.

The rules apply to every tensor, on whatever device it lives: choose the set that fits.
Left out: an operation inside another Python function of torch.nn.functional (such as
multi_head_attention_forward) is not seen; torch.autocast works one level below and sees it.
"""

import threading
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map_only

from utils.techniques.autocast_rules import CPU_RULES, AutocastRules

LOW_DTYPES = (torch.bfloat16, torch.float16)
METHOD_NAMES = {"rmatmul": "matmul", "rpow": "pow", "radd": "add", "rmul": "mul", "truediv": "div"}
METHOD_NAMES |= {"rtruediv": "div", "rsub": "sub", "concat": "cat", "concatenate": "cat"}
_thread = threading.local()  # like torch's own state: other threads are not affected


class ManualAutocast(TorchFunctionMode):
    """`with ManualAutocast(CPU_RULES, torch.bfloat16): ...`; `enabled=False` makes an exception."""

    def __init__(
        self,
        rules: AutocastRules = CPU_RULES,
        low_dtype: torch.dtype = torch.bfloat16,
        enabled: bool = True,
    ) -> None:
        super().__init__()
        if low_dtype not in LOW_DTYPES:
            raise ValueError(f"low_dtype must be one of {LOW_DTYPES}, not {low_dtype}.")
        self.rules, self.low_dtype, self.enabled = rules, low_dtype, enabled
        self.num_casts = 0

    def copy(self) -> "ManualAutocast":
        """The same rules in a context of its own, as a layer that runs again needs them."""
        return ManualAutocast(self.rules, self.low_dtype, self.enabled)

    def __enter__(self) -> "ManualAutocast":
        _stack().append(self)
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        _stack().pop()
        if not _stack():
            _cache().clear()  # the optimizer may change the weights now

    def __torch_function__(
        self, func: Callable, types: Iterable[type], args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Cast the inputs of one operation, then run it."""
        kwargs = kwargs or {}
        if self.enabled and _stack()[-1] is self:  # only the innermost context decides
            args, kwargs = self._cast_inputs(public_name(func), args, kwargs)
        return func(*args, **kwargs)

    def _cast_inputs(self, name: str, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """The inputs in the precision that the rules want for operation `name`."""
        rules = self.rules
        if name in rules.banned:
            raise RuntimeError(
                f"{name} is unsafe in 16 bits: use {name}_with_logits, or leave autocast for it."
            )
        if name in rules.fp32_sums:
            return args, self._ask_for_fp32(args, kwargs)
        if name in rules.low:
            dtype = self.low_dtype
        elif name in rules.fp32:
            dtype = torch.float32
        elif name in rules.widest:
            dtype = self._widest((args, kwargs))
        else:
            return args, kwargs
        return tree_map_only(Tensor, lambda t: self._cast(t, dtype), (args, kwargs))

    def _cast(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        """One input in `dtype`; integers and fp64 are left alone."""
        if not _is_eligible(tensor) or tensor.dtype == dtype:
            return tensor
        is_weight = tensor.dtype == torch.float32 and tensor.is_leaf and tensor.requires_grad
        if dtype != self.low_dtype or not is_weight or tensor._is_view():
            self.num_casts += 1
            return tensor.to(dtype)
        # A copy made without a graph would cut the weight off from its gradient.
        key = (id(tensor), dtype, torch.is_grad_enabled())
        if key not in _cache():
            self.num_casts += 1
            _cache()[key] = (tensor, tensor.to(dtype))  # the weight too: its id must stay taken
        return _cache()[key][1]

    def _widest(self, inputs: Any) -> torch.dtype:
        """fp32 if any eligible input is fp32, else 16 bits."""
        tensors = [t for t in tree_flatten(inputs)[0] if isinstance(t, Tensor)]
        dtypes = {t.dtype for t in tensors if _is_eligible(t)}
        return torch.float32 if torch.float32 in dtypes else self.low_dtype

    def _ask_for_fp32(self, args: tuple, kwargs: dict) -> dict:
        """Set dtype=float32 unless the caller chose one: the cast happens inside the kernel."""
        first = args[0] if args else kwargs.get("input")
        is_chosen = any(isinstance(value, torch.dtype) for value in (*args, *kwargs.values()))
        if is_chosen or not isinstance(first, Tensor) or not _is_eligible(first):
            return kwargs
        return {**kwargs, "dtype": torch.float32}


def _is_eligible(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.dtype != torch.float64


def public_name(func: Callable) -> str:
    """`Tensor.__matmul__`, `torch.matmul` and `Tensor.matmul` are all "matmul"."""
    name = getattr(func, "__name__", "").removeprefix("__").removesuffix("__")
    return METHOD_NAMES.get(name, name)


def current_autocast() -> ManualAutocast | None:
    """The innermost context of this thread, or None."""
    return _stack()[-1] if _stack() else None


def _stack() -> list[ManualAutocast]:
    if not hasattr(_thread, "stack"):
        _thread.stack = []
    return _thread.stack


def _cache() -> dict[tuple, tuple[Tensor, Tensor]]:
    if not hasattr(_thread, "cache"):
        _thread.cache = {}
    return _thread.cache
