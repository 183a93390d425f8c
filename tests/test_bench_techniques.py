"""The benchmark of techniques runs, names what it measured, and judges nothing by a time."""

from utils.bench_techniques import (
    CHECKPOINTS,
    checkpoint_ratios,
    data_parallel_ratio,
    data_parallel_seconds,
)
from utils.config import GPTConfig
from utils.measured import MARK
from utils.ranks import run_ranks

TINY = GPTConfig(2, 2, 16, 16, 32)


def test_each_checkpoint_is_compared_with_torchs():
    lines = list(checkpoint_ratios(TINY, batch_size=1, repeats=3))
    assert len(lines) == len(CHECKPOINTS) == 2
    assert all(f"by {name} against torch's: {MARK}" in line
               for name, line in zip(CHECKPOINTS, lines, strict=True))  # fmt: skip
    assert all("x the time" in line and "target 1.05" in line for line in lines)


def test_data_parallelism_is_compared_round_by_round_on_two_ranks():
    rounds = run_ranks(data_parallel_seconds, 2, TINY, 3)
    assert [len(each) for each in rounds] == [3, 3]
    assert all(ours > 0 and theirs > 0 for each in rounds for ours, theirs in each)
    assert "on 2 ranks against torch's" in data_parallel_ratio(3, TINY)
