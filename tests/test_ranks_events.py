"""Events on one clock for all ranks, and a link as slow as it was asked to be."""

import itertools
import threading

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from utils.ranks import Event, EventLog, SlowLink, TrafficLedger, run_ranks

pytestmark = pytest.mark.filterwarnings("ignore:.*they take turns")


def test_events_of_all_ranks_lie_on_one_clock():
    def worker(rank, world_size):
        log = EventLog(rank)
        x = torch.ones(4)
        for turn in range(world_size):  # one rank after the other
            if turn == rank:
                with log.span("work"):
                    x.add_(1)
            dist.barrier()
        return log.events()

    by_rank = run_ranks(worker, 3)
    ends = [0.0]
    for rank, (event,) in enumerate(by_rank):
        assert isinstance(event, Event) and event.rank == rank
        assert (event.lane, event.name) == ("compute", "work")
        assert ends[-1] <= event.start_s <= event.end_s
        ends.append(event.end_s)


def test_spans_nest_and_asynchronous_work_ends_in_another_thread():
    log = EventLog()
    token = log.begin("all_reduce")
    with log.span("backward"), log.span("layer"):
        pass
    thread = threading.Thread(target=log.end, args=(token,))
    thread.start()
    thread.join()
    with pytest.raises(ZeroDivisionError), log.span("fails"):
        raise ZeroDivisionError
    assert [event.name for event in log.events()] == ["all_reduce", "backward", "layer", "fails"]
    assert [event.lane for event in log.events()] == ["communication"] + 3 * ["compute"]
    outer, inner = log.events()[1:3]
    assert outer.start_s <= inner.start_s and inner.end_s <= outer.end_s
    with pytest.raises(KeyError, match="No open event has the number 1"):
        log.end(token)


def test_a_collective_takes_at_least_the_time_of_its_bytes():
    def worker(rank, world_size):
        log = EventLog(rank)
        with SlowLink(1_000_000, log) as link, TrafficLedger() as ledger:
            tensors = [torch.full((10_000,), float(rank + i)) for i in range(3)]
            works = [link.all_reduce(tensor) for tensor in tensors]
            assert all(work.wait() for work in works)
        return [t[0].item() for t in tensors], log.events(), ledger.bytes_sent

    for sums, events, bytes_sent in run_ranks(worker, 2):
        assert sums == [1.0, 3.0, 5.0] and bytes_sent == 3 * 40_000
        assert [event.name for event in events] == 3 * ["all_reduce"]
        assert all(event.end_s - event.start_s >= 40_000 / 1_000_000 for event in events)
        assert all(a.end_s <= b.start_s for a, b in itertools.pairwise(events))


def test_the_rank_computes_on_while_the_link_is_busy():
    gate, link = threading.Event(), SlowLink(1e9)
    works = [link.issue(gate.wait, 0), link.issue(lambda: 1 / 0, 0)]
    assert not works[0].is_completed() and not works[1].is_completed()
    gate.set()
    assert works[0].wait()
    with pytest.raises(ZeroDivisionError):
        works[1].wait()
    assert works[1].is_completed()
    with pytest.raises(ZeroDivisionError):
        works[1].get_future().wait()
    link.close()


@pytest.mark.parametrize("bytes_per_s", [0, -1.0, float("nan")])
def test_a_link_without_bandwidth_is_refused(bytes_per_s):
    with pytest.raises(ValueError, match="give a number above 0"):
        SlowLink(bytes_per_s)


def test_ddp_can_send_its_buckets_over_the_link():
    def gradients(rank, world_size, slow):
        torch.manual_seed(0)
        model = DistributedDataParallel(nn.Linear(50, 50), bucket_cap_mb=0.001)
        if slow:
            link = SlowLink(1e6)

            def hook(state, bucket):
                mean = bucket.buffer().div_(world_size)
                return link.all_reduce(mean).get_future().then(lambda f: f.value()[0])

            model.register_comm_hook(None, hook)
        model(torch.full((2, 50), rank + 1.0)).square().mean().backward()
        return [parameter.grad for parameter in model.parameters()]

    fast, slow = run_ranks(gradients, 2, False), run_ranks(gradients, 2, True)
    for rank in range(2):
        assert all(map(torch.equal, fast[rank], slow[rank]))
