"""Published runs that the planner is checked against: the rows of `published_throughput.csv`.

How it works: one frozen dataclass a line, with the model's shape (or the course's with the same
bill), how the run was set as far as is public, its tokens and its GPU-hours. `left_out` says what
the run did that the planner does not know; %WORDS% in it are replaced by the planner's figures.

Left out: predicting them (utils.planning.published).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date
from functools import lru_cache
from types import SimpleNamespace

from utils.config import GPTConfig
from utils.data import check_row, read_table
from utils.hardware import Chip, find_chip
from utils.recipe import TrainingRecipe

ROLES = ("calibrates", "not fitted")


@dataclass(frozen=True)
class PublishedTraining:
    """One row of published_throughput.csv: a run, how it was set, and its GPU-hours."""

    run: str
    num_layers: int
    num_heads: int
    num_kv_heads: int
    model_dim: int
    ff_dim: int  # of two matrices that hold what a gated layer's three do
    vocab_size: int
    context_length: int
    tied: str
    chip: str
    bandwidth_tb_s: float | None  # if it is not the chip's usual one
    num_gpus: int
    method: str
    library: str
    batch_size: int
    micro_batches: int
    attention: str
    rerun_share: float  # of the blocks
    fused_loss: str
    tokens: float
    gpu_hours: float
    role: str
    date: date
    source: str
    status: str
    left_out: str
    note: str = ""

    def __post_init__(self) -> None:
        values = dict(vars(self))
        if not 0 <= values.pop("rerun_share") <= 1:
            raise ValueError(f"rerun_share is {self.rerun_share}; it must lie in [0, 1].")
        check_row(SimpleNamespace(**values))
        if self.role not in ROLES or {self.tied, self.fused_loss} - {"yes", "no"}:
            raise ValueError(f"role must be {' or '.join(ROLES)}, tied and fused_loss yes or no.")

    @property
    def config(self) -> GPTConfig:
        """The model, or the course's with the same bill."""
        return GPTConfig(
            self.num_layers, self.num_heads, self.model_dim, self.context_length,
            self.vocab_size, self.ff_dim, self.num_kv_heads, bias=self.tied == "yes",
            tied_embeddings=self.tied == "yes",
        )  # fmt: skip

    @property
    def recipe(self) -> TrainingRecipe:
        """Without checkpointing."""
        return TrainingRecipe(
            "bf16", self.attention, "none", self.method, self.library, self.batch_size,
            self.micro_batches, self.num_gpus,
        )  # fmt: skip

    @property
    def chip_row(self) -> Chip:
        """The chip, with the memory that these machines had."""
        chip = find_chip(self.chip)
        return replace(chip, bandwidth_tb_s=self.bandwidth_tb_s or chip.bandwidth_tb_s)


@lru_cache
def load_published() -> tuple[PublishedTraining, ...]:
    """All rows, in the table's order."""
    return read_table("published_throughput.csv", PublishedTraining)
