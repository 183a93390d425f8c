"""The pencil of checkpointing: layers, whole steps and second FLOPs, equal to what is measured."""

import random
from dataclasses import replace

import pytest
import torch
from torch.utils.checkpoint import checkpoint as torch_checkpoint
from torch.utils.flop_counter import FlopCounterMode

from tests.helpers import batch_for
from utils.config import PRESETS, GPTConfig
from utils.costs import forward_flops, training_flops
from utils.memory import measure_memory
from utils.model import build_gpt, next_token_loss
from utils.predict import block_activation_bytes, head_activation_bytes
from utils.predict_checkpoint import (
    predict_checkpointed_step,
    recomputed_flops,
)
from utils.predict_layers import block_cost, embed_cost, loss_cost
from utils.techniques.chain import gpt_chain, measure_layers
from utils.techniques.checkpointing import checkpoint_by_function, checkpoint_by_hooks
from utils.techniques.segments import checkpointed, even_lengths, segments


def random_shape(seed, slim=False, attention=None):
    """A config, a batch size, a number of tokens and a plan over the blocks."""
    draw = random.Random(seed)
    heads, tokens, layers = draw.choice([1, 2, 4]), draw.choice([2, 4, 16, 33]), draw.randint(1, 5)
    width = heads * draw.choice([4, 8, 16])
    config = GPTConfig(
        num_layers=layers,
        num_heads=heads,
        model_dim=width,
        context_length=tokens + draw.choice([0, 0, 7]),
        vocab_size=draw.choice([5, 64, 300]),
        ff_dim=draw.choice([4, width]) if slim else draw.choice([None, 2 * width, 3 * width + 1]),
        num_kv_heads=draw.choice([None, 1]),
        attention=attention or draw.choice(["explicit", "fused"]),
        bias=draw.random() < 0.5,
        tied_embeddings=draw.random() < 0.3,
    )
    return config, draw.choice([1, 2, 3]), tokens, random_plan(draw, 0, layers)


def random_plan(draw, start, end, depth=0):
    plan = []
    while start < end:
        cut = start + 1 if depth > 2 else draw.randint(start + 1, end)
        keeps = depth > 2 or draw.random() < 0.4
        plan.append(start if keeps else random_plan(draw, start, cut, depth + 1))
        start = start + 1 if keeps else cut
    return tuple(plan)


@pytest.mark.parametrize("seed", range(30))
def test_every_layer_costs_what_is_measured(seed):
    config, batch_size, num_tokens, _ = random_shape(seed, slim=seed % 3 == 0)
    config = replace(config, num_layers=1)
    tokens_BT, targets_BT = batch_for(config, batch_size, num_tokens)
    measured = measure_layers(gpt_chain(build_gpt(config), targets_BT), tokens_BT)
    shape = (config, batch_size, num_tokens)
    embed, block, loss = embed_cost(*shape), block_cost(*shape), loss_cost(*shape)
    if config.attention == "fused":  # torch's counter is blind to the fused kernel of a CPU
        unseen = 4 * batch_size * num_tokens**2 * config.model_dim
        block = replace(block, flops=block.flops - unseen)
    assert measured == [embed, block, loss]
    assert embed.flops + loss.flops + block_cost(*shape).flops == forward_flops(*shape)


@pytest.mark.parametrize("seed", range(20))
def test_what_layers_keep_agrees_with_lesson_01(seed):
    shape = random_shape(seed)[:3]
    block, loss = block_cost(*shape), loss_cost(*shape)
    input_bytes = block.output_bytes
    assert block.saved_bytes == block_activation_bytes(*shape) - input_bytes
    assert loss.saved_bytes == head_activation_bytes(*shape) - input_bytes


def measured_peak(config, batch_size, num_tokens, plan, state_values=2, checkpoint=None):
    """The meter's peak of a second step, whose gradients exist when it starts."""
    model, batch = build_gpt(config), batch_for(config, batch_size, num_tokens)
    if state_values == 2:
        optimizer = torch.optim.AdamW(model.parameters())
    else:
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9 * state_values)

    def step():
        with checkpointed(model, plan, checkpoint or checkpoint_by_hooks):
            loss = next_token_loss(model, *batch)
        loss.backward()
        del loss
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)

    step()
    return measure_memory(step, model, optimizer).peak_bytes


