"""Lab 08's wrong hybrids, each with the words that its check must answer with."""

from functools import partial

from tests.wrong_builders_08 import mutant

hybrid = partial(mutant, "08.4")

NEAR = "list(range(first, first + gpus_per_node))"
FAR = "list(range(k, world_size, gpus_per_node))"
GATHER = "ring_all_gather(flat_P, shard_S, place, gpus_per_node, sharing)"
SCATTER = "ring_reduce_scatter(shard_S, flat_P, place, gpus_per_node, sharing)"
SUM = "dist.all_reduce(shard_S, group=replicas)"
MEAN = "shard_S /= world_size"
WHOLE_BETWEEN = "dist.all_reduce(flat_P, group=replicas)"
CUT = "shard_S.copy_(flat_P.chunk(gpus_per_node)[place])"
INTERLEAVED = """\
    num_nodes = world_size // gpus_per_node
    place = rank // num_nodes
    for first in range(num_nodes):
        group = dist.new_group(list(range(first, world_size, num_nodes)))
        if first == rank % num_nodes:
            sharing = group
    for k in range(gpus_per_node):
        group = dist.new_group(list(range(k * num_nodes, (k + 1) * num_nodes)))
        if k == place:
            replicas = group
"""
GROUPS = """\
    place = rank % gpus_per_node
    for first in range(0, world_size, gpus_per_node):
        group = dist.new_group(list(range(first, first + gpus_per_node)))
        if first == rank - place:
            sharing = group
    for k in range(gpus_per_node):
        group = dist.new_group(list(range(k, world_size, gpus_per_node)))
        if k == place:
            replicas = group
"""
SWAPPED = GROUPS + """\
    sharing, replicas = replicas, sharing
    place, gpus_per_node = rank // gpus_per_node, world_size // gpus_per_node
"""
OWN_GROUPS = """\
    place = rank % gpus_per_node
    sharing = dist.new_group(list(range(rank - place, rank - place + gpus_per_node)))
    replicas = dist.new_group(list(range(place, world_size, gpus_per_node)))
"""
BY_LIBRARY = """\
total_P = flat_P.clone()
        dist.all_reduce(total_P, group=sharing)
        shard_S.copy_(total_P.chunk(gpus_per_node)[place])
"""
ALL_GATHERED = """\
parts = [torch.empty_like(shard_S) for _ in range(world_size)]
        dist.all_gather(parts, shard_S)
        flat_P.copy_(torch.cat(parts[rank - place : rank - place + gpus_per_node]))
"""
TWICE = f"{GATHER}; {GATHER}"

HYBRIDS = [
    (hybrid(GROUPS, SWAPPED), "the two groups are swapped"),
    (hybrid("sharing)", "SHARING)", "replicas)", "sharing)", "SHARING)", "replicas)"),
     "this rank's place in the group"),
    (hybrid(GROUPS, INTERLEAVED), "the neighbours are wrong"),
    (hybrid(GATHER, ALL_GATHERED), "weights are gathered from all ranks"),
    (hybrid(GROUPS, OWN_GROUPS), "is called by all ranks for all groups"),
    (hybrid(SUM, "pass"), "the replicas drift apart"),
    (hybrid(SUM, "pass", MEAN, "shard_S /= gpus_per_node"), "the replicas drift apart"),
    (hybrid(SUM, "dist.all_reduce(shard_S, group=sharing)"), "different shards are added up"),
    (hybrid(SCATTER, CUT), "the mean is over the replicas only"),
    (hybrid(SCATTER, CUT, MEAN, "shard_S *= gpus_per_node / world_size"),
     "the mean is over the replicas only"),
    (hybrid(SCATTER, f"{WHOLE_BETWEEN}; {SCATTER}", SUM, "pass"),
     "an all-reduce of the whole gradient between nodes"),
    (hybrid(SCATTER, f"dist.all_reduce(flat_P); {CUT}", SUM, "pass"),
     "one message for all ranks crosses"),
    (hybrid(MEAN, "shard_S /= gpus_per_node"), "divided by the ranks of a node only"),
    (hybrid(MEAN, "shard_S /= world_size // gpus_per_node"), "divided by the number of nodes only"),
    (hybrid(MEAN, "pass"), "sum instead of mean"),
    (hybrid(MEAN, "shard_S /= world_size**2"), "divided by the number of ranks twice"),
    (hybrid(SCATTER, f"{CUT}", SUM, "pass", MEAN, "pass"), "nothing of the other ranks"),
    (hybrid(SCATTER, BY_LIBRARY), "an all-reduce where a reduce-scatter is enough"),
    (hybrid(SUM, f"{SUM}; {SUM}", MEAN, "shard_S /= world_size * (world_size // gpus_per_node)"),
     "too many bytes to other nodes"),
    (hybrid(GATHER, TWICE), "a gather sends too many bytes"),
    (hybrid(GATHER, "flat_P.copy_(shard_S.repeat(gpus_per_node))"), "gathered weights are wrong"),
    (hybrid("return gather, mean", "pass"), "without a return"),
    (hybrid("return gather, mean", "return sharing, replicas"), "Return the two functions"),
]  # fmt: skip
