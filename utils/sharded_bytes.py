"""What one rank of sharded training holds: categories, stages, precisions, and the setting.

How it works: a unit is a block, or everything else (the root). Units are flat and padded to a
multiple of the number of ranks, except under DDP, which has no shards. What is held follows from by
how many ranks weights, gradients and optimizer state are divided.

Left out: FSDP2's own padding, by rows of each parameter (`utils.peers.fsdp2_traffic`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from utils.config import GPTConfig
from utils.costs import count_parameters, tensor_sizes

STAGES = ("DDP", "ZeRO-1", "ZeRO-2", "ZeRO-3", "FSDP")
SHARDS_STATE, SHARDS_GRADIENTS, SHARDS_WEIGHTS, PREFETCHES = range(1, 5)  # from which stage on
FULL, LOW = 4, 2  # bytes of a value in fp32 and in bf16
COUNTER_BYTES = 4  # Adam counts its steps, once for each tensor that it updates


class Precision(NamedTuple):
    """Bytes of a value: as it is held, and as it is computed with and sent."""

    weight: int
    gradient: int
    state: int  # Adam's two moments, and fp32 masters if there are any
    whole: int  # whole weights, their gradients, activations
    message: int  # gradients on their way


PRECISIONS = {
    "fp32": Precision(FULL, FULL, 8, FULL, FULL),
    "bf16": Precision(LOW, LOW, 12, LOW, LOW),
    "bf16, fp32 shards": Precision(FULL, FULL, 8, LOW, FULL),
}


@dataclass(frozen=True)
class ShardedBytes:
    """What one rank has at one moment."""

    parameters: int = 0
    gradients: int = 0  # those that this rank keeps for its update
    optimizer_state: int = 0
    gathered: int = 0  # whole weights, gradients and messages that exist for a moment only
    activations: int = 0  # saved for backward, temporary, and the batch

    @property
    def total(self) -> int:
        """All of it."""
        return sum(vars(self).values())

    def by_category(self) -> dict[str, int]:
        """The same by the categories' names in words."""
        return {name.replace("_", " "): size for name, size in vars(self).items()}


@dataclass(frozen=True)
class ShardedPrediction:
    """`held` is after backward, gradients included; the peak is the highest of the moments."""

    held: ShardedBytes
    moments: dict[str, ShardedBytes]

    @property
    def peak_moment(self) -> str:
        """Which moment is the highest."""
        return max(self.moments, key=lambda name: self.moments[name].total)

    @property
    def peak(self) -> ShardedBytes:
        """What there is at the highest moment."""
        return self.moments[self.peak_moment]


@dataclass(frozen=True)
class ShardedSetting:
    """Who trains what, and how. Raises ValueError for what makes no sense."""

    config: GPTConfig
    stage: str
    num_ranks: int
    batch_size: int  # sequences per rank
    precision: str = "fp32"
    checkpointing: bool = False
    num_tokens: int = 0  # in a sequence; 0 means the whole context

    def __post_init__(self) -> None:
        if self.stage not in STAGES:
            raise ValueError(f"stage must be one of {STAGES}, not {self.stage!r}.")
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision must be one of {tuple(PRECISIONS)}, not {self.precision!r}."
            )
        for name in ("num_ranks", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.precision == "bf16, fp32 shards" and self.level < SHARDS_WEIGHTS:
            raise ValueError(
                f"{self.stage} keeps whole weights, so they have one precision: take 'fp32' or "
                "'bf16', or a stage that shards the weights."
            )

    @property
    def level(self) -> int:
        """The stage as a number, 0 to 4."""
        return STAGES.index(self.stage)

    @property
    def kind(self) -> Precision:
        """The precision's bytes."""
        return PRECISIONS[self.precision]

    @property
    def tokens(self) -> int:
        """On one rank, in one step."""
        return self.batch_size * (self.num_tokens or self.config.context_length)

    @property
    def block_values(self) -> int:
        """Parameters of one block."""
        return count_parameters(self.config).block

    @property
    def root_values(self) -> int:
        """Parameters of everything else."""
        return count_parameters(self.config).total - self.config.num_layers * self.block_values

    def values(self, sharded_from: int) -> int:
        """Parameters in a rank's part of what is sharded from a stage on, padding included.

        Stage 1 keeps whole weights in flat units already, but gradients as autograd makes them.
        """
        block, root = self.block_values, self.root_values
        is_sharded = self.level >= sharded_from
        if is_sharded or (self.level and sharded_from == SHARDS_WEIGHTS):
            block, root = (-(-size // self.num_ranks) * self.num_ranks for size in (block, root))
        return (self.config.num_layers * block + root) // (self.num_ranks if is_sharded else 1)

    def held(self) -> ShardedBytes:
        """What this rank keeps: exact for the course's own systems."""
        num_units = self.config.num_layers + 1
        num_updated = num_units if self.level else len(tensor_sizes(self.config))
        state = self.kind.state * self.values(SHARDS_STATE) + COUNTER_BYTES * num_updated
        return ShardedBytes(
            parameters=self.kind.weight * self.values(SHARDS_WEIGHTS),
            gradients=self.kind.gradient * self.values(SHARDS_GRADIENTS),
            optimizer_state=state,
        )
