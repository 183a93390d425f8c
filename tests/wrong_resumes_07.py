"""Lab 07's wrong ways to resume, each with the words that its check must answer with."""

from functools import partial

import torch

from tests.wrong_builders_07 import mutant, right

resume = partial(mutant, "07.5")
reshard = right["reshard"]

NEEDED = "needed = {r for size in sizes for r, _, _ in overlaps(size)} or {0}"
FIRST = "first = max(rank * new, r * old)"
LAST = "last = min((rank + 1) * new, (r + 1) * old, size)"
SHARDS = "old, new, found = -(-size // num_files), -(-size // world_size), []"
ZEROS = "torch.zeros(-(-size // world_size), dtype=value.dtype)"
FILL = "units[k][key][here] = files[r][k][key][there]"
LOOP = "for r, there, here in overlaps(size):"


def concatenated(open_file, sizes, num_files, rank, world_size):
    """All old shards behind each other, padding included, cut anew."""
    files = [open_file(r) for r in range(num_files)]
    units = []
    for k in range(len(sizes)):
        units.append(dict(files[0][k]))
        for key, value in files[0][k].items():
            if value.dim():
                whole = torch.cat([each[k][key] for each in files])
                size = -(-len(whole) // world_size)
                mine = whole[rank * size : (rank + 1) * size]
                units[k][key] = torch.cat([mine, torch.zeros(size - len(mine))])
    return units


def cut_short(open_file, sizes, num_files, rank, world_size):
    units = reshard(open_file, sizes, num_files, rank, world_size)
    for state, size in zip(units, sizes, strict=True):
        new = -(-size // world_size)
        for key, value in state.items():
            if value.dim():
                state[key] = value[: max(0, size - rank * new)].clone()
    return units


def rank_by_rank(open_file, sizes, num_files, rank, world_size):
    """Old shards behind each other, cut in the right size, padding of the last one included."""
    files = [open_file(r) for r in range(num_files)]
    units = []
    for k, size in enumerate(sizes):
        units.append(dict(files[0][k]))
        new = -(-size // world_size)
        for key, value in files[0][k].items():
            if value.dim():
                whole = torch.cat([each[k][key] for each in files])
                mine = whole[rank * new : (rank + 1) * new]
                units[k][key] = torch.cat([mine, torch.zeros(new - len(mine))])
    return units


def split_evenly(open_file, sizes, num_files, rank, world_size):
    """As if old shards differed by at most one value, instead of being padded at the end."""
    files = [open_file(r) for r in range(num_files)]
    units = []
    for k, size in enumerate(sizes):
        units.append(dict(files[0][k]))
        places = [(r, int(i - part[0])) for r, part in
                  enumerate(torch.arange(size).tensor_split(num_files)) for i in part]  # fmt: skip
        new = -(-size // world_size)
        for key, value in files[0][k].items():
            if value.dim():
                units[k][key] = torch.zeros(new)
                for here, (r, there) in enumerate(places[rank * new : (rank + 1) * new]):
                    units[k][key][here] = files[r][k][key][there]
    return units


RESUMES = [
    (concatenated, "the old shards are put together with their padding"),
    (rank_by_rank, "padding copied into the new shard"),
    (split_evenly, "padding copied into the middle"),
    (resume(", (r + 1) * old, size)", ", (r + 1) * old)"), "padding copied into the new shard"),
    (resume(NEEDED, "needed = set(range(num_files))"), "it reads every file"),
    (resume("first < last", "first <= last"), "a file that only touches it"),
    (resume(NEEDED, f"{NEEDED} | {{0}}".replace("or {0} |", "|")), "one that is open anyway"),
    (resume("for r in needed}, []", "for r in needed}, []\n    files.update({r: open_file(r) for r "
            "in needed})"), "is opened 2 times"),
    (resume(FILL, "units[k][key][here] = open_file(r)[k][key][there]"), "keep what open_file"),
    (resume("isinstance(value, Tensor) and value.dim()", "key == 'master'"), "Likely mistake"),
    (lambda *a: [{"master": each["master"]} for each in reshard(*a)], "state is forgotten"),
    (lambda *a: [{k: v for k, v in each.items() if k != "step"} for each in reshard(*a)],
     "a number has no shards"),
    (lambda *a: [{**each, "step": torch.tensor(0.0)} for each in reshard(*a)], "has no shards"),
    (resume("if isinstance(value, Tensor) and value.dim():",
            "if isinstance(value, Tensor) and value.dim() and key != 'master':\n                "
            "units[k][key] = torch.zeros(-(-size // world_size))\n            if key == 'master':"),
     "nothing was copied into it"),
    (resume("files[r][k][key][there]", "files[r][k]['master'][there]"), "this is 'master'"),
    (resume("(rank + 1) * new, (r", "(rank + 1) * new - 1, (r"), "off by one at the border"),
    (resume(FIRST, "first = max(rank * new + 1, r * old)"), "off by one at the border"),
    (resume("rank * new", "(rank + 1) % world_size * new", "(rank + 1) * new",
            "((rank + 1) % world_size + 1) * new"), "another rank's shard"),
    (resume(ZEROS, "torch.zeros(-(-size // world_size) + 1)"), "off by one"),
    (cut_short, "the new shard is padded, too"),
    (resume("units[k][key] = torch.zeros(-(-size // world_size), dtype=value.dtype)",
            "spare = torch.zeros(2, -(-size // world_size))\n                units[k][key] = "
            "spare[0]"), "copy or clone"),
    (resume(ZEROS, ZEROS + "\n                if num_files == world_size:\n                    "
            "units[k][key] = files[rank][k][key]\n                    continue"),
     "padding copied into the new shard"),
    (resume(ZEROS, ZEROS + "\n                if num_files == world_size:\n                    "
            "units[k][key] = files[rank][k][key]\n                    units[k][key][max(0, size - "
            "rank * len(units[k][key])):] = 0\n                    continue"), "copy or clone"),
    (resume(" or {0}", "", "files[min(needed)]", "files[min(needed or {0})]",
            "files, units = ", "needed = needed or {0, 1}\n    files, units = "), "needs one file"),
    (lambda *a: reshard(*a)[0], "dicts"),
    (lambda *a: print(len(reshard(*a))), "without a return"),
]  # fmt: skip
