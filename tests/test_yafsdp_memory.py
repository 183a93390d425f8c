"""Our YaFSDP's memory: no layer is allocated in the loop; its sums in fp32; what it refuses."""

import pytest
import torch
import torch.distributed as dist

from utils.config import GPTConfig
from utils.memory import MemoryMeter
from utils.model import build_gpt, next_token_loss
from utils.ranks import RankError, TrafficLedger, run_ranks
from utils.techniques.buffered_shard import BufferedShard, exact_sum_scatter
from utils.techniques.fsdp import FullySharded
from utils.techniques.ring import ring_reduce_scatter
from utils.techniques.sharding import Sharding
from utils.techniques.yafsdp import YaFSDP

CONFIG = GPTConfig(4, 4, 32, 16, 64)
GENERATOR = torch.Generator().manual_seed(5)
BATCHES = torch.randint(64, (3, 2, 4, 16), generator=GENERATOR)


def batch(rank, world_size, number):
    return (each.chunk(world_size)[rank] for each in BATCHES[number])


def churn(rank, world_size, kind):
    """Bytes of storages made in the second and third step that are as large as a layer."""
    model = build_gpt(CONFIG)
    make = {"ours": YaFSDP, "fsdp": FullySharded}[kind]
    network = make(model, model.blocks, Sharding(rank, world_size))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    layer_bytes = network.shards[0].whole_bytes
    made, pointers = [], []
    for number in range(3):
        with MemoryMeter() as meter:
            next_token_loss(model, *batch(rank, world_size, number)).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)
        events = meter.report()._events
        made.append(sum(change == layer_bytes for _, change, _ in events))
        pointers.append([each.flat_P.data_ptr() for each in network.shards])
    return made, pointers


def test_no_layer_is_allocated_in_the_loop():
    ours, pointers = run_ranks(churn, 2, "ours", quiet=True)[0]
    # Each step's meter sees the four buffers when they are first used, and nothing else that large.
    assert ours[1] == ours[2] == 4
    assert pointers[0] == pointers[1] == pointers[2]
    assert pointers[0][0] == pointers[0][2] != pointers[0][1] == pointers[0][3]
    others, _ = run_ranks(churn, 2, "fsdp", quiet=True)[0]
    assert others[1] == others[2] >= 3 * CONFIG.num_layers  # two gathers and a flat gradient each


def exact_and_ring(rank, world_size):
    generator = torch.Generator().manual_seed(rank)
    exact_P = torch.randn(4096, generator=generator)
    low_P, group = exact_P.bfloat16(), None
    whole = low_P.double()
    dist.all_reduce(whole)
    truth_S = whole.chunk(world_size)[rank]
    ring_S, exact_S = torch.empty(1024, dtype=torch.bfloat16), torch.empty(1024)
    with TrafficLedger() as ledger:
        ring_reduce_scatter(ring_S, low_P, rank, world_size, group)
    ring_bytes = ledger.bytes_sent
    with TrafficLedger() as ledger:
        exact_sum_scatter(exact_S, low_P, rank, world_size, group)
    errors = [(each.double() - truth_S).abs().max().item() for each in (ring_S, exact_S)]
    return errors, ring_bytes, ledger.bytes_sent


def test_sums_in_fp32_of_sixteen_bit_messages():
    for (ring, exact), ring_bytes, exact_bytes in run_ranks(exact_and_ring, 4, quiet=True):
        assert ring_bytes == exact_bytes == 3 * 1024 * 2
        assert exact < 1e-6 < 1e-3 < ring


def refusals(rank, world_size):
    model, said = build_gpt(CONFIG), []
    for options in ({"num_buffers": 1}, {"num_micro_batches": 0}):
        with pytest.raises(ValueError) as refused:
            YaFSDP(model, model.blocks, Sharding(rank, world_size), **options)
        said.append(str(refused.value))
    network = YaFSDP(model, model.blocks, Sharding(rank, world_size))
    with pytest.raises(RuntimeError) as refused, network.no_sync():
        pass
    return [*said, str(refused.value)]


def test_what_cannot_work_is_refused_in_a_sentence():
    said = run_ranks(refusals, 2, quiet=True)[0]
    assert said[0].startswith("1 buffers and 1 micro-batches cannot work: take at least 2 buffers")
    assert said[1].startswith("2 buffers and 0 micro-batches")
    assert said[2].startswith("YaFSDP keeps no whole gradients: leave no_sync() out")


def too_early(rank, world_size):
    model = build_gpt(CONFIG)
    network = YaFSDP(model, model.blocks, Sharding(rank, world_size))
    network.prefetch = 2  # one more than two buffers can hold
    next_token_loss(model, *batch(rank, world_size, 0)).backward()


def test_a_gather_into_a_busy_buffer_ends_in_a_sentence():
    with pytest.raises(RankError, match=r"would overwrite blocks\.\d, which still computes"):
        run_ranks(too_early, 2, quiet=True)


def norms(rank, world_size):
    model = build_gpt(CONFIG)
    network = YaFSDP(model, model.blocks, Sharding(rank, world_size))
    units = {shard.unit.name: shard for shard in network.shards}
    assert all(isinstance(each, BufferedShard) for each in network.shards)
    return {name: (shard.layout.names, shard.is_whole) for name, shard in units.items()}


def test_the_norms_of_all_layers_are_one_unit():
    units = run_ranks(norms, 2, quiet=True)[0]
    assert list(units) == ["blocks.0", "blocks.1", "blocks.2", "blocks.3", "root", "norms"]
    assert len(units["norms"][0]) == 4 * CONFIG.num_layers
    assert all(".attention_norm." in n or ".feed_forward_norm." in n for n in units["norms"][0])
    assert not any("norm" in n for n in units["blocks.0"][0])
    assert "final_norm.weight" in units["root"][0]
