"""Checkpointing predicted with a pencil: the peak of a whole step, and the FLOPs done twice.

How it works: utils/predict_layers.py gives every layer's cost, `plan_peak_bytes` puts the layers of
a plan together, and what is held all the time comes on top. Nothing is run; the tests hold bytes
against the meter and FLOPs against torch's counter. The peak is exact for `checkpoint_by_hooks`;
only with a feed-forward layer slimmer than 2D, and parts that end in parts, can it be a little too
high.

Left out: dropout, and the outputs that `checkpoint_by_function` holds on to.
"""

from collections.abc import Iterator
from dataclasses import replace

from utils.config import GPTConfig
from utils.costs import count_parameters, tensor_sizes
from utils.predict import TOKEN_BYTES, StepPrediction, adam_scratch_bytes, mask_buffer_bytes
from utils.predict_layers import VALUE_BYTES, block_cost, block_flops, embed_cost, loss_cost
from utils.techniques.budget import plan_peak_bytes
from utils.techniques.chain import LayerCost
from utils.techniques.segments import Plan, layers_of, runs_of


def recomputed_flops(
    config: GPTConfig, batch_size: int, num_tokens: int, plan: Plan, early_stop: bool = True
) -> int:
    """FLOPs that a plan over the blocks does beside those of a plain step.

    With `early_stop` (`checkpoint_by_hooks`) a second run ends when the last saved tensor is back:
    a block needs its last product no more, and a part in brackets at the end only its input.
    Without (`checkpoint_by_function`) every second run is a whole one.
    """
    block = block_flops(config, batch_size, num_tokens)
    if not early_stop:
        return block * sum(runs - 1 for runs in runs_of(plan).values())
    narrow = 2 * batch_size * num_tokens * config.model_dim * config.feed_forward_dim

    def again(part: Plan) -> int:
        """The second run of a part, and those of the parts in it."""
        end = block - narrow if isinstance(part[-1], int) else 0
        return block * len(layers_of(part[:-1])) + end + inside(part)

    def inside(part: Plan) -> int:
        return sum(again(step) for step in part if not isinstance(step, int))

    return inside(plan)


def predict_checkpointed_step(
    config: GPTConfig, batch_size: int, plan: Plan, num_tokens: int = 0, state_values: int = 2
) -> StepPrediction:
    """Peak of an fp32 step whose blocks run by `plan`, with gradients that exist already.

    That is a step from the second micro-batch on, or after `zero_grad(set_to_none=False)`.
    `state_values` is what the optimizer keeps per parameter: 2 for Adam, 1 for momentum, 0 for
    plain SGD. The plain step is the plan `tuple(range(num_layers))`.
    """
    if layers_of(plan) != list(range(config.num_layers)):
        raise ValueError(
            f"The plan runs the layers {layers_of(plan)}, but the model has {config.num_layers} "
            "blocks: name each one once, from 0 on."
        )
    num_tokens = num_tokens or config.context_length
    is_adam = state_values == 2
    held = (2 + state_values) * VALUE_BYTES * count_parameters(config).total
    held += VALUE_BYTES * len(tensor_sizes(config)) * is_adam  # its counter of steps, per tensor
    held += mask_buffer_bytes(config) + 2 * batch_size * num_tokens * TOKEN_BYTES
    costs = chain_costs(config, batch_size, num_tokens, plan)
    moments = {
        "forward and backward": plan_peak_bytes(_with_ends(plan), costs),
        "optimizer": adam_scratch_bytes(config) * is_adam,
    }
    return StepPrediction(held, {name: held + live for name, live in moments.items()})


def largest_predicted_batch(
    config: GPTConfig, plan: Plan, room_bytes: int, num_tokens: int = 0, state_values: int = 2
) -> int:
    """The most sequences whose predicted step stays within the room; 0 if not even one does."""

    def fits(batch_size: int) -> bool:
        step = predict_checkpointed_step(config, batch_size, plan, num_tokens, state_values)
        return step.peak_bytes <= room_bytes

    low, high = 0, 1
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def chain_costs(
    config: GPTConfig, batch_size: int, num_tokens: int, plan: Plan
) -> list[LayerCost]:
    """Embedding, blocks and loss, as they run in a whole step by a plan over the blocks."""
    shape = (config, batch_size, num_tokens)
    is_tied = config.tied_embeddings
    # The gradient of a tied output layer waits for the embedding's, while all blocks work.
    waiting_bytes = VALUE_BYTES * config.vocab_size * config.model_dim * is_tied

    def costs(part: Plan, runs_again: bool) -> Iterator[LayerCost]:
        for place, step in enumerate(part, start=1):
            if isinstance(step, int):
                block = block_cost(*shape, runs_again, runs_again and place == len(part))
                yield replace(
                    block,
                    graph_peak_bytes=block.graph_peak_bytes + waiting_bytes * runs_again,
                    backward_peak_bytes=block.backward_peak_bytes + waiting_bytes,
                )
            else:
                yield from costs(step, runs_again=True)

    embed = embed_cost(*shape, table_waits=is_tied)
    return [embed, *costs(plan, runs_again=False), loss_cost(*shape)]


def _with_ends(plan: Plan) -> Plan:
    """A plan over the blocks as one over embedding, blocks and loss, of which only blocks rerun."""

    def later(part: Plan) -> Plan:
        return tuple(step + 1 if isinstance(step, int) else later(step) for step in part)

    return (0, *later(plan), len(layers_of(plan)) + 1)
