"""Our YaFSDP against one process and against our FSDP: values, calls, bytes, refusals."""

from dataclasses import replace

import pytest
import torch

from utils.config import GPTConfig
from utils.peers import TrainingJob
from utils.peers.harness import largest_gap, one_process, train_system
from utils.peers.our_yafsdp import yafsdp_system
from utils.peers.ours import fsdp_system
from utils.ranks import run_ranks
from utils.techniques.buffered_shard import Buffer

CONFIG = GPTConfig(num_layers=5, num_heads=4, model_dim=32, context_length=16, vocab_size=64)
JOB = TrainingJob(config=CONFIG, num_steps=3)
ACCUMULATING = replace(JOB, num_micro_batches=2, max_norm=0.5)
LOW = replace(JOB, low_precision=True)


def trained(system, job, world_size=2):
    return run_ranks(train_system, world_size, system, job, quiet=True)[0]


def all_equal(run, other):
    pairs = zip(run.parameters, other.parameters, strict=True)
    return run.losses == other.losses and all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("options", [
    {}, {"overlaps": True}, {"num_buffers": 3, "overlaps": True}, {"num_buffers": 9},
    {"reshard_after_forward": False}, {"reshard_after_forward": False, "overlaps": True},
], ids=str)  # fmt: skip
def test_two_ranks_equal_fsdp_and_one_process_in_every_bit(options):
    run = trained(yafsdp_system(**options), JOB)
    assert all_equal(run, trained(fsdp_system(), JOB))
    assert largest_gap(run, one_process(JOB, 2))[0] == 0
    assert largest_gap(run, one_process(JOB, 2))[1] < 1e-5


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_models_with_as_few_layers_as_buffers(num_layers):
    job = replace(JOB, config=replace(CONFIG, num_layers=num_layers))
    run = trained(yafsdp_system(overlaps=True), job)
    assert all_equal(run, trained(fsdp_system(), job))
    assert run.calls["all_gather"] == 2 + num_layers + max(0, num_layers - 2)


@pytest.mark.parametrize("world_size", [3, 4])
def test_more_ranks_agree_with_one_process_up_to_the_order_of_sums(world_size):
    job = replace(JOB, batch_size=12)
    run = trained(yafsdp_system(overlaps=True), job, world_size)
    loss_gap, gap = largest_gap(run, one_process(job, world_size))
    assert loss_gap < 2e-6 and gap < 3e-5


def test_division_comes_once_for_ranks_and_micro_batches():
    run = trained(yafsdp_system(), ACCUMULATING)
    loss_gap, gap = largest_gap(run, one_process(ACCUMULATING, 4))
    assert loss_gap < 2e-6 and gap < 1e-5


@pytest.mark.parametrize(("config", "why"), [
    (replace(CONFIG, tied_embeddings=True), "tied"), (replace(CONFIG, bias=False), "no bias"),
    (replace(CONFIG, num_kv_heads=2), "shared heads"), (replace(CONFIG, dropout=0.3), "dropout"),
], ids=lambda each: each if isinstance(each, str) else "")  # fmt: skip
def test_other_shapes_equal_fsdp_in_every_bit(config, why):
    job = replace(JOB, config=config)
    assert all_equal(trained(yafsdp_system(), job), trained(fsdp_system(), job)), why


def test_calls_and_bytes_of_a_step():
    """Layers once forward, all but the two that stay once backward; norms and root once."""
    units = unit_sizes(CONFIG, 2)
    layers, rest = units["layer"], units["root"] + units["norms"]
    run = trained(yafsdp_system(), JOB)
    assert run.calls == {"all_gather": 2 + 5 + 3, "send": 7, "recv": 7}
    gathered = rest + (5 + 3) * layers
    assert run.sent_bytes == 4 * (gathered + rest + 5 * layers) // 2
    run = trained(yafsdp_system(reshard_after_forward=False), JOB)
    assert run.calls == {"all_gather": 2 + 5, "send": 7, "recv": 7}
    assert run.sent_bytes == 4 * 2 * (rest + 5 * layers) // 2


def test_messages_in_sixteen_bits():
    units = unit_sizes(CONFIG, 2)
    gathered = units["root"] + units["norms"] + 8 * units["layer"]
    reduced = units["root"] + units["norms"] + 5 * units["layer"]
    oracle = one_process(JOB, 2)
    sent = {}
    for name, options in {
        "fp32 reduce": {}, "bf16 reduce": {"low_reduce": True},
        "bf16 reduce, fp32 sums": {"sums_in_fp32": True},
    }.items():  # fmt: skip
        run = trained(yafsdp_system(**options), LOW)
        assert largest_gap(run, oracle)[0] < 5e-3
        sent[name] = run.sent_bytes
    assert sent["fp32 reduce"] == (2 * gathered + 4 * reduced) // 2
    assert sent["bf16 reduce"] == sent["bf16 reduce, fp32 sums"] == gathered + reduced


def unit_sizes(config, world_size):
    """Values of one layer without its norms, of all norms, and of the root, padded."""
    width, wide = config.model_dim, config.feed_forward_dim
    layer = width * 3 * width + 3 * width + width * width + width + 2 * width * wide + wide + width
    root = (2 * config.vocab_size + config.context_length) * width + 2 * width
    sizes = {"layer": layer, "norms": config.num_layers * 4 * width, "root": root}
    return {name: -(-size // world_size) * world_size for name, size in sizes.items()}


class Owner:
    """As much of a shard as a buffer's refusal mentions."""

    def __init__(self, name):
        self.unit = type("Unit", (), {"name": name})()


def test_a_buffer_that_is_in_use_is_not_given_away():
    buffer, first, second = Buffer(4, torch.float32, "cpu"), Owner("blocks.1"), Owner("blocks.3")
    buffer.take(first)
    buffer.is_busy = True
    buffer.take(first)
    with pytest.raises(RuntimeError, match=r"blocks\.3 would overwrite blocks\.1, which still"):
        buffer.take(second)
    buffer.is_busy = False
    buffer.take(second)
    assert buffer.owner is second
