"""What is asked of the planner: a model, tokens, GPUs, a price, limits; checked.

How it works: `PlanRequest` refuses what cannot be planned, each with one sentence, before anything
is computed.

Left out: whether there is a price at all (utils.planning.hour_price).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Real

from utils.config import PRESETS, GPTConfig
from utils.hardware import Chip, find_chip, load_chips
from utils.planning.assumptions import Assumptions, between_link, inside_link
from utils.planning.texts import did_you_mean, named
from utils.recipe import METHODS
from utils.simulate.links import LINKS, Cluster, Link, cluster_of
from utils.simulate.llama import find_llama, load_llama_shapes

MOST_TOKENS = 1e18  # a hundred thousand times what any published model has seen
PRICES = ("on-demand", "spot", "marketplace", "own", "bought")
USUAL_TOKENS = 2**19  # of a step: half a million, as GPT-3's small models and llm.c have it
OTHER_SOFTWARE = ("TPU", "Maia")  # chips on which torch's GPU code does not run
LLAMA_CONTEXT = {"Llama 2": 4096, "Llama 3": 8192}
_CHOICES = ("allowed", "off")


@dataclass(frozen=True)
class PlanRequest:
    """A model, its tokens, and GPUs to train it on. Raises ValueError in one sentence.

    `price` is a kind of the price table, "own" with `usd_per_gpu_hour`, or "bought"; with "spot" an
    own price counts before lost hours. `inside` and `between` are links of `utils.simulate.links`
    by name, or links; None is the chip's usual one.
    `sequences_per_step` is the batch of all GPUs; None is about half a million tokens.
    """

    model: str | GPTConfig
    tokens: float
    chip: str = "H100 SXM"
    num_gpus: int = 8
    price: str = "on-demand"
    usd_per_gpu_hour: float | None = None
    gpus_per_node: int = 8
    inside: str | Link | None = None
    between: str | Link | None = None
    sequences_per_step: int | None = None
    deadline_days: float | None = None
    budget_usd: float | None = None
    methods: tuple[str, ...] = METHODS
    checkpointing: str = "allowed"
    only_low_precision: bool = False  # leave fp32 out
    assumptions: Assumptions = field(default_factory=Assumptions)

    def __post_init__(self) -> None:
        if self.usd_per_gpu_hour is not None and self.price in ("on-demand", "marketplace"):
            object.__setattr__(self, "price", "own")
        for name in ("num_gpus", "gpus_per_node", "sequences_per_step"):
            _whole(name, getattr(self, name))
        for name in ("tokens", "usd_per_gpu_hour", "deadline_days", "budget_usd"):
            _positive(name, getattr(self, name))
        if self.tokens > MOST_TOKENS:
            raise ValueError(
                f"{named('tokens')} must be at most {MOST_TOKENS:g}, not {self.tokens:g}."
            )
        self._check_choices()
        per_step = self.step_sequences * self.config.context_length
        if self.tokens < per_step:
            raise ValueError(
                f"{self.tokens:,.0f} tokens are less than one step of {per_step:,}: give more "
                f"tokens, or fewer {named('sequences_per_step')}."
            )

    def _check_choices(self) -> None:
        self._check_price()
        unknown = [each for each in self.methods if each not in METHODS]
        if unknown or not self.methods:
            raise ValueError(
                f"{named('methods')} must be some of {', '.join(METHODS)}, not {self.methods!r}."
            )
        if self.checkpointing not in _CHOICES:
            raise ValueError(
                f"{named('checkpointing')} must be allowed or off, not {self.checkpointing!r}."
            )
        if self.chip_row.use != "trains":
            raise ValueError(f"{self.chip} is made to serve models, not to train them.")
        if self.chip.startswith(OTHER_SOFTWARE):
            raise ValueError(f"{self.chip} needs other software: these recipes are for GPUs.")
        if self.chip_row.memory_gb is None or self.chip_row.bandwidth_tb_s is None:
            raise ValueError(f"The table has no memory size or bandwidth for {self.chip}.")
        self.cluster  # noqa: B018  refuses GPUs that do not fill their nodes
        if self.step_sequences % self.num_gpus:
            raise ValueError(
                f"{self.step_sequences} sequences a step do not divide among {self.num_gpus} "
                f"GPUs: take a multiple of {self.num_gpus}."
            )

    def _check_price(self) -> None:
        own, usd = self.usd_per_gpu_hour is not None, named("usd_per_gpu_hour")
        if self.price not in PRICES:
            raise ValueError(
                f"{named('price')} must be one of {', '.join(PRICES)}, not {self.price!r}."
            )
        if self.price == "own" and not own:
            raise ValueError(f"An own price needs {usd}, in dollars.")
        if self.price == "bought" and own:
            raise ValueError(
                "An hour of bought hardware is worked out from what it cost: leave out either "
                f"{named('price')} or {usd}."
            )

    @cached_property
    def config(self) -> GPTConfig:
        """The model's config."""
        return self.model if isinstance(self.model, GPTConfig) else find_model(self.model)

    @property
    def model_name(self) -> str:
        """As it was asked for."""
        return "your model" if isinstance(self.model, GPTConfig) else self.model

    @cached_property
    def chip_row(self) -> Chip:
        """The chip's row of the table."""
        try:
            return find_chip(self.chip)
        except ValueError as error:
            hint = did_you_mean(self.chip, [chip.name for chip in load_chips()])
            raise ValueError(f"{error}{hint}") from error

    @cached_property
    def cluster(self) -> Cluster:
        """The machines, with the chip's usual links unless others were given."""
        inside = _link(self.inside) or inside_link(self.chip_row)
        between = _link(self.between) or between_link(self.chip_row)
        return cluster_of(self.num_gpus, inside, between, self.gpus_per_node)

    @property
    def step_sequences(self) -> int:
        """Sequences of all GPUs in one step."""
        if self.sequences_per_step is not None:
            return self.sequences_per_step
        share = self.config.context_length * self.num_gpus
        return self.num_gpus * max(1, round(USUAL_TOKENS / share))

    @property
    def num_steps(self) -> int:
        """Whole steps, the last one included that brings the tokens."""
        return math.ceil(self.tokens / (self.step_sequences * self.config.context_length))


def find_model(name: str) -> GPTConfig:
    """A preset, or one of the published Llamas. Raises ValueError that lists both."""
    if name in PRESETS:
        return PRESETS[name]
    shapes = [shape.model for shape in load_llama_shapes()]
    if name not in shapes:
        known = (*PRESETS, *shapes)
        raise ValueError(
            f"There is no model {name!r}; the known ones are: {', '.join(known)}."
            f"{did_you_mean(name, known)}"
        )
    return find_llama(name).config(LLAMA_CONTEXT[name[:7]])


def _link(link: str | Link | None) -> Link | None:
    if isinstance(link, str) and link not in LINKS:
        raise ValueError(
            f"There is no link {link!r}; the known ones are: {', '.join(LINKS)}."
            f"{did_you_mean(link, list(LINKS))}"
        )
    return LINKS[link] if isinstance(link, str) else link


def _whole(name: str, value: object) -> None:
    if value is None and name == "sequences_per_step":
        return
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{named(name)} must be a whole number from 1 on, not {value!r}.")


def _positive(name: str, value: object) -> None:
    if value is None and name != "tokens":
        return
    if not isinstance(value, Real) or not math.isfinite(value) or value <= 0:
        raise ValueError(f"{named(name)} must be a number above 0, not {value!r}.")
