"""The real DeepSpeed, imported so that a rank of a notebook can use it, or why it can't be.

How it works: three things in DeepSpeed do not suit a cell, and each is turned off at the import. It
looks for a GPU and says so: it is told to train on the processor. It compiles an extension for
inference at its first start (a minute, and a C++ compiler): it gets none. And its Muon optimizer
asks torch.compile for help when imported, which takes a second: it is imported uncompiled.

Left out: DeepSpeed on GPUs; systems other than Linux, for which it is not installed.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch

RENAMED = r".*all_gather_into_tensor.* is deprecated|.*reduce_scatter_tensor.* is deprecated"
_MUON = "deepspeed.runtime.zero.muon.muon_optimizer"


def deepspeed_problem(system: str = sys.platform) -> str | None:
    """Why the real DeepSpeed can't run here, in one sentence; None when it can."""
    recorded = "so this lesson shows a recorded run instead"
    if not system.startswith("linux"):
        return f"DeepSpeed is set up on Linux only (this is {system}), {recorded}."
    if find_spec("deepspeed") is None:
        return f"DeepSpeed is not installed (`make venv` installs it), {recorded}."
    return None


def import_deepspeed() -> ModuleType:
    """The library, ready and silent. Raises RuntimeError with one sentence when it can't be."""
    problem = deepspeed_problem()
    if problem:
        raise RuntimeError(problem)
    with _environment("DS_ACCELERATOR", "cpu"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        deepspeed = importlib.import_module("deepspeed")
        deepspeed.get_accelerator()  # asked once: the answer is kept
        with _uncompiled():
            importlib.import_module(_MUON)
    # The name `deepspeed.comm.torch` is torch itself; only sys.modules has the module.
    sys.modules["deepspeed.comm.torch"].build_shm_op = _no_extension
    return deepspeed


def silence_renamed_collectives() -> None:
    """DeepSpeed calls two collectives by the names that torch 2.13 warns of: not in this rank."""
    warnings.filterwarnings("ignore", RENAMED, FutureWarning)


def _no_extension() -> None:
    """In place of the builder of an extension that training never calls."""


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
    """While a module is imported that decorates functions with torch.compile."""
    plain = torch.compile
    torch.compile = lambda function=None, **options: function or _same
    try:
        yield
    finally:
        torch.compile = plain


def _same(function: Any) -> Any:
    return function
