"""A small recorded run, for the tests of what is read, skipped and shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from utils import recorded
from utils.recorded import RecordedRun

ROWS = [{"precision": "fp32", "size": 64, "seconds": 1.0, "flops_per_s": 2e9}]
NAME = "matmul_precision"
RUN = RecordedRun("Chip X 1", "cpu", "none", "2.13.0", "2026-11-23", "abc", {NAME: ROWS})


@pytest.fixture
def nothing_unsaid() -> Iterator[None]:
    """No sentence on a skipped file waits to be shown, before the test or after it."""
    recorded._unsaid.clear()
    yield
    recorded._unsaid.clear()


def as_data(run: RecordedRun = RUN) -> dict[str, Any]:
    """A run as its file has it."""
    return {"schema": 1, **{name: getattr(run, name) for name in recorded.FIELDS}}
