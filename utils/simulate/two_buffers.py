"""The step of YaFSDP as tasks: FSDP with buffers that are allocated once and used in turn.

How it works: layer i is gathered into weight buffer i mod 2, whose last user was layer i - 2, so
its gather waits until layer i - 2 has computed; in backward, until layer i + 2 has. The gradients
of layer i fill gradient buffer i mod 2, so its backward waits until the reduce-scatter of layer
i + 2 is over. The last layers of forward are still in their buffers when backward begins: they are
not gathered again. All norms travel apart, in one gather before and one reduction after.

Source: yandex/YaFSDP at 669fc36, ya_fsdp/ya_fsdp.py: `ReusableBuffer` (two of each in stage 3),
`get_backward_pre_hook` (order of messages), `_layernorm_supertensor`. The cast of gradients to fp32
runs in front of each reduce-scatter, on the stream of messages (`get_buffer_to_reduce_scatter`).

Stage 2 gathers each layer once a step into a buffer of its own. More buffers than two, or one, are
a what-if. Left out: the second shard inside a node (hpZ), the optimizer.
"""

from __future__ import annotations

from collections.abc import Sequence

from utils.simulate.data_parallel import Seconds
from utils.simulate.fully_sharded import check_layers
from utils.simulate.hazards import Access
from utils.simulate.layers import Layer
from utils.simulate.timeline import COMMUNICATION, COMPUTE, Task


def two_buffers(
    layers: Sequence[Layer],
    all_gather_s: Seconds,
    reduce_scatter_s: Seconds,
    weight_value_bytes: int = 2,
    gradient_value_bytes: int = 4,
    *,
    zero_stage: int = 3,
    weight_buffers: int = 2,
    gradient_buffers: int = 2,
    norm_values: Sequence[int] | None = None,
    cast_s: Seconds | None = None,
) -> list[Task]:
    """Tasks of one step, in the order of issue; both functions take the bytes of a whole tensor.

    `norm_values` says how many values of each layer are a norm's and travel apart; `cast_s` takes
    the values of a layer. Names as in `fully_sharded`, and "gather norms", "reduce norms",
    "cast NAME". Raises ValueError for another stage, no buffer, or more norms than values.
    """
    check_layers(layers, weight_value_bytes, gradient_value_bytes)
    _check(layers, zero_stage, weight_buffers, gradient_buffers, norm_values)
    norms = [0] * len(layers) if norm_values is None else [*norm_values]
    values = [layer.num_values - norm for layer, norm in zip(layers, norms, strict=True)]
    gathers_s = [all_gather_s(count * weight_value_bytes) for count in values]
    scatters_s = [reduce_scatter_s(count * gradient_value_bytes) for count in values]
    casts_s = [0.0 if cast_s is None else cast_s(count) for count in values]
    tasks = []
    if sum(norms):
        seconds = all_gather_s(sum(norms) * weight_value_bytes)
        tasks.append(Task("gather norms", COMMUNICATION, seconds))
    in_turn = weight_buffers if zero_stage == 3 else len(layers)
    tasks += _forward(layers, gathers_s, in_turn, bool(sum(norms)))
    tasks += _backward(layers, gathers_s, scatters_s, casts_s, in_turn, gradient_buffers)
    if sum(norms):
        seconds = reduce_scatter_s(sum(norms) * gradient_value_bytes)
        tasks.append(
            Task("reduce norms", COMMUNICATION, seconds, (f"backward {layers[0].name}",))
        )
    return tasks


def buffer_accesses(
    layers: Sequence[Layer],
    zero_stage: int = 3,
    weight_buffers: int = 2,
    gradient_buffers: int = 2,
) -> list[Access]:
    """Which task writes and reads which buffer, for `utils.simulate.hazards.overwrites`."""
    in_turn = weight_buffers if zero_stage == 3 else len(layers)
    accesses = []
    for place, layer in enumerate(layers):
        weights, gradients = f"weights {place % in_turn}", f"gradients {place % gradient_buffers}"
        accesses.append(Access(f"gather forward {layer.name}", weights, layer.name, True))
        accesses.append(Access(f"forward {layer.name}", weights, layer.name, False))
        if place < len(layers) - in_turn:
            accesses.append(Access(f"gather backward {layer.name}", weights, layer.name, True))
        accesses.append(Access(f"backward {layer.name}", weights, layer.name, False))
        accesses.append(Access(f"backward {layer.name}", gradients, layer.name, True))
        accesses.append(Access(f"reduce-scatter {layer.name}", gradients, layer.name, False))
    return accesses


def _forward(
    layers: Sequence[Layer], gathers_s: Sequence[float], in_turn: int, norms: bool
) -> list[Task]:
    tasks: list[Task] = []
    for place, layer in enumerate(layers):
        free = (f"forward {layers[place - in_turn].name}",) if place >= in_turn else ()
        gather = f"gather forward {layer.name}"
        tasks.append(Task(gather, COMMUNICATION, gathers_s[place], free))
        after = ("gather norms", gather) if norms and place == 0 else (gather,)
        tasks.append(Task(f"forward {layer.name}", COMPUTE, layer.forward_s, after))
    return tasks


def _backward(
    layers: Sequence[Layer],
    gathers_s: Sequence[float],
    scatters_s: Sequence[float],
    casts_s: Sequence[float],
    in_turn: int,
    gradient_buffers: int,
) -> list[Task]:
    tasks: list[Task] = []
    for place in reversed(range(len(layers))):
        layer, last_user = layers[place], place + gradient_buffers
        after = () if place >= len(layers) - in_turn else (f"gather backward {layer.name}",)
        if last_user < len(layers):
            after += (f"reduce-scatter {layers[last_user].name}",)
        computed = f"backward {layer.name}"
        tasks.append(Task(computed, COMPUTE, layer.backward_s, after))
        if casts_s[place]:
            tasks.append(Task(f"cast {layer.name}", COMMUNICATION, casts_s[place], (computed,)))
        scatter = f"reduce-scatter {layer.name}"
        tasks.append(Task(scatter, COMMUNICATION, scatters_s[place], (computed,)))
        next_user = place - in_turn
        if next_user >= 0:
            gather = f"gather backward {layers[next_user].name}"
            tasks.append(Task(gather, COMMUNICATION, gathers_s[next_user], (computed,)))
    return tasks


def _check(
    layers: Sequence[Layer],
    zero_stage: int,
    weight_buffers: int,
    gradient_buffers: int,
    norm_values: Sequence[int] | None,
) -> None:
    if zero_stage not in (2, 3):
        raise ValueError(f"YaFSDP shards in stage 2 or 3, not {zero_stage}.")
    if min(weight_buffers, gradient_buffers) < 1:
        raise ValueError("There must be at least 1 buffer for weights and 1 for gradients.")
    if norm_values is None:
        return
    if len(norm_values) != len(layers):
        raise ValueError(f"{len(norm_values)} counts of norms do not fit {len(layers)} layers.")
    for norm, layer in zip(norm_values, layers, strict=True):
        if not 0 <= norm <= layer.num_values:
            raise ValueError(
                f"{layer.name} has {layer.num_values} values; {norm} of them cannot be norms."
            )
