"""`make record`: run the timed experiments on this machine and keep them for the lessons.

How it works: every experiment of utils/experiments runs at full size on the GPU, or on the CPU
when there is none; the result is one JSON file per device in utils/data/recorded/ (recorded.py).
"""

import platform
import subprocess
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch

from utils.check_hardware import BF16_FLAGS, cpu_flags
from utils.experiments.checkpointing import checkpointing_sweep
from utils.experiments.precision import matmul_sweep, step_sweep
from utils.measured import processor_name
from utils.recorded import FOLDER, RecordedRun, write_recorded
from utils.timing import use_one_thread

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENTS: dict[str, Callable[[str], list[dict]]] = {
    "matmul_precision": matmul_sweep,
    "step_precision": step_sweep,
    "checkpointing": checkpointing_sweep,
}


def record(device: str = "", folder: Path = FOLDER) -> Path:
    """Run every experiment on `device` (default: the GPU if there is one) and write the file."""
    use_one_thread()
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    results = {}
    for name, experiment in EXPERIMENTS.items():
        print(f"{name} on {device} ...", flush=True)
        results[name] = experiment(device)
    run = RecordedRun(
        device=device_name(device),
        kind=device,
        driver=driver_version(device),
        torch=torch.__version__,
        date=date.today().isoformat(),
        code_version=code_version(),
        experiments=results,
    )
    return write_recorded(run, folder)


def device_name(device: str) -> str:
    """The chip's own name; for a CPU with what it has for 16 bits."""
    if device != "cpu":
        return torch.cuda.get_device_name()
    has_bf16 = bool((cpu_flags(torch) or set()) & set(BF16_FLAGS))
    return f"{processor_name()}, one core, {'with' if has_bf16 else 'without'} bf16 instructions"


def driver_version(device: str) -> str:
    """The CUDA driver's version, or the system's name for a CPU."""
    if device == "cpu":
        return platform.system()
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return answer.split()[0]


def code_version() -> str:
    """The commit of this course, or "unknown" outside of git."""
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


if __name__ == "__main__":
    print("wrote", record().name)
