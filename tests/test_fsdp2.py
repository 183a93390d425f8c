"""torch's FSDP2 under the interface of utils.peers: parity, bytes sent, bytes held."""

from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.distributed as dist

from utils.config import PRESETS, GPTConfig
from utils.costs import count_parameters
from utils.peers import TrainingJob
from utils.peers.fsdp2 import Fsdp2Options, Fsdp2System, RingReduceScatter
from utils.peers.fsdp2_traffic import fsdp2_shard_bytes, fsdp2_traffic, traffic_in_models
from utils.peers.harness import largest_gap, measure_system, one_process, train_system
from utils.ranks import run_ranks
from utils.techniques.checkpointing import checkpoint_by_function, checkpoint_by_hooks

CONFIG = GPTConfig(3, 2, 32, 16, 64)
UNEVEN = GPTConfig(2, 2, 30, 16, 50)  # no size of it divides by 4
JOB = TrainingJob(CONFIG, batch_size=8, num_steps=3)
UNEVEN_JOB, CLIPPED = replace(JOB, config=UNEVEN), replace(JOB, max_norm=0.1)
ACCUMULATED, LOW = replace(JOB, num_micro_batches=2), replace(JOB, low_precision=True)


TWO_RANKS = {
    "plain": (JOB, {}),
    "kept after forward": (JOB, dict(reshard_after_forward=False)),
    "our ring": (JOB, dict(ring=True)),
    "ring, prefetched": (JOB, dict(prefetch=True, ring=True)),
    "checkpoint by hooks": (JOB, dict(checkpoint=checkpoint_by_hooks)),
    "checkpoint by function": (JOB, dict(checkpoint=checkpoint_by_function)),
    "clipped": (CLIPPED, {}),
    "accumulated": (ACCUMULATED, dict(ring=True)),
    "reduced each time": (ACCUMULATED, dict(sync_every_micro_batch=True)),
    "tied embeddings": (replace(JOB, config=replace(CONFIG, tied_embeddings=True)), {}),
    "bf16": (LOW, {}),
    "bf16 sums": (LOW, dict(low_precision_sums=True)),
}
FOUR_RANKS = {
    "plain": (JOB, {}),
    "freed to pairs": (JOB, dict(reshard_after_forward=2)),
    "hybrid": (JOB, dict(num_shards=2)),
    "hybrid ring": (JOB, dict(num_shards=2, ring=True)),
    "ring, prefetched": (JOB, dict(ring=True, prefetch=True)),
    "uneven": (UNEVEN_JOB, {}),
    "clipped": (replace(CLIPPED, config=UNEVEN), dict(ring=True)),
}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """As a rank has: with more, some sums of the oracle would have another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def each_of(rank, world_size, worker, cases):
    """Several runs by the same ranks: what torch looks up at first use, it looks up once."""
    return {
        name: worker(rank, world_size, partial(Fsdp2System, **options), job)
        for name, (job, options) in cases.items()
    }


def on_ranks(world_size, worker, cases):
    """Case -> every rank's result."""
    by_rank = run_ranks(each_of, world_size, worker, cases, quiet=True)
    return {name: [mine[name] for mine in by_rank] for name in cases}


@pytest.fixture(scope="module")
def on_two():
    return on_ranks(2, train_system, TWO_RANKS)


@pytest.fixture(scope="module")
def on_four():
    return on_ranks(4, train_system, FOUR_RANKS)


@pytest.mark.parametrize(
    "world_size, name", [(2, name) for name in TWO_RANKS] + [(4, name) for name in FOUR_RANKS]
)
def test_traffic_is_the_formulas_to_the_byte_and_ranks_agree(on_two, on_four, world_size, name):
    job, options = {2: TWO_RANKS, 4: FOUR_RANKS}[world_size][name]
    runs = {2: on_two, 4: on_four}[world_size][name]
    for rank, run in enumerate(runs):
        assert run.sent_bytes == fsdp2_traffic(job, world_size, rank, **options)
        assert run.losses == runs[0].losses
        assert all(map(torch.equal, run.parameters, runs[0].parameters))


EXACT = [name for name, (job, _) in TWO_RANKS.items() if job is JOB]
CLOSE = [(2, "clipped"), (2, "accumulated"), (2, "reduced each time"), (2, "tied embeddings")]
CLOSE += [(4, name) for name in FOUR_RANKS]


@pytest.mark.parametrize("name", EXACT)
def test_two_ranks_equal_one_process_bit_for_bit(on_two, name):
    """Two summands have one order only, and Adam does the same to each value of a shard."""
    assert largest_gap(on_two[name][0], one_process(JOB, num_parts=2)) == (0.0, 0.0)


