"""Every collective of torch.distributed, run under the ledger and two counters of the kernel."""

from pathlib import Path

import torch
import torch.distributed as dist

from utils.ranks import TrafficLedger
from utils.ranks.collectives import all_gather, reduce_scatter


def written_bytes():
    """A second witness: the kernel's sum of all that this process has written anywhere."""
    line = next(each for each in Path("/proc/self/io").read_text().splitlines() if "wchar" in each)
    return int(line.split()[1])


def collectives(rank, world_size, num_values, dtype):
    """All collectives of torch.distributed, by name, on tensors of so many values per rank."""

    def new(times=1):
        return torch.ones(times * num_values, dtype=dtype)

    def parts():
        return [new() for _ in range(world_size)]

    def at_root(root):
        return parts() if rank == root else None

    def exchange():
        ends = [(dist.isend, (rank + 1) % world_size), (dist.irecv, (rank - 1) % world_size)]
        works = dist.batch_isend_irecv([dist.P2POp(op, new(), peer) for op, peer in ends])
        [work.wait() for work in works]

    def uneven():
        rows = [num_values * ((rank + other) % 3) for other in range(world_size)]
        output, input = (torch.ones(sum(rows), 2, dtype=dtype) for _ in range(2))
        dist.all_to_all_single(output, input, rows, rows)

    def together(collective, *arguments):
        with dist._coalescing_manager(async_ops=True) as manager:
            collective(*arguments)
            collective(*arguments)
        manager.wait()

    last = world_size - 1
    plain = {
        "all_reduce": lambda: dist.all_reduce(new()),
        "all_reduce later": lambda: dist.all_reduce(new(), async_op=True).wait(),
        "two all_reduces": lambda: together(dist.all_reduce, new()),
        "all_gather of lists": lambda: dist.all_gather(parts(), new()),
        "reduce_scatter of lists": lambda: dist.reduce_scatter(new(), parts()),
        "reduce": lambda: dist.reduce(new(), last),
        "broadcast": lambda: dist.broadcast(new(), last),
        "gather": lambda: dist.gather(new(), at_root(0), 0),
        "scatter": lambda: dist.scatter(new(), at_root(last), last),
        "all_to_all": lambda: dist.all_to_all(parts(), parts()),
        "all_to_all_single": lambda: dist.all_to_all_single(new(world_size), new(world_size)),
        "uneven all_to_all": uneven,
        "send and recv": exchange,
        "barrier": dist.barrier,
        "monitored_barrier": dist.monitored_barrier,
        "objects": lambda: dist.all_gather_object([None] * world_size, {"rank": rank}),
    }
    if num_values == 0:  # torch refuses these for empty tensors
        return plain
    return plain | {
        "all_gather": lambda: all_gather(new(world_size), new()),
        "reduce_scatter": lambda: reduce_scatter(new(), new(world_size)),
        "two all_gathers": lambda: together(all_gather, new(world_size), new()),
        "two reduce_scatters": lambda: together(reduce_scatter, new(), new(world_size)),
    }


def compare(rank, world_size, sizes, dtypes):
    """(collective, values, dtype, by formula, by connection, by process) for all of them."""
    rows = []
    for num_values in sizes:
        for dtype in dtypes:
            for name, collective in collectives(rank, world_size, num_values, dtype).items():
                dist.barrier()
                before = written_bytes()
                with TrafficLedger() as ledger:
                    try:
                        collective()
                    except RuntimeError as error:  # torch before 2.13 has no all_to_all of lists
                        assert "does not support" in str(error)
                        continue
                by_formula = ledger.bytes_sent + ledger.envelope_bytes
                found = (ledger.kernel_bytes_sent(), written_bytes() - before)
                rows.append((name, num_values, str(dtype), by_formula, *found))
    return rows
