"""What a process that runs a learner's code may not do, laid down before it runs any.

How it works: all of it needs no rights, holds for every process that comes from this one, and
cannot be taken back. Limits of Linux: address space, size of a file, processor time, no core dump.
Capabilities are dropped, so that even root's processes cannot set the clock or look into others.
Landlock, part of the kernel since 5.13: files can be written, made and deleted only below one
folder; since 6.12 no signals to processes outside. Each call of `confine` adds a wall: a second
call in a child keeps the child's signals away from its parent as well.

Left out: reading, and the network: ranks need the loopback device. Where Landlock is missing
(`has_landlock`), writing and signals are not held back, and the grader says so.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
from pathlib import Path

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # the same numbers on every architecture
_PATH_BENEATH = 1
_WRITE_FILE, _TRUNCATE = 1 << 1, 1 << 14
_CHANGES = _WRITE_FILE | sum(1 << bit for bit in range(4, 13))  # remove, make
_REFER = 1 << 13
_SCOPES = 0b11  # abstract sockets and signals
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 24, 36, 38
_CAPABILITIES_V3 = 0x20080522
_DEVICES = ("/dev/null", "/dev/zero", "/dev/tty")
_libc = ctypes.CDLL(None, use_errno=True)


def landlock_version() -> int:
    """0 where the kernel has none, or has it switched off."""
    return max(0, _libc.syscall(_CREATE, None, 0, 1))


def adopt_orphans() -> None:
    """Processes that a descendant leaves behind become children of this one."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent() -> None:
    """The kernel kills this process when its parent ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def limit(memory_bytes: int, file_bytes: int, cpu_s: float) -> None:
    """Set hard limits; `memory_bytes` come on top of what this process has mapped by now."""
    mapped_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _lower(resource.RLIMIT_AS, mapped_bytes + memory_bytes)
    _lower(resource.RLIMIT_FSIZE, file_bytes)
    _lower(resource.RLIMIT_CPU, max(1, int(cpu_s)))
    _lower(resource.RLIMIT_CORE, 0)


def _lower(which: int, value: int) -> None:
    hard = resource.getrlimit(which)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (value, value))


def confine(folder: Path) -> None:
    """From now on this thread and all that comes from it may change files below `folder` only."""
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _drop_capabilities()
    version = landlock_version()
    if not version:
        return
    changes = _CHANGES | _REFER * (version >= 2) | _TRUNCATE * (version >= 3)
    words = [changes, 0, _SCOPES][: 1 if version < 4 else 2 if version < 6 else 3]
    attributes = struct.pack(f"={len(words)}Q", *words)
    rules = _libc.syscall(_CREATE, attributes, len(attributes), 0)
    if rules < 0:
        raise OSError(ctypes.get_errno(), "Landlock refused")
    try:
        _allow(rules, str(folder), changes)
        for device in _DEVICES:
            if os.path.exists(device):
                _allow(rules, device, changes & (_WRITE_FILE | _TRUNCATE))
        if _libc.syscall(_RESTRICT, rules, 0):
            raise OSError(ctypes.get_errno(), "Landlock refused")
    finally:
        os.close(rules)


def _allow(rules: int, path: str, rights: int) -> None:
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = struct.pack("=Qi", rights, handle)
        if _libc.syscall(_ADD, rules, _PATH_BENEATH, rule, 0):
            raise OSError(ctypes.get_errno(), "Landlock refused")
    finally:
        os.close(handle)


def _drop_capabilities() -> None:
    for number in range(64):
        _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
    if hasattr(_libc, "capset"):
        _libc.capset(struct.pack("=Ii", _CAPABILITIES_V3, 0), struct.pack("=6I", *[0] * 6))