@pytest.mark.parametrize("seed", range(100, 130))
def test_the_peak_of_a_step_is_predicted_to_the_byte(seed):
    config, batch_size, num_tokens, plan = random_shape(seed)
    state_values = seed % 3
    predicted = predict_checkpointed_step(config, batch_size, plan, num_tokens, state_values)
    found = measured_peak(config, batch_size, num_tokens, plan, state_values)
    assert found == predicted.peak_bytes


@pytest.mark.parametrize("seed", range(200, 212))
def test_with_a_slim_feed_forward_layer_too_where_no_part_ends_in_a_part(seed):
    config, batch_size, num_tokens, plan = random_shape(seed, slim=True)
    predicted = predict_checkpointed_step(config, batch_size, plan, num_tokens).peak_bytes
    found = measured_peak(config, batch_size, num_tokens, plan)
    assert found <= predicted
    assert found == predicted or any(ends_in_a_part(part) for part in plan)


def ends_in_a_part(part):
    if isinstance(part, int):
        return False
    return not isinstance(part[-1], int) or any(map(ends_in_a_part, part))


def torch_by_hooks(function, *args, **kwargs):
    return torch_checkpoint(function, *args, use_reentrant=False, **kwargs)


def torch_by_function(function, *args, **kwargs):
    return torch_checkpoint(function, *args, use_reentrant=True, **kwargs)


@pytest.mark.parametrize("num_segments", [1, 3, 7])
def test_torchs_checkpoint_has_the_predicted_peak_too(num_segments):
    config, plan = GPTConfig(7, 2, 16, 24, 64), segments(even_lengths(7, num_segments))
    predicted = predict_checkpointed_step(config, 3, plan).peak_bytes
    assert measured_peak(config, 3, 24, plan, checkpoint=torch_by_hooks) == predicted


def test_a_large_model_on_a_small_batch_has_its_peak_in_the_optimizer():
    config = GPTConfig(2, 2, 64, 4, 64)
    predicted = predict_checkpointed_step(config, 1, ((0,), (1,)))
    assert predicted.peak_moment == "optimizer"
    assert measured_peak(config, 1, 4, ((0,), (1,))) == predicted.peak_bytes


def counted_flops(config, batch_size, num_tokens, plan, checkpoint):
    model, batch = build_gpt(config), batch_for(config, batch_size, num_tokens)
    with FlopCounterMode(display=False) as counter:
        with checkpointed(model, plan, checkpoint):
            loss = next_token_loss(model, *batch)
        loss.backward()
    return counter.get_total_flops()


@pytest.mark.filterwarnings("ignore:None of the inputs")  # torch's first variant, inside itself
@pytest.mark.parametrize("seed", range(300, 312))
def test_flops_done_twice_are_those_of_torchs_counter(seed):
    config, batch_size, num_tokens, plan = random_shape(seed, attention="explicit")
    plain = training_flops(config, batch_size, num_tokens)
    versions = {True: (checkpoint_by_hooks, torch_by_hooks),
                False: (checkpoint_by_function, torch_by_function)}  # fmt: skip
    for early_stop, checkpoints in versions.items():
        again = recomputed_flops(config, batch_size, num_tokens, plan, early_stop)
        for checkpoint in checkpoints:
            found = counted_flops(config, batch_size, num_tokens, plan, checkpoint)
            assert found == plain + again, checkpoint.__name__


def test_a_third_more_flops_is_the_limit_of_one_level_of_brackets():
    config = PRESETS["laptop-wide"]
    plan = tuple((k,) for k in range(config.num_layers))
    third = training_flops(config, 4, 128) / 3
    early, whole = (recomputed_flops(config, 4, 128, plan, stop) for stop in (True, False))
    assert 0 < early < whole < third
