"""The benchmark of FSDP runs, names what it measured, and judges nothing by a time."""

from utils.bench_sharded import PEERS, sharded_ratios, sharded_seconds
from utils.config import GPTConfig
from utils.measured import MARK
from utils.peers.fsdp2 import Fsdp2System
from utils.ranks import run_ranks

TINY = GPTConfig(2, 2, 16, 16, 32)


def test_our_fsdp_and_fsdp2_are_timed_round_by_round():
    rounds = run_ranks(sharded_seconds, 2, Fsdp2System, TINY, 3)
    assert [len(each) for each in rounds] == [3, 3]
    assert all(ours > 0 and theirs > 0 for each in rounds for ours, theirs in each)


def test_a_line_for_each_peer():
    lines = list(sharded_ratios(2, TINY))
    assert len(lines) == len(PEERS) == 2
    assert all(f"against {name}: {MARK}" in line for name, line in zip(PEERS, lines, strict=True))
