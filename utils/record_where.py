"""Where a recording was made: the device's name, its driver, and the version of the course's code.

Left out: clocks, temperature, other programs on the machine.
"""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import torch

from utils.check_hardware import BF16_FLAGS, cpu_flags
from utils.measured import processor_name

ROOT = Path(__file__).resolve().parents[1]
RECORDED = "utils/data/recorded"  # its files change while they are written


def device_name(device: str) -> str:
    """The chip's own name; for a CPU with what it has for 16 bits."""
    if device != "cpu":
        return torch.cuda.get_device_name()
    has_bf16 = bool((cpu_flags(torch) or set()) & set(BF16_FLAGS))
    return f"{processor_name()}, one core, {'with' if has_bf16 else 'without'} bf16 instructions"


def driver_version(device: str) -> str:
    """The CUDA driver's version, or the system's name for a CPU."""
    if device == "cpu":
        return platform.system() or "unknown"
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    answer = _said(command).split()
    return answer[0] if answer else "unknown"


def code_version() -> str:
    """The commit of this course, "... with changes" if files differ from it, or "unknown"."""
    commit = _said(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]).strip()
    if not commit:
        return "unknown"
    others = ["git", "-C", str(ROOT), "status", "--porcelain", "--", ".", f":!{RECORDED}"]
    return f"{commit} with changes" if _said(others).strip() else commit


def _said(command: list[str]) -> str:
    """What a program prints, or "" where it is missing or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
