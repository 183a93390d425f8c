"""The first measurement of a process equals the second: no import may hold its tensors."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import torch
from utils.memory import measure_memory

def step():
    x = torch.ones(1000)
    return [x := x.sin() for _ in range(3)][-1]

print([(r.peak_bytes, r.end_bytes) for r in (measure_memory(step) for _ in range(2))])
"""


@pytest.mark.slow
def test_the_first_measurement_of_a_process_equals_the_second():
    root = Path(__file__).resolve().parents[1]
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=root, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == str([(12_000, 0)] * 2)
