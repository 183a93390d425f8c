"""The machine under the course: cores, memory, disk, bf16, GPUs, optional programs, one product.

How it works: a reader (`memory_bytes`, `cpu_flags`) asks the system and answers None where it
cannot know; a pure function turns the answer into a `Finding`. `utils.check_env` prints them, and
a lesson may show them. Only `matmul_finding` and `temporary_finding` can fail: everything else is a
fact or optional.
Left out: speed, which lesson 01 measures, and whether a GPU's driver suits a lesson.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BYTES_PER_GIB = 2**30
LITTLE_MEMORY_GIB = 4  # JupyterLab, one kernel with torch, and a browser beside them
LITTLE_DISK_GIB = 1
# Instructions that compute in bf16: x86 (AVX-512, AMX) and Arm (base, SVE), as torch names them.
BF16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class Finding:
    """One answer; `str()` of it is the line (or two lines, with the fix) that is printed."""

    status: str  # "OK", "FAIL" (the course does not run) or "INFO" (an optional thing)
    name: str
    text: str
    fix: str = ""  # for a FAIL: the command that mends it

    def __str__(self) -> str:
        line = f"[{self.status:^4}] {self.name}: {self.text}"
        return f"{line}\n       fix: {self.fix}" if self.fix else line


def pip_install(*arguments: str) -> str:
    """The command that makes the running Python install something, at the locked versions."""
    if sys.prefix == sys.base_prefix:  # no virtual environment: many systems forbid pip there
        return "make check-env  (without make: the first steps in README.md)"
    python = f'"{sys.executable}"' if " " in sys.executable else sys.executable
    return " ".join([python, "-m pip install", *arguments, "-c requirements-lock.txt"])


def cores_finding() -> Finding:
    """Cores this process may use: in a container fewer than the machine has."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    num_cores = len(affinity(0)) if affinity else os.cpu_count()
    return Finding("OK", "processor", f"{num_cores} cores usable, {platform.machine()}")


def memory_bytes(root: Path = Path("/")) -> int | None:
    """RAM in bytes, or a container's limit where that is lower; None where the system hides it."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None
    try:
        limit = (root / "sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total


def memory_finding(num_bytes: int | None) -> Finding:
    """Words for `memory_bytes()`."""
    if num_bytes is None:
        return Finding("INFO", "memory", "unknown on this system")
    gib = num_bytes / BYTES_PER_GIB
    if gib < LITTLE_MEMORY_GIB:
        text = f"{gib:.1f} GiB, tight: close other programs, run one notebook at a time"
        return Finding("INFO", "memory", text)
    return Finding("OK", "memory", f"{gib:.1f} GiB")


def disk_finding(free_bytes: int) -> Finding:
    """Free space where the course lies."""
    gib = free_bytes / BYTES_PER_GIB
    if gib < LITTLE_DISK_GIB:
        return Finding("INFO", "disk", f"{gib:.1f} GiB free, tight: saving a notebook may fail")
    return Finding("OK", "disk", f"{gib:.1f} GiB free")


def folder_finding(is_writable: bool) -> Finding:
    """Whether the course's folder can be written."""
    if is_writable:
        return Finding("OK", "course folder", "can be written")
    text = "read-only: lessons run; for labs of your own copy the whole folder to another place"
    return Finding("INFO", "course folder", text)


def temporary_finding(find: Callable[[], str] = tempfile.gettempdir) -> Finding:
    """Whether there is a folder for temporary files, which torch and Jupyter do not do without."""
    try:
        find()
    except OSError:
        fix = "export TMPDIR=FOLDER  (one that you can write to), or free some disk space"
        return Finding("FAIL", "temporary files", "no folder for them can be written", fix)
    return Finding("OK", "temporary files", "can be written")


def cpu_flags(torch: Any, cpuinfo: Path = Path("/proc/cpuinfo")) -> set[str] | None:
    """Names of the processor's abilities, from torch or else Linux; None where neither knows."""
    if hasattr(getattr(torch, "cpu", None), "get_capabilities"):
        return {name for name, value in torch.cpu.get_capabilities().items() if value is True}
    return set(cpuinfo.read_text().split()) if cpuinfo.is_file() else None


def bf16_finding(flags: Collection[str] | None) -> Finding:
    """Does the processor compute in bf16, or does torch go through float32?"""
    if flags is None:
        return Finding("INFO", "bf16", "unknown on this system; it works, its speed may differ")
    if fast := [flag for flag in BF16_FLAGS if flag in flags]:
        return Finding("OK", "bf16", f"fast, the processor has {', '.join(fast)}")
    return Finding("OK", "bf16", "emulated (no bf16 instructions): it saves bytes, it costs time")


def gpu_finding(torch: Any) -> Finding:
    """CUDA devices by name; none is fine."""
    if torch is None:
        return Finding("INFO", "GPU", "not looked for: torch cannot be imported")
    with warnings.catch_warnings(record=True) as caught:  # a driver too old warns, in many lines
        warnings.simplefilter("always")
        num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if num_gpus:
        names = ", ".join(torch.cuda.get_device_name(index) for index in range(num_gpus))
        return Finding("OK", "GPU", names)
    why = f" ({str(caught[0].message).splitlines()[0]})" if caught else ""
    return Finding("INFO", "GPU", f"no CUDA device{why}; none is needed, one adds GPU figures")


def program_finding(name: str, programs: tuple[str, ...], adds: str) -> Finding:
    """An optional program: which one is there, or what it would add."""
    if found := first_program(programs):
        return Finding("OK", name, found)
    return Finding("INFO", name, f"not found; not needed, it adds {adds}")


def first_program(programs: tuple[str, ...]) -> str | None:
    """The first of these programs that is installed, by name: its path is this machine's own."""
    return next((each for each in programs if shutil.which(each)), None)


def matmul_finding(torch: Any, problem: str = "") -> Finding:
    """float32 and bf16 products of small whole numbers, exact in both, against integers."""
    if torch is None:
        return Finding("FAIL", "torch works", f"no: {problem}", pip_install("torch"))
    whole = torch.arange(32 * 32).reshape(32, 32) % 3
    for dtype in (torch.float32, torch.bfloat16):
        if not torch.equal((whole.to(dtype) @ whole.to(dtype)).long(), whole @ whole):
            fix = pip_install("--force-reinstall", "torch")
            return Finding("FAIL", "torch works", f"no: a {dtype} product came out wrong", fix)
    return Finding("OK", "torch works", "float32 and bf16 products agree with integers")
