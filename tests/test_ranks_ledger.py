"""The ledger's bytes against the kernel's, for each collective, number of ranks, size and dtype."""

import threading
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tests.rank_collectives import compare
from utils.ranks import TrafficLedger, gloo_bytes, run_ranks
from utils.ranks.collectives import all_gather, reduce_scatter
from utils.ranks.gloo_bytes import Sent, textbook_bytes

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*they take turns"),
    pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="needs Linux's counters"),
]
MIB = 2**20


@pytest.mark.parametrize("world_size", [2, 3, 4, 5])
def test_every_collective_agrees_with_the_kernel_to_the_byte(world_size):
    sizes = [0, 1, world_size + 1, 1001]
    dtypes = [torch.float32, torch.bfloat16, torch.int64]
    for rank, rows in enumerate(run_ranks(compare, world_size, sizes, dtypes)):
        assert len(rows) > 200
        for row in rows:
            assert row[3] == row[4], (rank, row)  # by formula, by the kernel for each connection
        # The kernel's sum for the process also has a rank's answer when it is asked where it is,
        # which happens when a busy machine lets no rank run for a second.
        assert sum(row[3] == row[5] for row in rows) > 0.95 * len(rows)


def test_large_tensors_travel_in_segments_that_the_formulas_know():
    for rows in run_ranks(compare, 3, [700_001], [torch.float32]):
        assert all(row[3] == row[4] for row in rows), rows


def test_gloo_sends_half_as_much_again_as_the_textbook_for_a_reduce_scatter():
    def worker(rank, world_size):
        with TrafficLedger() as ledger:
            reduce_scatter(torch.ones(1000), torch.ones(4000))
            all_gather(torch.ones(4000), torch.ones(1000))
        return ledger.rows(), ledger.calls

    for rows, calls in run_ranks(worker, 4):
        assert calls == {"reduce_scatter": 1, "all_gather": 1}
        assert [row.payload_bytes for row in rows] == [16_000, 16_000]
        assert [row.bytes_sent for row in rows] == [24_000, 12_000]
        assert [row.textbook_bytes for row in rows] == [12_000.0, 12_000.0]


def test_shares_that_hold_for_the_mean_over_ranks():
    values, value_bytes = 1001, 4
    for world_size in (2, 3, 4, 5):
        for kind, formula in {
            "all_reduce": lambda r, n: gloo_bytes.all_reduce(values * 4, value_bytes, r, n),
            "reduce": lambda r, n: gloo_bytes.reduce(values * 4, value_bytes, r, n, root=1),
            "broadcast": lambda r, n: gloo_bytes.broadcast(values * 4, r, n, root=1),
            "gather": lambda r, n: gloo_bytes.gather(values * 4, r, n, root=1),
            "scatter": lambda r, n: gloo_bytes.scatter(values * 4, r, n, root=1),
        }.items():
            sent = [formula(rank, world_size).data_bytes for rank in range(world_size)]
            mean = textbook_bytes(kind, values * 4, world_size)
            if kind == "reduce":  # the ring's first round, then the parts to the root
                mean *= 1 + 1 / world_size
                assert sum(sent) / world_size == pytest.approx(mean, rel=0.01)
            else:
                assert sum(sent) / world_size == pytest.approx(mean)


def test_prints_and_files_are_no_traffic(tmp_path):
    def worker(rank, world_size):
        with TrafficLedger() as ledger:
            print("x" * 5000)
            (tmp_path / str(rank)).write_text("y" * 5000)
            dist.broadcast(torch.ones(100), 0)
        return ledger.bytes_sent, ledger.envelope_bytes, ledger.kernel_bytes_sent()

    assert run_ranks(worker, 2, quiet=True) == [(400, 96, 496), (0, 48, 48)]


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(*[nn.Linear(32, 32, bias=False) for _ in range(4)])

    def forward(self, x):
        return self.layers(x)


