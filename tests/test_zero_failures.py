"""ZeRO when something goes wrong: what is refused, errors in mid-step, ranks that stop."""

import os

import pytest
import torch
from torch import nn

from tests.zero_runs import CONFIG, STAGES, Case, adam, backward, gap, one_process
from utils.model import build_gpt, next_token_loss
from utils.ranks import RankError, run_ranks
from utils.techniques.checkpointing import checkpoint_by_function, checkpoint_by_hooks
from utils.techniques.zero import ZeroOne, ZeroThree


def message_of(error_type, action):
    with pytest.raises(error_type) as caught:
        action()
    return str(caught.value)


def refusals(rank, world_size):
    model = build_gpt(CONFIG)
    frozen = build_gpt(CONFIG).requires_grad_(False)
    tries = [
        lambda: ZeroOne(model, model.blocks, adam, rank, world_size, dtype=torch.float64),
        lambda: ZeroOne(model, model.blocks, adam, rank, world_size + 1),
        lambda: ZeroOne(model, model.blocks, adam, 1 - rank, world_size),
        lambda: ZeroOne(model, [nn.Linear(1, 1)], adam, rank, world_size),
        lambda: ZeroOne(frozen, frozen.blocks, adam, rank, world_size),
    ]
    messages = [message_of(ValueError, each) for each in tries]
    zero = ZeroThree(model, model.blocks, adam, rank, world_size)
    messages.append(message_of(RuntimeError, model.state_dict))
    backward(model, Case().batches()[0], rank, world_size, 1)
    messages.append(message_of(ValueError, lambda: zero.step(0.0)))
    messages.append(message_of(ValueError, lambda: zero.step(float("nan"))))
    zero.step(1.0)
    return messages


def test_what_cannot_work_is_refused_in_a_sentence():
    expected = [
        "dtype must be one of (torch.float32, torch.bfloat16, torch.float16), not torch.float64.",
        "This is rank 1 of 2 in the group, not rank 1 of 3: pass the rank and the world size of "
        "the group that shares the model.",
        "This is rank 1 of 2 in the group, not rank 0 of 2: pass the rank and the world size of "
        "the group that shares the model.",
        "A layer to be sharded is not part of the model: pass its own modules.",
        "The model has no parameter that requires a gradient: nothing to do.",
        "The model's weights are shards, so it has no state_dict: use whole_parameters(), or "
        "zero_checkpoint.save_shards.",
        "max_norm must be greater than 0, not 0.0.",
        "max_norm must be greater than 0, not nan.",
    ]
    assert run_ranks(refusals, 2)[1] == expected


class Break(torch.autograd.Function):
    """Backward of this one raises, on all ranks."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise KeyError("the middle of backward")


def break_backward(model, batch):
    """Gradients of the layers after the first arrive, those of the others do not."""
    handle = model.blocks[0].register_forward_hook(lambda _, args, result: Break.apply(result))
    with pytest.raises(KeyError):
        next_token_loss(model, *batch).backward()
    handle.remove()


def break_forward(model, batch):
    with pytest.raises(ValueError, match="do not fit context_length"):
        next_token_loss(model, *(torch.cat([each, each], dim=1) for each in batch))


def go_on(rank, world_size):
    """Errors in a first try of each step; what the later tries give."""
    found = []
    for stage, kind in STAGES.items():
        model = build_gpt(CONFIG, seed=rank)
        zero, told, losses = kind(model, model.blocks, adam, rank, world_size), 0, []
        for batch in Case().batches():
            break_backward(model, batch)
            for at_once in (True, False):  # also after another forward
                if not at_once:
                    next_token_loss(model, *batch)
                try:
                    told += stage > 1 and "zero_grad()" in message_of(RuntimeError, zero.step)
                finally:
                    zero.zero_grad() if not at_once else None
            break_forward(model, batch)
            backward(model, batch, rank, world_size, 1)
            break_forward(model, batch)  # its weights must not outlive the step
            zero.step()
            with torch.no_grad():
                losses.append(next_token_loss(model, *batch).item())
        found.append((zero.whole_parameters(), told, losses))
    return found


def test_after_an_error_in_backward_zero_grad_makes_the_next_step_right():
    oracle = one_process(Case(), 2)
    for found in run_ranks(go_on, 2):
        for stage, (parameters, told, losses) in zip(STAGES, found, strict=True):
            assert gap(parameters, oracle.parameters) == 0.0 and losses == found[0][2]
            assert told == (0 if stage == 1 else 6)


def whole_model_again(rank, world_size):
    """The model itself inside a checkpoint."""
    found = []
    for kind in STAGES.values():
        for way in (checkpoint_by_hooks, checkpoint_by_function):
            model = build_gpt(CONFIG, seed=rank)
            zero = kind(model, model.blocks, adam, rank, world_size)
            for batch in Case().batches():
                backward(lambda tokens: way(model, tokens), batch, rank, world_size, 1)  # noqa: B023
                zero.step()
            found.append(zero.whole_parameters())
    return found


def test_the_whole_model_may_run_again():
    oracle = one_process(Case(), 2)
    gaps = [gap(each, oracle.parameters) for each in run_ranks(whole_model_again, 2)[0]]
    assert gaps == [0.0] * 6


def infinite(rank, world_size):
    """A gradient that is infinite on rank 0 alone: norms, and how many weights are NaN."""
    found = []
    for kind in STAGES.values():
        model = build_gpt(CONFIG)
        zero = kind(model, model.blocks, adam, rank, world_size)
        scale = float("inf") if rank == 0 else 1.0
        (model(torch.zeros(1, 7, dtype=torch.long)).sum() * scale).backward()
        norm = zero.step(1.0)
        found.append((norm.item(), [p.isnan().sum().item() for p in zero.whole_parameters()]))
    return found


def test_an_infinite_gradient_shows_in_the_norm_on_all_ranks():
    first, second = run_ranks(infinite, 2)
    for (norm, num_nan), other in zip(first, second, strict=True):
        assert not torch.tensor(norm).isfinite() and str(norm) == str(other[0])
        assert sum(num_nan) > 0 and num_nan == other[1]


def stop(rank, world_size, stage, how):
    model = build_gpt(CONFIG)
    zero = STAGES[stage](model, model.blocks, adam, rank, world_size)
    for number, batch in enumerate(Case().batches()):
        if rank == 1 and number == 1 and how != "leave":
            model.blocks[1].register_full_backward_hook(lambda *_: end(how))
        if rank == 1 and number == 1 and how == "leave":
            return
        backward(model, batch, rank, world_size, 1)
        zero.step()


def end(how):
    if how == "die":
        os._exit(3)
    raise ValueError("the loss is not finite")


WORDS = {
    "raise": ("rank 1 failed first: ValueError: the loss is not finite", "rank 0 waited in recv"),
    "die": ("rank 1 ended itself with exit code 3", "rank 0"),
    "leave": ("The ranks wait for each other and none can go on.", "rank 1 had finished"),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_rank_that_stops_in_mid_step_is_named(stage):
    for how, (beginning, more) in WORDS.items():
        text = message_of(RankError, lambda: run_ranks(stop, 3, stage, how))  # noqa: B023
        assert text.startswith(beginning) and more in text
