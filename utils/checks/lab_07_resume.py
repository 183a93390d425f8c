"""Judge of lab 07, another world size: files opened, every value of every new shard, memory."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from utils.checks.diagnose import require_function
from utils.checks.engine import exercise
from utils.checks.helpers import NotYet, require
from utils.checks.truth_07_resume import (
    CASES,
    GARBAGE,
    OFF_BY_ONE,
    OFFSETS,
    STEP,
    Case,
    Files,
    mistakes,
    shard,
    shard_values,
)


@exercise(
    "07.5",
    "another world size",
    hints=[
        "A shard is a range: old rank r has values r S_old up to (r + 1) S_old, a new one the same "
        "with S_new, and what lies behind the unit's size is padding. When do two ranges overlap, "
        "and where does the overlap lie in each of the two tensors?",
        "first = max(rank * new, r * old); last = min((rank + 1) * new, (r + 1) * old, size); they "
        "overlap if first < last. From [first - r * old : last - r * old] of the file to "
        "[first - rank * new : last - rank * new] of torch.zeros(new). Collect the files of all "
        "units first ({0} if there are none), open each once, then fill unit by unit.",
    ],
    seconds=30,
    lab="lab_07_zero",
)
def judge_reshard(answer: Callable) -> str:
    """Every new rank of each case: what it opens, what it gets, where that lies."""
    require_function(answer)
    runs = [(case, rank, Files(case)) for case in CASES for rank in range(case.new)]
    results = [answer(files, list(c.sizes), c.old, rank, c.new) for c, rank, files in runs]
    for (case, rank, _), got in zip(runs, results, strict=True):
        where = f"{case}: new rank {rank}"
        _require_form(where, case, got)
        for unit in range(len(case.sizes)):
            for key in OFFSETS:
                _require_values(where, case, unit, key, rank, got[unit][key])
    for (case, rank, files), got in zip(runs, results, strict=True):
        _require_files(f"{case}: new rank {rank}", case, rank, files.opened)
        _require_own_memory(f"{case}: new rank {rank}", got, files)
    num_opened, num_all = (sum(each) for each in zip(*map(_counts, runs), strict=True))
    return (
        f"Right for {len(CASES)} pairs of world sizes, weights and Adam's state alike; "
        f"{num_opened} files opened where reading all of them takes {num_all}."
    )


def _counts(run: tuple[Case, int, Files]) -> tuple[int, int]:
    """(files opened, files there are)."""
    return len(run[2].opened), run[0].old


def _require_form(where: str, case: Case, got: Any) -> None:
    likely = "the function ends without a return" if got is None else "one dict for each unit"
    is_list = isinstance(got, (list, tuple)) and all(isinstance(each, dict) for each in got)
    fits = is_list and len(got) == len(case.sizes)
    require(fits, f"{where}: return a list of {len(case.sizes)} dicts", got=got, likely=likely)
    for unit, state in enumerate(got):
        missing = [key for key in OFFSETS if key not in state]
        likely = "Adam's state is forgotten: all tensors of a unit's dict are sharded alike"
        what = f"{where}: {', '.join(missing)} of unit {unit} is missing"
        require(not missing, what, likely=likely)
        likely = "a number has no shards: take it over from any file"
        step = state.get("step")
        right = torch.is_tensor(step) and step.dim() == 0 and step.item() == STEP
        require(right or step == STEP, f"{where}: step of unit {unit} is wrong", STEP, step, likely)


def _require_values(where: str, case: Case, unit: int, key: str, rank: int, got: Any) -> None:
    true = shard(case, unit, key, case.new, rank, 0.0)
    size, num_shard = case.sizes[unit], shard_values(case.sizes[unit], case.new)
    is_flat = torch.is_tensor(got) and got.dim() == 1
    require(is_flat, f"{where}: {key} of unit {unit} must be a flat tensor", got=got)
    if torch.equal(got, true):
        return
    found = (text for text, value in mistakes(case, unit, key, rank) if torch.equal(got, value))
    likely = next(found, "")
    if len(got) != num_shard:
        what = f"{where}: {key} of unit {unit} has another number of values"
        short = min((rank + 1) * num_shard, size) - rank * num_shard
        if not likely and len(got) == max(0, short):
            likely = "the new shard is padded, too, with zeros"
        elif not likely and abs(len(got) - num_shard) == 1:
            likely = OFF_BY_ONE
        raise NotYet(what, num_shard, len(got), likely)
    if not likely and (got == GARBAGE).any():
        likely = "padding copied into the middle: the unit's values end at its size"
    raise NotYet(f"{where}: {key} of unit {unit} is wrong", true, got, likely)


def _require_files(where: str, case: Case, rank: int, opened: list[int]) -> None:
    needed = sorted(case.needed(rank))
    twice = [each for each in opened if opened.count(each) > 1]
    likely = "keep what open_file returned, for all units and all kinds of state"
    if twice:
        what = f"{where}: right, but file {twice[0]} is opened {opened.count(twice[0])} times"
        raise NotYet(what, likely=likely)
    if len(opened) == 1 and not needed:
        return
    if sorted(opened) == needed:
        return
    likely = ""
    if not needed:
        likely = "a rank that gets only padding needs one file, for names and numbers"
    elif len(opened) == case.old > len(needed) + 1:
        likely = "it reads every file: open those that the new shard overlaps"
    elif 0 in opened and 0 not in needed and set(opened) - {0} == set(needed):
        likely = "names and numbers are in every file: take them from one that is open anyway, and "
        likely += "fill a unit that is only padding here with zeros"
    elif len(opened) == case.old:
        likely = "it reads every file: open those that the new shard overlaps"
    elif set(opened) > set(needed):
        likely = OFF_BY_ONE + "; a file that only touches it holds nothing of it"
    raise NotYet(f"{where}: right, but it opens other files", needed, sorted(opened), likely)


def _require_own_memory(where: str, got: Any, files: Files) -> None:
    theirs = {each.untyped_storage().data_ptr() for each in files.handed_out}
    for unit, state in enumerate(got):
        for key in OFFSETS:
            tensor: Tensor = state[key]
            is_own = tensor.untyped_storage().data_ptr() not in theirs
            is_small = tensor.untyped_storage().nbytes() <= tensor.nbytes
            likely = "a slice is a view and keeps all of the tensor behind it alive: copy or clone"
            what = f"{where}: right, but {key} of unit {unit} has no memory of its own"
            require(is_own and is_small, what, likely=likely)
