"""torch's tracker on ranks that do not exist, beside the meter on ranks that do."""

from functools import partial

import pytest
import torch.distributed as dist
from torch.utils.checkpoint import checkpoint

from utils.config import GPTConfig
from utils.peers import TrainingJob
from utils.peers.fake_world import CATEGORIES, fake_world_bytes
from utils.peers.fsdp2 import Fsdp2System
from utils.peers.fsdp2_traffic import fsdp2_shard_bytes
from utils.peers.harness import measure_system
from utils.predict import TOKEN_BYTES
from utils.predict_sharded import predict_sharded
from utils.ranks import run_ranks

CONFIG = GPTConfig(3, 2, 64, 32, 64)
TOLERANCE = 0.002  # scalars, and what a kernel makes of its own accord
run_again = partial(checkpoint, use_reentrant=False)


@pytest.mark.parametrize("world_size, options", [(2, {}), (4, {"reshard_after_forward": False})])
def test_the_tracker_and_the_meter_see_the_same_peak(world_size, options):
    job = TrainingJob(CONFIG, batch_size=8, num_steps=2)
    make_system = partial(Fsdp2System, **options)
    real = run_ranks(measure_system, world_size, make_system, job, quiet=True)[0]
    fake = fake_world_bytes(CONFIG, world_size, 8 // world_size, **options)
    assert {name: fake.held[name] for name in real.held} == real.held
    assert fake.held_bytes == real.held_bytes
    # The harness holds both steps' batches of all ranks, the tracker one of this rank.
    batches = (2 * 8 - 8 // world_size) * 2 * CONFIG.context_length * TOKEN_BYTES
    assert fake.peak_bytes == pytest.approx(real.peak_bytes - batches, rel=TOLERANCE)


def test_a_thousand_ranks_hold_next_to_nothing():
    world_size = 1024
    fake = fake_world_bytes(CONFIG, world_size, 2, checkpoint=run_again)
    expected = fsdp2_shard_bytes(CONFIG, world_size)
    assert {name: fake.held[name] for name in expected} == expected
    assert not dist.is_initialized()  # this process has not become one of them
    assert set(fake.held) == set(fake.peak) == set(CATEGORIES.values())
    assert fake.peak["gathered weights"] > 100 * fake.peak["parameters"]


@pytest.mark.parametrize("low_precision", [False, True], ids=["fp32", "bf16, fp32 shards"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
def test_the_formula_stands_beside_the_tracker(low_precision, checkpointing):
    options = {"checkpoint": run_again} if checkpointing else {}
    fake = fake_world_bytes(CONFIG, 64, 2, low_precision, **options)
    precision = "bf16, fp32 shards" if low_precision else "fp32"
    predicted = predict_sharded(CONFIG, "FSDP", 64, 2, precision, checkpointing)
    assert predicted.peak.total == pytest.approx(fake.peak_bytes, rel=0.01)


def test_hybrid_sharding_holds_a_copy_per_pair():
    fake = fake_world_bytes(CONFIG, 8, 2, num_shards=2)
    assert fake.held["parameters"] == fsdp2_shard_bytes(CONFIG, 2)["parameters"]


@pytest.mark.parametrize(
    "world_size, options, words",
    [
        (1, {}, "at least 2 ranks"),
        (8, {"num_shards": 3}, "8 ranks do not make copies of 3 shards"),
    ],
)
def test_worlds_that_cannot_be(world_size, options, words):
    with pytest.raises(ValueError, match=words):
        fake_world_bytes(CONFIG, world_size, 1, **options)
