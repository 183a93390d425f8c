"""Who does what: each technique of the course, ours and the libraries', behind one interface.

How it works: a `Contestant` makes a `System` of `utils.peers` for a number of ranks and a
precision; `CONTESTS` lists them, of each technique ours first. `PROBLEMS` says of a library that
may be absent why it cannot run here. Left out: training them (`utils.peers.everything`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from utils.peers import MakeSystem, System, TrainingJob
from utils.peers.deepspeed_import import deepspeed_problem
from utils.peers.real_yafsdp import real_yafsdp_system, yafsdp_problem
from utils.recipe import TrainingRecipe
from utils.techniques.checkpointing import checkpoint_by_function
from utils.trainer.systems import system_of

PROBLEMS: dict[str, Callable[[], str | None]] = {
    "DeepSpeed": deepspeed_problem,
    "YaFSDP": yafsdp_problem,
}
MakeFor = Callable[[int, str], MakeSystem]  # for so many ranks, in a precision


@dataclass(frozen=True)
class Contestant:
    """One who does a technique. `system` makes it for a number of ranks and a precision.

    `recorded` is the name of its row in the library's recorded run, if there is one.
    """

    technique: str
    whose: str
    system: MakeFor
    is_spread: bool = False  # over ranks; the others are one process
    recorded: str = ""

    @property
    def name(self) -> str:
        """As in "ZeRO-3, DeepSpeed"."""
        return f"{self.technique}, {self.whose}"

    @property
    def library(self) -> str:
        """Whose code it is, variants apart."""
        return self.whose.partition(",")[0]

    def problem(self) -> str | None:
        """Why it cannot run here, in one sentence; None when it can."""
        return PROBLEMS[self.library]() if self.library in PROBLEMS else None


def by_recipe(**choices: Any) -> MakeFor:
    """Makes what trains by a recipe with these choices; a precision among them stays."""

    def make(num_ranks: int, precision: str) -> MakeSystem:
        chosen = {"precision": precision, "num_ranks": num_ranks, **choices}
        return system_of(TrainingRecipe(**chosen))

    return make


def _alone(technique: str, whose: str, **choices: Any) -> Contestant:
    library = "ours" if whose.startswith("ours") else whose
    return Contestant(technique, whose, by_recipe(library=library, **choices))


def _spread(technique: str, whose: str, method: str, recorded: str = "") -> Contestant:
    make = by_recipe(method=method, library=whose.lower())
    return Contestant(technique, whose, make, is_spread=True, recorded=recorded)


def _by_function(model: nn.Module, rank: int, world_size: int, job: TrainingJob) -> System:
    """One process whose blocks run again by the older of our two ways."""
    for block in model.blocks:
        block.forward = partial(checkpoint_by_function, block.forward)
    return system_of(TrainingRecipe())(model, rank, world_size, job)


CONTESTS = (
    _alone("plain step", "torch"),
    _alone("autocast, bf16", "ours", precision="bf16"),
    _alone("autocast, bf16", "torch", precision="bf16"),
    _alone("fp16, scaled", "ours", precision="fp16"),
    _alone("fp16, scaled", "torch", precision="fp16"),
    Contestant("checkpointing", "ours, by function", lambda num_ranks, precision: _by_function),
    _alone("checkpointing", "ours, by hooks", checkpointing="blocks"),
    _alone("checkpointing", "torch", checkpointing="blocks"),
    _spread("DDP", "ours", "ddp"),
    _spread("DDP", "torch", "ddp"),
    *(
        _spread(f"ZeRO-{n}", whose, f"zero{n}", f"DeepSpeed stage {n}" * (whose == "DeepSpeed"))
        for n in (1, 2, 3)
        for whose in ("ours", "DeepSpeed")
    ),
    _spread("FSDP", "ours", "fsdp"),
    _spread("FSDP", "torch", "fsdp"),
    _spread("YaFSDP", "ours", "yafsdp"),
    Contestant(
        "YaFSDP", "YaFSDP", lambda num_ranks, precision: real_yafsdp_system(), is_spread=True,
        recorded="YaFSDP ZeRO-3",
    ),
)  # fmt: skip
