"""How to train, in one frozen dataclass: what the planner ranks, the ladder climbs, a run obeys.

How it works: a `TrainingRecipe` names the precision, what runs again for backward, how a model is
spread over ranks, by whose code, and the batch. `flags()` and `command()` give the command line of
`python -m utils.train` that trains by it, so that a plan can be copied into a terminal.

"bf16" keeps fp32 weights: one process and DDP compute under autocast, FSDP and YaFSDP gather bf16
copies of fp32 shards, ZeRO and DeepSpeed hold bf16 weights beside fp32 masters. "fp16" is autocast
with loss scaling, for chips without bf16, and needs whole weights on every rank.

Left out: the model, the data, the number of steps, which are not part of how.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

PRECISIONS = ("fp32", "bf16", "fp16")
CHECKPOINTINGS = ("none", "blocks")  # "blocks": each block runs again in backward
ATTENTIONS = ("fused", "explicit")
METHODS = ("single", "ddp", "zero1", "zero2", "zero3", "fsdp", "yafsdp")
LIBRARIES = ("torch", "ours", "deepspeed")
METHODS_OF = {
    "torch": ("single", "ddp", "fsdp"),
    "ours": METHODS,
    "deepspeed": ("zero1", "zero2", "zero3"),
}
NAMES = {
    "single": "one process", "ddp": "DDP", "zero1": "ZeRO-1", "zero2": "ZeRO-2",
    "zero3": "ZeRO-3", "fsdp": "FSDP", "yafsdp": "YaFSDP",
}  # fmt: skip
WHOLE_WEIGHTS = ("single", "ddp")  # every rank holds the whole model in fp32


@dataclass(frozen=True)
class TrainingRecipe:
    """One way to train a model. Raises ValueError, in one sentence, for what cannot be."""

    precision: str = "fp32"
    attention: str = "fused"
    checkpointing: str = "none"
    method: str = "single"
    library: str = "torch"
    batch_size: int = 8  # sequences that a rank sends through the model at a time
    micro_batches: int = 1  # of that size, whose gradients add up to one step
    num_ranks: int = 1

    def __post_init__(self) -> None:
        choices = {
            "precision": PRECISIONS, "attention": ATTENTIONS, "checkpointing": CHECKPOINTINGS,
            "method": METHODS, "library": LIBRARIES,
        }  # fmt: skip
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}."
                )
        for name in ("batch_size", "micro_batches", "num_ranks"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a whole number from 1 on, not {value!r}.")
        if self.method not in METHODS_OF[self.library]:
            others = [each for each in LIBRARIES if self.method in METHODS_OF[each]]
            raise ValueError(
                f"The library {self.library} has no {self.method} here, it has "
                f"{', '.join(METHODS_OF[self.library])}: add --library "
                f"{' or --library '.join(others)}."
            )
        if self.method == "single" and self.num_ranks > 1:
            raise ValueError(
                f"The method single is one process, but num_ranks is {self.num_ranks}: take ddp, "
                "fsdp or another method."
            )
        if self.precision == "fp16" and self.method not in WHOLE_WEIGHTS:
            raise ValueError(
                "fp16 needs loss scaling, which is here for single and ddp only: take bf16, or "
                f"another method than {self.method}."
            )

    @property
    def sequences_per_step(self) -> int:
        """Of all ranks and micro-batches together."""
        return self.batch_size * self.micro_batches * self.num_ranks

    @property
    def name(self) -> str:
        """What changes from a plain fp32 step, in words: "bf16, checkpointing, 2 x FSDP"."""
        again = ("checkpointing",) * (self.checkpointing == "blocks")
        explicit = ("explicit attention",) * (self.attention == "explicit")
        spread = NAMES[self.method]
        if self.num_ranks > 1:
            spread = f"{self.num_ranks} x {spread}"
        whose = {"torch": "", "ours": " (ours)", "deepspeed": " (DeepSpeed)"}[self.library]
        return ", ".join((self.precision, *explicit, *again, spread + whose))

    def flags(self) -> tuple[str, ...]:
        """The options of `python -m utils.train` that differ from the defaults; ranks apart."""
        plain = TrainingRecipe()
        pairs = [
            (f"--{each.name.replace('_', '-')}", str(getattr(self, each.name)))
            for each in fields(self)
            if each.name != "num_ranks"
            and getattr(self, each.name) != getattr(plain, each.name)
        ]
        return tuple(word for pair in pairs for word in pair)

    def command(self, *more: str, num_nodes: int = 1) -> str:
        """The line for a terminal; several ranks start through torchrun, on each node once.

        `more` are further options of `utils.train`, quoted as a shell needs them. On one node ranks
        meet at localhost: torchrun would take the machine's name, which may have no address. For
        several nodes the line names the first one's address as $HEAD, as in the lesson. Raises
        ValueError for unequal nodes.
        """
        rest = " ".join((*self.flags(), *more))
        if num_nodes < 1 or self.num_ranks % num_nodes:
            ranks = f"{self.num_ranks} rank{'s' * (self.num_ranks > 1)}"
            raise ValueError(f"{ranks} cannot spread evenly over {num_nodes} nodes.")
        if self.method == "single":
            return f"python -m utils.train {rest}".rstrip()
        per_node = self.num_ranks // num_nodes
        where = "--standalone --local-addr localhost"
        if num_nodes > 1:
            where = f"--nnodes {num_nodes} --rdzv-backend c10d --rdzv-endpoint $HEAD:29500"
        return f"torchrun {where} --nproc-per-node {per_node} -m utils.train {rest}".rstrip()
