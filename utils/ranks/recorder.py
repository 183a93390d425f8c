"""Sees every collective of this process, whoever calls it and in whichever thread.

How it works: all collectives pass torch's dispatcher as operators `c10d::...`. A kernel under the
key BackendSelect, which every call meets whatever its tensors are, tells the listeners and passes
the call on to the real kernel. So hand-written code, DDP's C++ reducer, FSDP2 and a helper thread
are all seen, without replacing one function of torch. `Work.wait` is wrapped too, for its name: a
rank that waits for an asynchronous collective then shows it in its stack.

A call costs some 20 microseconds more. Left out: the end of an asynchronous collective.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.distributed import Work

from utils.ranks.calls import KINDS, Call, call_of

Listener = Callable[[Call], None]
_listeners: list[Listener] = []
_kept: list[Any] = []  # torch forgets the kernels when their library object goes


def listen(listener: Listener) -> None:
    """From now on `listener(call)` is called before each collective, in the caller's thread."""
    install()
    _listeners.append(listener)


def stop_listening(listener: Listener) -> None:
    """The listener hears no more."""
    _listeners.remove(listener)


def install() -> None:
    """See the collectives of this process from now on; a second time does nothing."""
    if _kept:
        return
    library = torch.library.Library("c10d", "IMPL")
    for operator in KINDS:
        library.impl(operator, _kernel(operator), "BackendSelect", with_keyset=True)
    _kept.append(library)
    _name_the_waiting()


def _kernel(operator: str) -> Callable[..., Any]:
    overload = getattr(torch.ops.c10d, operator).default
    names = [argument.name for argument in overload._schema.arguments]
    below = torch._C._dispatch_keyset_full_after(torch._C.DispatchKey.BackendSelect)

    def see(keyset: Any, *values: Any) -> Any:
        if _listeners:
            call = call_of(operator, names, values)
            for listener in tuple(_listeners):
                listener(call)
        return overload.redispatch(keyset & below, *values)

    return see


def _name_the_waiting() -> None:
    plain_wait = Work.wait

    def wait(work: Work, *arguments: Any, **options: Any) -> Any:
        return plain_wait(work, *arguments, **options)

    Work.wait = wait
