"""What hooks of lab 08 return: anything but None replaces what they were called with.

How it works: `watch_returns` makes a layer's own `register_...` methods note what hooks return
beside None and beside what they were called with, which changes nothing. Only when a pass fails
afterwards is that told, as the likely reason.

Left out: hooks on parameters, whose results torch ignores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn

from utils.checks.helpers import NotYet

KINDS = ("register_forward_pre_hook", "register_forward_hook", "register_full_backward_pre_hook")


@contextmanager
def watch_returns(layers: Iterable[nn.Module]) -> Iterator[None]:
    """Turn an error into a NotYet if a hook registered inside has replaced something before it."""
    returned: list[object] = []
    for layer in layers:
        for kind in KINDS:
            setattr(layer, kind, partial(_register, getattr(layer, kind), returned))
    try:
        yield
    except (AttributeError, RuntimeError, TypeError):
        if not returned:
            raise
        what = f"A hook returned {type(returned[0]).__name__} {returned[0]!r:.40}"
        raise NotYet(what, likely="a hook must return None, or it replaces what it was called with;"
                     " a lambda returns the value of its expression") from None  # fmt: skip


def _register(
    register: Callable[..., Any], returned: list[object], hook: Callable[..., Any], **options: Any
) -> Any:
    def watched(*args: Any) -> Any:
        result = hook(*args)
        if result is not None and not any(result is each for each in args):
            returned.append(result)
        return result

    return register(watched, **options)
