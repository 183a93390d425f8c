"""What our FSDP should hold, send and have whole at once, by formula and exact to the byte.

How it works: the model's units are given as `FlatLayout`s, the layers and the root apart, since the
root is gathered once a micro-batch and a layer twice (once if it is not freed after forward). For N
ranks, in units of (N - 1)/N of the weights, with L the layers' share of them:

    gathers       1 + L     or 1 with reshard_after_forward=False; of each micro-batch
    reductions    1         of each micro-batch, or once a step with no_sync
    both          2 + L     a little less than ZeRO-3's 3, which frees the root in between

With `keep_weights` the micro-batches of a step share one gather, or two with resharding: the last
micro-batch frees what it has used. Hybrid sharding: N is then the number of ranks that share, and
the replicas' all-reduce of a shard comes on top.

Left out: activations and temporary tensors; clipping (an all-reduce of one fp64 number) and
gathers of whole parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from utils.ranks.gloo_bytes import all_reduce
from utils.techniques.flat import FlatLayout, split_into_units

FULL, COUNTER_BYTES = 4, 4  # Adam counts its steps once per tensor
Layouts = Sequence[FlatLayout]


@dataclass(frozen=True)
class FsdpOptions:
    """What decides about bytes; names as in `FullySharded`, `Sharding` and `no_sync`."""

    compute_bytes: int = FULL
    reduce_bytes: int = FULL
    reshard_after_forward: bool = True
    prefetch: int = 1
    num_micro_batches: int = 1
    no_sync: bool = False
    keep_weights: bool = False
    num_replicas: int = 1


def layouts_of(
    model: nn.Module, layers: Sequence[nn.Module], world_size: int, is_frozen: bool = False
) -> tuple[list[FlatLayout], FlatLayout | None]:
    """The layers' layouts and the root's; only of parameters that train, or only of the others."""
    units = split_into_units(model, layers, world_size, is_frozen)
    root = next((unit.layout for unit in units if unit.module is model), None)
    return [unit.layout for unit in units if unit.module is not model], root


def num_gathers(options: FsdpOptions, is_root: bool = False) -> int:
    """How often a step gathers a unit."""
    again = int(options.reshard_after_forward and not is_root)
    shares = options.no_sync and options.keep_weights
    return (1 + again) * (1 if shares else options.num_micro_batches)


def num_reductions(options: FsdpOptions) -> int:
    """How often a step averages a unit's gradients."""
    return 1 if options.no_sync else options.num_micro_batches


def gather_bytes(layout: FlatLayout, options: FsdpOptions) -> int:
    """What each rank sends in one gather."""
    return (layout.world_size - 1) * layout.shard_values * options.compute_bytes


def reduce_bytes(layout: FlatLayout, options: FsdpOptions, replica: int = 0) -> int:
    """What a rank of this replica sends to average a unit's gradients once, by the ring on gloo."""
    shard_bytes = layout.shard_values * options.reduce_bytes
    between = 0
    if options.num_replicas > 1:
        value = options.reduce_bytes
        between = all_reduce(shard_bytes, value, replica, options.num_replicas).data_bytes
    return (layout.world_size - 1) * shard_bytes + between


def sent_bytes(
    layers: Layouts, root: FlatLayout | None, options: FsdpOptions, replica: int = 0
) -> int:
    """What a rank sends in a step."""
    sent = 0
    for layout in (*layers, *([root] if root else [])):
        sent += num_gathers(options, layout is root) * gather_bytes(layout, options)
        sent += num_reductions(options) * reduce_bytes(layout, options, replica)
    return sent


def held_bytes(layers: Layouts, root: FlatLayout | None, frozen: Layouts = ()) -> dict[str, int]:
    """What each rank holds after backward, by category of the meter, with Adam: 16/N a parameter.

    Shards, their gradients and Adam's moments are fp32, whatever the compute format.
    """
    units = [*layers, *([root] if root else [])]
    shards = FULL * sum(layout.shard_values for layout in units)
    return {
        "parameters": shards + FULL * sum(layout.shard_values for layout in frozen),
        "gradients": shards,
        "optimizer state": 2 * shards + COUNTER_BYTES * len(units),
    }


def most_whole_bytes(
    layers: Layouts, root: FlatLayout | None, options: FsdpOptions, segment: int = 1
) -> int:
    """The most bytes of gathered weights at once, shards not counted.

    The root, the layer that computes, and `prefetch` layers that are on their way; all layers if
    they stay whole. `segment` is the number of layers that a checkpoint runs again together.
    """
    sizes = [layout.padded_values for layout in layers]
    windows = [sizes]
    if options.reshard_after_forward and not options.keep_weights:
        ahead = options.prefetch
        forward = [sizes[i : i + ahead + 1] for i in range(len(sizes))]
        ends = range(0, len(sizes), segment)
        windows = forward + [sizes[max(0, i - ahead) : i + segment] for i in ends]
    most = max((sum(window) for window in windows), default=0)
    return options.compute_bytes * (most + (root.padded_values if root else 0))