@pytest.mark.parametrize("world_size, name", CLOSE)
def test_other_orders_of_sums_stay_near_to_one_process(on_two, on_four, world_size, name):
    job, _ = {2: TWO_RANKS, 4: FOUR_RANKS}[world_size][name]
    run = {2: on_two, 4: on_four}[world_size][name][0]
    loss_gap, parameter_gap = largest_gap(run, one_process(job, world_size * job.num_micro_batches))
    assert loss_gap < 2e-6
    assert parameter_gap < 1e-3  # Adam makes more of an ulp where a gradient is almost nothing


def test_the_ring_changes_nothing_but_the_bytes(on_four):
    plain, ring = on_four["hybrid"][0], on_four["hybrid ring"][0]
    assert all(map(torch.equal, plain.parameters, ring.parameters))
    assert ring.sent_bytes < plain.sent_bytes
    assert "reduce_scatter" not in ring.calls and ring.calls["send"] == CONFIG.num_layers + 1


def test_reducing_every_micro_batch_sends_one_model_more(on_two):
    each = on_two["reduced each time"][0].sent_bytes
    once = fsdp2_traffic(ACCUMULATED, 2)
    assert each - once == 4 * count_parameters(CONFIG).total  # gloo's all-reduce at 2 ranks


def test_bf16_halves_what_is_gathered_and_stays_near(on_two):
    oracle = one_process(JOB, 2)
    for name in ("bf16", "bf16 sums"):
        loss_gap, parameter_gap = largest_gap(on_two[name][0], oracle)
        assert 0 < loss_gap < 1e-2 and parameter_gap < 1e-2
    model_bytes = 4 * count_parameters(CONFIG).total
    plain, low, lower = (on_two[n][0].sent_bytes for n in ("plain", "bf16", "bf16 sums"))
    assert plain - model_bytes == 2 * (low - model_bytes)
    assert lower == plain // 2


def test_bytes_held_are_those_of_the_formula():
    cases = {name: FOUR_RANKS[name] for name in ("plain", "hybrid", "uneven")}
    for name, ranks in on_ranks(4, measure_system, cases).items():
        job, options = cases[name]
        assert [each.held for each in ranks] == [
            fsdp2_shard_bytes(job.config, 4, rank, options.get("num_shards")) for rank in range(4)
        ]
    padded = [fsdp2_shard_bytes(UNEVEN, 4, rank) for rank in range(4)]
    assert padded[0]["parameters"] > count_parameters(UNEVEN).total  # a quarter of 4 bytes each
    assert padded[3]["optimizer state"] < padded[0]["optimizer state"]  # fewer rows


def test_the_formula_by_hand_in_units_of_the_model():
    config = PRESETS["laptop-wide"]
    job, count = TrainingJob(config), count_parameters(config)
    share = config.num_layers * count.block / count.total  # of the model in blocks

    def units(world_size, **options):
        return traffic_in_models(config, fsdp2_traffic(job, world_size, **options))

    assert units(1) == 0
    assert units(2, reshard_after_forward=False) == 1.5
    assert units(2) == pytest.approx((1 + share) / 2 + 1, abs=1e-12)
    assert units(2, ring=True) == pytest.approx((1 + share) / 2 + 0.5, abs=1e-12)
    assert units(4) == pytest.approx(0.75 * (1 + share) + 1.5, abs=1e-6)
    assert units(4, ring=True) == pytest.approx(0.75 * (2 + share), abs=1e-12)
    hybrid = (1 + share) / 2 + 1 / 2 + 1 / 2  # ring in pairs, then half a model between the pairs
    assert units(4, ring=True, num_shards=2) == pytest.approx(hybrid, abs=1e-12)


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(num_shards=3), "4 ranks do not make copies of 3 shards"),
        (dict(num_shards=-2), "do not make copies of -2"),
        (dict(reshard_after_forward=3), "reshard_after_forward=3 must be True, False or"),
        (dict(reshard_after_forward=4), "between 1 and 4 that divides 4"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        Fsdp2Options(**options).check(4)
    with pytest.raises(ValueError, match=words):
        fsdp2_traffic(JOB, 4, **options)


def test_the_ring_refuses_what_it_cannot_do():
    with pytest.raises(NotImplementedError, match="adds or averages"):
        RingReduceScatter()(torch.empty(1), torch.empty(2), None, dist.ReduceOp.MAX)
