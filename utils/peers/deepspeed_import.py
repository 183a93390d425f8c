"""The real DeepSpeed, imported so that a rank of a notebook can use it, or why it can't be.

How it works: four habits of DeepSpeed do not suit a cell and are turned off at the import. It looks
for a GPU and says so: it is told to train on the processor. It compiles an extension for inference
at its first start, a minute and a C++ compiler: it gets none, since training never calls it. Its
Muon optimizer asks torch.compile for help when imported, which takes a second: it is imported
uncompiled. And it logs lines with the time of day: only errors are left.

Left out: DeepSpeed on GPUs; systems other than Linux, where it is not part of the set-up.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch

_MUON = "deepspeed.runtime.zero.muon.muon_optimizer"
_RENAMED = r"`torch\.distributed\.(all_gather_into_tensor|reduce_scatter_tensor)` is deprecated"


def deepspeed_problem(system: str = sys.platform) -> str | None:
    """Why the real DeepSpeed can't run here, in one sentence; None when it can."""
    if not system.startswith("linux"):
        reason = f"DeepSpeed is part of this course's set-up on Linux only, and this is {system}"
    elif find_spec("deepspeed") is None:
        reason = "DeepSpeed is not installed (`make venv` installs it)"
    else:
        return None
    return f"{reason}: what follows shows a recorded run instead."


def import_deepspeed() -> ModuleType:
    """The library, silent and without anything to compile.

    Raises RuntimeError with one sentence where `deepspeed_problem` knows why it can't be.
    """
    problem = deepspeed_problem()
    if problem:
        raise RuntimeError(problem)
    with _environment("DS_ACCELERATOR", "cpu"), _uncompiled(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        deepspeed = importlib.import_module("deepspeed")
        deepspeed.get_accelerator()  # the first answer is kept
        importlib.import_module(_MUON)
    deepspeed.utils.logger.setLevel("ERROR")
    # As an attribute, `deepspeed.comm.torch` is torch itself: only sys.modules has the module.
    sys.modules["deepspeed.comm.torch"].build_shm_op = _no_extension
    return deepspeed


def silence_renamed_collectives() -> None:
    """DeepSpeed calls two collectives by the names that torch 2.13 warns of: say nothing."""
    warnings.filterwarnings("ignore", _RENAMED, FutureWarning)


def _no_extension() -> None:
    """In place of the function that compiles the extension."""


@contextmanager
def _environment(name: str, text: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = text
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextmanager
def _uncompiled() -> Iterator[None]:
    """While a module is imported that decorates its functions with torch.compile."""
    plain = torch.compile
    torch.compile = _same
    try:
        yield
    finally:
        torch.compile = plain


def _same(function: Callable | None = None, **options: Any) -> Callable:
    return function or _same
