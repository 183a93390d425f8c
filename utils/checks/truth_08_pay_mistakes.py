"""Which mistakes lead to which wrong number of lab 08's "does it pay?"."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from utils.checks.truth_08_pay import (
    Job,
    Seconds,
    exposed_s,
    exposed_usd,
    fewest_gpus,
    hiding_tokens,
    needed_bytes,
    seconds,
)

Variant = tuple[str, Callable[[Job], float | None]]

TRANSIENT = (
    "whole layers are forgotten: besides its shards a GPU has the root and two layers whole"
)
PADDING = "no padding: a shard is an N-th of the unit's values, rounded up"
BITS = "bits for bytes: a link of 8 bits per second sends one byte per second"


def gpu_mistakes() -> list[Variant]:
    """(mistake, the number of GPUs that it leads to)."""
    needs = [
        (TRANSIENT, partial(needed_bytes, num_whole=0, has_root=False, num_gradients=0)),
        ("the whole weights are forgotten: the root's and two layers', 2 bytes a value",
         partial(needed_bytes, num_whole=0, has_root=False)),
        ("one layer computes while the next one's weights arrive: two layers are whole",
         partial(needed_bytes, num_whole=1)),
        ("the root is whole as well, all the time", partial(needed_bytes, has_root=False)),
        ("a layer's gradients are whole before they leave", partial(needed_bytes, num_gradients=0)),
        ("activations are not counted", partial(needed_bytes, activations=0)),
        ("the activations of one token are counted: all num_tokens are kept",
         lambda job, n: needed_bytes(replace(job, num_tokens=1), n)),
        ("activations are divided by N: they belong to this GPU's own tokens",
         lambda job, n: needed_bytes(job, n, activations=1 / n)),
        ("whole layers are divided by N: they are whole on every GPU", _divided),
        ("gathered weights are bf16: 2 bytes a value", partial(needed_bytes, weight_bytes=4)),
        ("all layers are whole at once: two are, the others are freed", _all_whole),
        (PADDING, partial(needed_bytes, shard=lambda values, n: values / n)),
        (PADDING, partial(needed_bytes, shard=lambda values, n: values // n)),
        ("padded once for the whole model: each layer is a flat tensor of its own", _one_flat),
    ]  # fmt: skip
    return [(text, partial(fewest_gpus, needed=need)) for text, need in needs]


def _divided(job: Job, num_gpus: int) -> float:
    shards = needed_bytes(job, num_gpus, num_whole=0, has_root=False, num_gradients=0)
    return shards + (needed_bytes(job, num_gpus) - shards) / num_gpus


def _all_whole(job: Job, num_gpus: int) -> float:
    return needed_bytes(job, num_gpus, num_whole=job.num_layers)


def _one_flat(job: Job, num_gpus: int) -> float:
    total = job.num_layers * job.layer_values + job.root_values
    held = needed_bytes(job, num_gpus, num_whole=0, has_root=False, num_gradients=0, activations=0)
    return needed_bytes(job, num_gpus) - held + 16 * -(-total // num_gpus)


def token_mistakes(num_gpus: Callable[[Job], int]) -> list[Variant]:
    """(mistake, the tokens that it leads to), before they are rounded up."""

    def of(formula: Callable[[Seconds], float]) -> Callable[[Job], float]:
        return lambda job: formula(seconds(job, num_gpus(job)))

    ratios = [
        ("only forward's gather is hidden: backward has to hide a gather and a reduction, of "
         "gradient_bytes a value",
         lambda s: s.gather / s.token),
        ("only the gather is hidden in backward: the reduction of gradients uses the same link",
         lambda s: s.gather / (2 * s.token)),
        ("all messages against all compute: what forward exposes is lost, backward cannot hide it",
         lambda s: (2 * s.gather + s.reduce) / (3 * s.token)),
        ("twice too many: forward computes 2 FLOPs a value and token, backward 4",
         lambda s: (s.gather + s.reduce) / s.token),
        (BITS, lambda s: hiding_tokens(s) / 8),
        ("bits for bytes, the other way round", lambda s: 8 * hiding_tokens(s)),
    ]  # fmt: skip
    more = [
        ("(N - 1)/N is forgotten: a GPU has one of the N shards already",
         lambda job: hiding_tokens(seconds(job, num_gpus(job))) * num_gpus(job)
         / max(1, num_gpus(job) - 1)),
        ("one shard of N is sent: it passes the ring in N - 1 hops",
         lambda job: hiding_tokens(seconds(job, num_gpus(job))) / max(1, num_gpus(job) - 1)),
        ("tokens of all GPUs: those of one are asked",
         lambda job: hiding_tokens(seconds(job, num_gpus(job))) * num_gpus(job)),
        ("gradients travel in gradient_bytes a value",
         lambda job: hiding_tokens(seconds(replace(job, gradient_bytes=4), num_gpus(job)))),
    ]  # fmt: skip
    found = [*((text, of(formula)) for text, formula in ratios), *more]
    down = lambda job: math.floor(hiding_tokens(seconds(job, num_gpus(job))))  # noqa: E731
    return [*rounded_up(found), ("rounded down: with so few something is still exposed", down)]


def usd_mistakes(num_gpus: Callable[[Job], int]) -> list[Variant]:
    """(mistake, the dollars that it leads to)."""

    def of(formula: Callable[[Job, Seconds], float]) -> Callable[[Job], float]:
        def usd(job: Job) -> float:
            late_s = formula(job, seconds(job, num_gpus(job)))
            return job.num_layers * late_s * num_gpus(job) * job.usd_per_hour / 3600

        return usd

    def forward(job: Job, s: Seconds) -> float:
        return max(0.0, s.gather - job.num_tokens * s.token)

    def backward(job: Job, s: Seconds) -> float:
        return max(0.0, s.gather + s.reduce - 2 * job.num_tokens * s.token)

    def all_of_it(s: Seconds) -> float:
        return 2 * s.gather + s.reduce

    found = [
        ("only forward's exposed rest: backward has one, too", forward),
        ("only backward's exposed rest: forward has one, too", backward),
        ("all messages are paid for: only what compute does not hide is waiting",
         lambda job, s: all_of_it(s)),
        ("all messages against all compute: each of forward and backward has its own rest",
         lambda job, s: max(0.0, all_of_it(s) - 3 * job.num_tokens * s.token)),
        ("the rest below zero is no credit: max(0, ...)",
         lambda job, s: all_of_it(s) - 3 * job.num_tokens * s.token),
        ("the reduction is left out in backward", lambda job, s: forward(job, s)
         + max(0.0, s.gather - 2 * job.num_tokens * s.token)),
    ]  # fmt: skip
    return [*((text, of(formula)) for text, formula in found), *_other_units(num_gpus)]


def _other_units(num_gpus: Callable[[Job], int]) -> list[Variant]:
    true = lambda job: exposed_usd(job, num_gpus(job))  # noqa: E731
    return [
        ("one GPU's dollars: all of them wait and are paid for",
         lambda job: true(job) / num_gpus(job)),
        ("one layer's rest: there are num_layers", lambda job: true(job) / job.num_layers),
        ("one layer is left out: take all num_layers alike, with a gather beside each forward",
         lambda job: true(job) * (job.num_layers - 1) / job.num_layers),
        ("usd_per_hour for a second: an hour has 3,600", lambda job: true(job) * 3600),
        ("minutes for seconds", lambda job: true(job) * 60),
        ("seconds: dollars are asked", lambda job: exposed_s(job, seconds(job, num_gpus(job)))),
        ("per token: a step's are asked", lambda job: true(job) / job.num_tokens),
    ]  # fmt: skip


def rounded_up(variants: list[Variant]) -> list[Variant]:
    """The same for whole tokens."""
    return [(text, lambda job, v=v: math.ceil(v(job))) for text, v in variants]