def libraries(rank, world_size):
    """Bytes and calls of a step of DDP and of FSDP2, and of other ways to an all-reduce."""
    from torch.distributed import _functional_collectives as functional
    from torch.distributed.fsdp import fully_shard

    def counted(step):
        with TrafficLedger() as ledger:
            step()
        assert ledger.bytes_sent + ledger.envelope_bytes == ledger.kernel_bytes_sent()
        return ledger.calls, ledger.bytes_sent

    replicated, sharded = DistributedDataParallel(Branches()), Branches()
    for layer in sharded.layers:
        fully_shard(layer)
    fully_shard(sharded)
    batch, x = torch.ones(2, 32), torch.ones(1024)
    backward = counted(replicated(batch).sum().backward)
    step = counted(lambda: sharded(batch).sum().backward())
    wrapped = counted(lambda: functional.all_reduce(x, "sum", dist.group.WORLD).wait())
    helper = threading.Thread(target=dist.all_reduce, args=(x,))
    threaded = counted(lambda: (helper.start(), helper.join()))
    return backward, step, wrapped, threaded


def test_library_code_is_counted_like_hand_written_code():
    weights_bytes = 4 * 4 * 32 * 32
    for backward, step, wrapped, threaded in run_ranks(libraries, 2):
        assert backward == ({"all_reduce": 1}, weights_bytes)
        assert wrapped == threaded == ({"all_reduce": 1}, 4096)
        # Each layer is gathered forward and backward, half of it from the other rank; its
        # gradient goes through gloo's reduce-scatter, an all-reduce.
        assert step == ({"all_gather": 8, "reduce_scatter": 4}, 2 * weights_bytes)


def test_a_group_of_some_ranks_counts_its_own_size():
    def worker(rank, world_size):
        from utils.ranks import recorder

        calls, group = [], dist.new_group([1, 3])
        recorder.listen(calls.append)
        with TrafficLedger() as ledger:
            if rank in (1, 3):
                dist.broadcast(torch.ones(100), 3, group)
        roots = [(call.root, call.group_rank, call.group_size) for call in calls]
        return ledger.bytes_sent, ledger.kernel_bytes_sent(), roots

    idle, root, other = (0, 0, []), (400, 496, [(3, 1, 2)]), (0, 48, [(3, 0, 2)])
    assert run_ranks(worker, 4) == [idle, other, idle, root]


def test_a_ledger_is_used_once_at_a_time_and_one_rank_sends_nothing():
    def worker(rank, world_size):
        with TrafficLedger() as ledger, TrafficLedger() as second:
            dist.all_reduce(torch.ones(10))
            with pytest.raises(RuntimeError, match="already open"):
                ledger.__enter__()
        return ledger.rows() == second.rows(), ledger.bytes_sent, ledger.kernel_bytes_sent()

    assert run_ranks(worker, 1) == [(True, 0, 0)]


def test_a_system_that_does_not_tell_gives_none(monkeypatch):
    from utils.ranks import kernel_bytes

    monkeypatch.setattr(kernel_bytes.sys, "platform", "darwin")
    ledger = TrafficLedger()
    with ledger:
        pass
    assert ledger.kernel_bytes_sent() is None and ledger.rows() == []


def test_the_renamed_collectives_do_not_warn():
    def worker(rank, world_size):
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            output, shard = torch.empty(4), torch.empty(2)
            all_gather(output, torch.full((2,), float(rank)))
            work = reduce_scatter(shard, output, dist.ReduceOp.MAX, async_op=True)
            work.wait()
            works = all_gather(output, shard, async_op=True)
            works.wait()
        return output.tolist(), shard.tolist()

    expected = [0.0, 0.0, 1.0, 1.0]
    assert run_ranks(worker, 2) == [(expected, expected[:2]), (expected, expected[2:])]


def test_a_message_costs_two_envelopes_to_send_and_one_to_receive():
    assert gloo_bytes.messages([100, 200], [50]) == Sent(300, 48 * 5)
    assert gloo_bytes.add([Sent(1, 2), Sent(3, 4)]) == Sent(4, 6)
    assert gloo_bytes.Segments.of(5 * MIB, 4, 2).segment_bytes <= MIB
    assert textbook_bytes("barrier", 100, 4) == 0 and textbook_bytes("send", 100, 4) == 100
