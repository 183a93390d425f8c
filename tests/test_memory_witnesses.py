"""The meter against independent witnesses: the profiler, torch's tracker, an unmetered run."""

import pytest
import torch
from torch.distributed._tools.mem_tracker import MemTracker
from torch.utils.checkpoint import checkpoint

from tests.helpers import batch_for, profiler_peak_bytes, training_step
from utils.config import GPTConfig
from utils.memory import measure_memory
from utils.model import build_gpt, next_token_loss


@pytest.mark.parametrize("attention", ["explicit", "fused"])
def test_the_peak_equals_what_the_profiler_saw_allocated(attention):
    """The profiler hears every allocation of the CPU allocator: an independent witness."""
    config = GPTConfig(3, 4, 64, 64, 256, attention=attention)
    model = build_gpt(config)
    optimizer = torch.optim.AdamW(model.parameters())
    step = training_step(model, optimizer, config, batch_size=4)
    step()
    report = measure_memory(step, model, optimizer)
    batch_bytes = 2 * 4 * 64 * 8  # alive before: the profiler does not see it come
    ours = report.peak_bytes - report.start_bytes - batch_bytes
    assert 0 <= profiler_peak_bytes(step) - ours <= 64  # scalars that no operation returned


def test_torchs_own_tracker_agrees():
    """MemTracker is private and rounds nothing on a CPU; ours may differ by the batch only."""
    config = GPTConfig(2, 2, 32, 64, 128)
    model = build_gpt(config)
    optimizer = torch.optim.AdamW(model.parameters())
    step = training_step(model, optimizer, config, batch_size=4)
    step()
    ours = measure_memory(step, model, optimizer).peak_bytes
    tracker = MemTracker()
    tracker.track_external(model, optimizer)
    with tracker:
        step()
    theirs = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]
    assert abs(ours - theirs) <= 2 * 4 * 64 * 8 + 64  # the batch, and scalars


def test_checkpointing_is_visible():
    config = GPTConfig(6, 2, 32, 64, 64)
    model = build_gpt(config)
    tokens_BT, targets_BT = batch_for(config, 8)

    def plain():
        next_token_loss(model, tokens_BT, targets_BT).backward()
        model.zero_grad()

    kept = measure_memory(plain, model).highest("saved activations")
    for block in model.blocks:
        inner = block.forward
        block.forward = lambda x, inner=inner: checkpoint(inner, x, use_reentrant=False)
    assert measure_memory(plain, model).highest("saved activations") < 0.3 * kept


def test_the_meter_does_not_change_the_result():
    config = GPTConfig(2, 2, 32, 32, 64, dropout=0.1)
    gradients = []
    for measured_run in (False, True):
        model = build_gpt(config)
        tokens_BT, targets_BT = batch_for(config, 2)
        torch.manual_seed(3)
        run = next_token_loss
        if measured_run:
            measure_memory(lambda: run(model, tokens_BT, targets_BT).backward(), model)  # noqa: B023
        else:
            run(model, tokens_BT, targets_BT).backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
