"""Factors that recorded runs show, for utils/levers.py: one small reader a lever.

How it works: a reader takes the rows of one experiment (utils/recorded_rows.py) and yields how many
times less is used with the lever than without, one factor for each setting that has both. Rows
that lack one side yield nothing. Left out: which of the factors is typical.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from utils.experiments.algorithms import ADAMW, AS_IT_COMES, MUON
from utils.experiments.software import tokens_of

Rows = list[dict]
Reader = Callable[[Rows], Iterator[float]]


def bf16(key: str, rows: Rows) -> Iterator[float]:
    """fp32 over bf16, of torch's own steps."""
    values = {row["precision"]: row[key] for row in rows if row.get("library", "torch") == "torch"}
    yield from over(values.get("fp32"), values.get("bf16"))


def checkpointing(rows: Rows) -> Iterator[float]:
    """Activation bytes of plan "none" over those of "full", for each attention."""
    peaks = {(row["attention"], row["plan"]): row["peak_bytes"] for row in rows}
    held = {row["attention"]: row.get("held_bytes") for row in rows}
    for attention, held_bytes in held.items():
        plain, full = peaks.get((attention, "none")), peaks.get((attention, "full"))
        if plain and full and held_bytes is not None and full > held_bytes:
            yield (plain - held_bytes) / (full - held_bytes)


def attention(key: str, rows: Rows) -> Iterator[float]:
    """Explicit over fused, at every length of a sequence."""
    values = {(row["context_length"], row["attention"]): row[key] for row in rows}
    for length in dict.fromkeys(length for length, _ in values):
        yield from over(values.get((length, "explicit")), values.get((length, "fused")))


def compiled(rows: Rows) -> Iterator[float]:
    """A step as it is over the compiled one."""
    yield from (1 / row["ratio"] for row in rows if row["ratio"])


def sharded(rows: Rows) -> Iterator[float]:
    """Bytes that a rank holds under DDP over those under each stage of our ZeRO."""
    held = {(row["method"], row["library"]): row["held_bytes"] for row in rows}
    for method in ("zero1", "zero2", "zero3"):
        yield from over(held.get(("ddp", "torch")), held.get((method, "ours")))


def yafsdp(rows: Rows) -> Iterator[float]:
    """A step of our FSDP over one of our YaFSDP."""
    seconds = {(row["method"], row["library"]): row["seconds"] for row in rows}
    yield from over(seconds.get(("fsdp", "ours")), seconds.get(("yafsdp", "ours")))


def tokens(base: str, name: str, rows: Rows) -> Iterator[float]:
    """Tokens to the same loss, of one optimizer over another."""
    yield from over(tokens_of(rows, base), tokens_of(rows, name))


def nothing(rows: Rows) -> Iterator[float]:
    """For levers that the course does not measure."""
    yield from ()


def over(without: float | None, with_lever: float | None) -> Iterator[float]:
    """The ratio, if both figures are there."""
    if without and with_lever:
        yield without / with_lever


READERS: dict[str, tuple[str, Reader]] = {
    "bf16_seconds": ("step_precision", partial(bf16, "seconds")),
    "bf16_bytes": ("whole_step", partial(bf16, "peak_bytes")),
    "compiled_seconds": ("compile", compiled),
    "attention_seconds": ("attention", partial(attention, "seconds")),
    "attention_bytes": ("attention", partial(attention, "peak_bytes")),
    "checkpointing_bytes": ("checkpointing", checkpointing),
    "sharded_bytes": ("ranks", sharded),
    "yafsdp_seconds": ("ranks", yafsdp),
    "tuned_tokens": ("algorithms", partial(tokens, AS_IT_COMES, ADAMW)),
    # Against tuned AdamW: what the optimizer does, not what the search for its rate does.
    "muon_tokens": ("algorithms", partial(tokens, ADAMW, MUON)),
    "nothing": ("", nothing),
}
