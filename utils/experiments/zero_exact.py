"""ZeRO's bytes and traffic against the formulas, on real ranks: odd shapes, and micro-batches.

How it works: a model whose layers divide by nothing has padding in every unit. `exact_row` counts
what each rank holds (memory meter) and sends (traffic ledger), and compares both with
`utils.zero_bill`, to the byte.

Left out: 16-bit weights, whose layouts are the same.
"""

from __future__ import annotations

from utils.config import GPTConfig
from utils.model import build_gpt
from utils.peers import TrainingJob
from utils.peers.harness import train_system
from utils.peers.ours import zero_system
from utils.peers.table import train_and_measure
from utils.ranks import run_ranks
from utils.techniques.flat import split_into_units
from utils.zero_bill import held_bytes, sent_bytes, sent_weights

EXACT_HEADERS = ("", "bytes held, formula", "bytes sent, formula", "counts agree")
ACCUMULATION_HEADERS = ("", "one micro-batch", "several", "several, by the ledger")


def exact_row(stage: int, num_ranks: int, config: GPTConfig) -> tuple[str, int, int, str]:
    """A row under EXACT_HEADERS; counts agree if they do on every rank, to the byte."""
    expected = expected_bytes(stage, num_ranks, config)
    counts = counted_bytes(stage, num_ranks, config)
    return f"stage {stage} on {num_ranks}", *expected, str(set(counts) == {expected})


def accumulation_row(
    stage: int, num_ranks: int, micro_batches: int
) -> tuple[str, float, float, float]:
    """A row under ACCUMULATION_HEADERS: how many times its weights a rank sends in a step."""
    job = TrainingJob(num_micro_batches=micro_batches, num_steps=2)
    (run, *_) = run_ranks(train_system, num_ranks, zero_system(stage), job)
    formula = (sent_weights(stage, num_ranks, number) for number in (1, micro_batches))
    return f"stage {stage}", *formula, run.sent_bytes / sum(p.nbytes for p in run.parameters)


def expected_bytes(stage: int, num_ranks: int, config: GPTConfig) -> tuple[int, int]:
    """(held, sent) of one rank, by formula."""
    model = build_gpt(config, device="meta")
    layouts = [unit.layout for unit in split_into_units(model, model.blocks, num_ranks)]
    return held_bytes(layouts, stage), sent_bytes(layouts, stage)


def counted_bytes(stage: int, num_ranks: int, config: GPTConfig) -> list[tuple[int, int]]:
    """(held, sent) of each rank, by the meter and the ledger, in the second of two steps."""
    job = TrainingJob(config, batch_size=2 * num_ranks, num_steps=2)
    pairs = run_ranks(train_and_measure, num_ranks, zero_system(stage), job)
    return [(size.held_bytes, run.sent_bytes) for run, size in pairs]
