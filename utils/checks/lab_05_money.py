"""Judge of lab 05, the money: machine, technique and micro-batch against every other choice."""

from collections.abc import Callable

from utils.checks.diagnose import require_function
from utils.checks.engine import exercise
from utils.checks.helpers import NotYet, close_to, require
from utils.checks.truth_05_money import (
    Candidate,
    Choice,
    Table,
    cheapest,
    explain,
    needed_bytes,
    random_tables,
    step_usd,
)

NUM_TABLES = 60


@exercise(
    "05.5",
    "does it pay?",
    hints=[
        "Three loops: machines, techniques, micro-batch sizes from 1 to the batch. Skip what does "
        "not fit; what does the rest cost?",
        "A batch takes math.ceil(batch_size / micro_batch) * seconds_per_micro_batch + batch_size "
        "* seconds_per_sequence, divided by the speed. Compare pairs (dollars, bytes), so that "
        "bytes decide between equal prices.",
    ],
    lab="lab_05_choosing_what_to_keep",
)
def judge_money(answer: Callable) -> str:
    """The cheapest choice in each of many tables."""
    require_function(answer)
    tables = list(random_tables(NUM_TABLES))
    choices = [_asked(answer, table) for table in tables]
    for table, choice in zip(tables, choices, strict=True):
        _require_cheapest(table, choice, lambda: explain(tables, choices))
    plain = sum(choice is not None and choice[1] == "plain" for choice in choices)
    none = choices.count(None)
    return (
        f"The cheapest choice in {NUM_TABLES} tables: in {plain} of them plain training, in "
        f"{NUM_TABLES - plain - none} a technique that saves bytes, and in {none} nothing fits."
    )


def _asked(answer: Callable, table: Table) -> Choice:
    """The answer's choice, with names and a size that exist."""
    machines, techniques, batch_size = table
    got = answer(list(machines), list(techniques), batch_size)
    if got is None:
        return None
    is_triple = isinstance(got, (tuple, list)) and len(got) == 3
    likely = "None says that nothing fits" if not got else ""
    what = "Return the names of machine and technique and the micro-batch size"
    require(is_triple, what, got=got, likely=likely)
    machine, technique, micro_batch = got
    known = machine in [m.name for m in machines] and technique in [t.name for t in techniques]
    require(known, what, got=got, likely="machine.name and technique.name; None if nothing fits")
    likely = "a micro-batch has a whole number of sequences"
    require(type(micro_batch) is int and micro_batch > 0, what, got=got, likely=likely)
    likely = "sequences that nobody asked for cost time"
    what = f"A micro-batch of {micro_batch} is larger than the batch of {batch_size}"
    require(micro_batch <= batch_size, what, likely=likely)
    return machine, technique, micro_batch


def _named(table: Table, choice: Choice) -> Candidate:
    machines, techniques, _ = table
    machine = next(each for each in machines if each.name == choice[0])
    technique = next(each for each in techniques if each.name == choice[1])
    return machine, technique, choice[2]


def _require_cheapest(table: Table, choice: Choice, mistake: Callable[[], str]) -> None:
    truth, batch_size = cheapest(table), table[2]
    if choice is None:
        what = f"For a batch of {batch_size}, None was returned, although {truth} fits"
        require(truth is None, what, likely=mistake())
        return
    mine = _named(table, choice)
    needed, memory = needed_bytes(*mine[1:]), mine[0].memory_bytes
    if needed > memory:
        whole, more = f"{memory / 2**30:.2f} GiB", f"{needed / 2**30:.2f} GiB"
        likely = mistake() or "round the micro-batch down, or take another choice"
        raise NotYet(f"{choice} needs {more}, and the machine has {whole}", likely=likely)
    right = _named(table, truth)
    usd, best_usd = step_usd(mine, batch_size), step_usd(right, batch_size)
    what = f"For a batch of {batch_size}, {choice} costs more than {truth}"
    fewest = close_to(usd, best_usd, rtol=1e-9)
    require(fewest, what, f"{best_usd:.4g} dollars", f"{usd:.4g}", mistake())
    if needed > needed_bytes(*right[1:]):
        what = f"For a batch of {batch_size}, {truth} takes fewer bytes than {choice}"
        likely = mistake() or "of equal prices take the fewest bytes: the smaller micro-batch"
        raise NotYet(f"{what} at the same price", likely=likely)
