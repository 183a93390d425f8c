"""Which mistakes lead to which wrong bill of lab 07.

How it works: a mistake is a variant of the formula of the bytes held or sent. One that gives all of
a learner's numbers explains them.
"""

from __future__ import annotations

from collections.abc import Callable

from utils.checks.truth_07_bill import (
    Case,
    gradient_values,
    held_bytes,
    message_bytes,
    num_messages,
    sent_bytes,
    state_bytes,
)

Variant = tuple[str, Callable[[Case], float]]

ONE_UNIT = "padded once for the whole model: each unit is a flat tensor of its own, with padding"
NO_PADDING = "no padding: a shard is an N-th of the flat tensor, rounded up"
EACH = "each parameter is padded by itself: the parameters of a unit share one flat tensor"
FLOOR = "an N-th is rounded down: the last values need a place, too"


def unpadded(formula: Callable[[Case], int]) -> Callable[[Case], float]:
    """A formula without padding, on fractions of values."""

    def at(case: Case) -> float:
        whole = case.with_units(((case.world_size * case.num_values,),))  # divides evenly
        return formula(whole) / case.world_size

    return at


def floored(formula: Callable[[Case], int], lost_copies: Callable[[Case], int]) -> Variant:
    """A formula with shards that are rounded down; `lost_copies` still hold the lost values."""

    def at(case: Case) -> int:
        kept = tuple((sum(s) // case.world_size * case.world_size,) for s in case.units)
        lost = case.num_values - sum(map(sum, kept))
        return formula(case.with_units(kept)) + lost * case.weight_bytes * lost_copies(case)

    return FLOOR, at


def regrouped(formula: Callable[[Case], int], by_parameter: bool) -> Callable[[Case], int]:
    """A formula with one unit in all, or one for each parameter."""

    def at(case: Case) -> int:
        sizes = [size for unit in case.units for size in unit]
        units = tuple((size,) for size in sizes) if by_parameter else (tuple(sizes),)
        return formula(case.with_units(units))

    return at


def padding_mistakes(formula: Callable[[Case], int]) -> list[Variant]:
    """What can be wrong with the padding, in both formulas alike."""
    exact = unpadded(formula)
    return [
        (NO_PADDING, exact),
        (NO_PADDING, lambda case: int(exact(case))),
        (NO_PADDING, lambda case: round(exact(case))),
        floored(formula, lambda case: 0),
        (ONE_UNIT, regrouped(formula, by_parameter=False)),
        (EACH, regrouped(formula, by_parameter=True)),
    ]


def _more(case: Case, stage: int, values: int) -> int:
    """What is held, with so many values of the weights' format more in one stage."""
    return held_bytes(case) + (case.stage == stage) * case.weight_bytes * values


def held_mistakes() -> list[Variant]:
    """(mistake, what it makes of the bytes held)."""
    sharing = [
        ("stage 1 keeps the gradients whole: only the optimizer's state is divided by N",
         lambda c: _more(c, 1, c.shard_values - c.num_values)),
        ("whole gradients are the parameters' own: padding comes with the flat tensor only",
         lambda c: _more(c, 1, c.padded_values - c.num_values)),
        ("whole weights lie in the flat tensors: their padding is held as well",
         lambda c: held_bytes(c) - (c.stage < 3) * c.weight_bytes
         * (c.padded_values - c.num_values)),
        ("stage 2 keeps a shard of the gradients, not all of them",
         lambda c: _more(c, 2, c.num_values - c.shard_values)),
        ("stage 2 keeps the weights whole: only stage 3 divides them",
         lambda c: _more(c, 2, c.shard_values - c.padded_values)),
        ("stage 3 keeps shards of the weights: whole ones exist only while a layer computes",
         lambda c: _more(c, 3, c.padded_values - c.shard_values)),
        ("the optimizer's state is not divided by N",
         lambda c: held_bytes(c) + (c.world_size - 1) * state_bytes(c)),
        ("the bytes of all ranks together: one rank's are asked",
         lambda c: c.world_size * held_bytes(c)),
    ]  # fmt: skip
    state = [
        ("16-bit weights take 12 bytes of state a value: two fp32 moments and the fp32 master",
         lambda c: held_bytes(c) - (c.weight_bytes == 2) * 4 * c.shard_values),
        ("fp32 weights are their own master: there is no second copy",
         lambda c: held_bytes(c) + (c.weight_bytes == 4) * 4 * c.shard_values),
        ("the master is sharded like the moments: the optimizer of a rank updates its shard only",
         lambda c: held_bytes(c) + (c.weight_bytes == 2)
         * 4 * (c.padded_values - c.shard_values)),
        ("Adam keeps two moments for each value",
         lambda c: held_bytes(c) - 4 * c.shard_values),
        ("the gradients are missing",
         lambda c: held_bytes(c) - c.weight_bytes * gradient_values(c)),
    ]  # fmt: skip
    whole_gradients = floored(held_bytes, lambda c: c.stage == 1)
    both_whole = floored(held_bytes, lambda c: (c.stage == 1) + (c.stage < 3))
    return [*padding_mistakes(held_bytes), whole_gradients, both_whole, *sharing, *state]


def sent_mistakes() -> list[Variant]:
    """(mistake, what it makes of the bytes sent)."""

    def times(messages: Callable[[Case], float]) -> Callable[[Case], float]:
        return lambda case: messages(case) * message_bytes(case)

    return [
        *padding_mistakes(sent_bytes),
        ("(N - 1)/N is forgotten: a rank sends N - 1 of the N slices",
         lambda c: num_messages(c) * c.padded_values * c.weight_bytes),
        ("one slice of N is sent: it passes the ring in N - 1 hops",
         lambda c: num_messages(c) * c.shard_values * c.weight_bytes),
        ("the bytes of all ranks together: one rank's are asked",
         lambda c: c.world_size * sent_bytes(c)),
        ("messages have the weights' bytes a value",
         lambda c: sent_bytes(c) * 4 / c.weight_bytes),
        ("the micro-batches are left out: what a rank does not keep is sent again for each",
         times(lambda c: {1: 2, 2: 2, 3: 3}[c.stage])),
        ("stage 1 keeps whole gradients, so they add up and leave once a step",
         times(lambda c: c.num_micro + 1 if c.stage == 1 else num_messages(c))),
        ("stage 1 keeps whole gradients and whole weights: both travel once a step",
         times(lambda c: 2 * c.num_micro if c.stage == 1 else num_messages(c))),
        ("stages 1 and 2 gather the weights once a step, after the update",
         times(lambda c: 3 * c.num_micro if c.stage == 3 else 2 * c.num_micro)),
        ("stage 2 gathers the weights once a step, after the update",
         times(lambda c: 2 * c.num_micro if c.stage == 2 else num_messages(c))),
        ("stage 2 keeps only a shard of the gradients: they leave in each micro-batch",
         times(lambda c: 2 if c.stage == 2 else num_messages(c))),
        ("stage 3 gathers the weights twice in each micro-batch: for forward and for backward",
         times(lambda c: c.num_micro + 2 if c.stage == 3 else num_messages(c))),
        ("stage 3 gathers the weights twice in each micro-batch: for forward and for backward",
         times(lambda c: 2 * c.num_micro if c.stage == 3 else num_messages(c))),
        ("stage 3 gathers the weights twice in each micro-batch: for forward and for backward",
         times(lambda c: 3 if c.stage == 3 else num_messages(c))),
        ("stage 3 keeps neither gradients nor weights: two gathers and a reduction each time",
         times(lambda c: 2 * c.num_micro + 1 if c.stage == 3 else num_messages(c))),
        ("stage 3 gathers no weights after the update: the next forward does",
         times(lambda c: 3 * c.num_micro + 1 if c.stage == 3 else num_messages(c))),
    ]  # fmt: skip
