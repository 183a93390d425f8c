"""Send functions and values between the notebook and the ranks, and name what cannot travel.

How it works: cloudpickle writes functions of a notebook's cells, of scripts and of tests by value,
so no rank imports a notebook; code of `utils` and of packages goes by name. Tensors come back as
tensors of the CPU, and a view of a large tensor takes only its own values along.
Left out: two tensors that share memory in a worker do not share it here, unless they are one.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import marshal
import pickle
import sys
import threading
import types
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import cloudpickle

from utils.checks.blame import is_library_file
from utils.checks.helpers import one_line
from utils.ranks.culprit import Unsendable, culprit, used_by

_one_at_a_time = threading.Lock()  # cloudpickle has one list of modules per process


class _Pickler(cloudpickle.Pickler):
    """cloudpickle with three rules of its own.

    Tensors: `to_cpu` moves them, else they must be on the CPU. Code keeps the name of its file,
    which some versions of cloudpickle drop: reports look the learner's line up in it. Modules go
    by name, also torch's config modules, which are of a class of their own and which cloudpickle
    takes along for a worker that says `dist` and `job.config`.
    """

    def __init__(self, file: io.BytesIO, to_cpu: bool) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self._to_cpu = to_cpu

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, types.CodeType):
            return marshal.loads, (marshal.dumps(value),)
        if isinstance(value, types.ModuleType) and value is sys.modules.get(value.__name__):
            return importlib.import_module, (value.__name__,)
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(value, torch.Tensor):
            return _plain_tensor(value, self._to_cpu).__reduce_ex__(pickle.HIGHEST_PROTOCOL)
        return super().reducer_override(value)


def pack_job(worker: Callable, arguments: tuple) -> bytes:
    """Write a worker and its arguments for the ranks.

    Raises TypeError, in one sentence that names the argument or the variable that cannot travel.
    """
    with _learners_module_by_value(worker):
        try:
            return _written((worker, arguments), to_cpu=False)
        except Exception as error:
            named = [(f"argument {i + 1}", value) for i, value in enumerate(arguments)]
            named += [(f"`{name}`, used by the worker,", each) for name, each in used_by(worker)]
            found = culprit(named, partial(_written, to_cpu=False))
            found = found or f"the worker fails with {type(error).__name__}: {one_line(str(error))}"
            raise TypeError(f"Not everything can be sent to the ranks: {found}.") from None


def pack_result(value: Any) -> bytes:
    """Write a rank's result for the notebook. Raises TypeError, which names what cannot travel."""
    try:
        return _written(value, to_cpu=True)
    except Exception as error:
        found = culprit([("the value", value)], partial(_written, to_cpu=True))
        raise TypeError(found or one_line(str(error))) from None


def unpack(data: bytes) -> Any:
    """Read what `pack_job` or `pack_result` wrote."""
    return pickle.loads(data)


def _written(value: Any, to_cpu: bool) -> bytes:
    file = io.BytesIO()
    _Pickler(file, to_cpu).dump(value)
    return file.getvalue()


def _plain_tensor(tensor: Any, to_cpu: bool) -> Any:
    """The same values in a tensor that any process can read, with no larger memory behind it."""
    import torch

    if hasattr(tensor, "device_mesh"):
        raise Unsendable(
            "a DTensor, which only its own ranks can read: take .to_local() or .full_tensor()"
        )
    if tensor.device.type not in ("cpu", "meta"):
        if not to_cpu:
            raise Unsendable(f"a tensor on {tensor.device}: send it as tensor.cpu()")
        is_parameter = isinstance(tensor, torch.nn.Parameter)
        moved = tensor.detach().cpu()
        return torch.nn.Parameter(moved, tensor.requires_grad) if is_parameter else moved
    if tensor.grad_fn is not None:
        tensor = tensor.detach()
    is_plain = type(tensor) is torch.Tensor and tensor.layout == torch.strided
    if is_plain and tensor.device.type == "cpu":
        num_bytes = tensor.numel() * tensor.element_size()
        if tensor.untyped_storage().nbytes() > num_bytes:
            return tensor.detach().clone().requires_grad_(tensor.requires_grad)
    return tensor


@contextlib.contextmanager
def _learners_module_by_value(worker: Callable) -> Iterator[None]:
    """Functions of the worker's module travel by value if it is a learner's: a script, a test."""
    while hasattr(worker, "func"):  # functools.partial
        worker = worker.func
    module = sys.modules.get(getattr(worker, "__module__", None) or "")
    file = getattr(module, "__file__", None)
    with _one_at_a_time:
        if file is None or module.__name__ == "__main__" or is_library_file(file):
            yield
            return
        cloudpickle.register_pickle_by_value(module)
        try:
            yield
        finally:
            cloudpickle.unregister_pickle_by_value(module)
