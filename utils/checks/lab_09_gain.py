"""Judge of lab 09, what a buffer is worth: how many, how large, and two percentages."""

from collections.abc import Callable, Sequence
from numbers import Integral

from utils.checks.diagnose import require_function, require_number
from utils.checks.engine import exercise
from utils.checks.helpers import NotYet, close_to, require
from utils.checks.truth_09_gain import CASES, MISTAKES, Result

NAMES = "the number of buffers", "their bytes", "percent less time", "percent more throughput"


@exercise(
    "09.5",
    "what a buffer is worth",
    hints=[
        "With n buffers, when does gather k begin? When two things are over: the gather before it, "
        "and the layer that used its buffer. And when does layer k begin?",
        "For each n: gathered = max(gathered, ends[k - n] if k >= n else 0) + gather_s[k]; ends[k] "
        "= max(ends[k - 1], gathered) + compute_s[k]. The first n whose last end equals that of n "
        "= num_layers. 100 * (1 - best / one) and 100 * (one / best - 1).",
    ],
    seconds=20,
    lab="lab_09_yafsdp",
)
def judge_gain(answer: Callable) -> str:
    """Six models' forwards; all four numbers of each."""
    require_function(answer)
    results = [
        _result(case.name, answer(*(list(each) for each in
                                    (case.gather_s, case.compute_s, case.layer_bytes))))
        for case in CASES
    ]  # fmt: skip
    for place, (case, result) in enumerate(zip(CASES, results, strict=True)):
        for column, (expected, got) in enumerate(zip(case.right, result, strict=True)):
            if not close_to(got, expected, 1e-9, 1e-9):
                what = f"With {case.name}, {NAMES[column]}: wrong"
                raise NotYet(what, expected, got, _name_of(results, place, column))
    number, num_bytes, less, more = results[1]
    return (
        f"{len(CASES)} forwards. With {CASES[1].name}, {number} buffers of {num_bytes} bytes: "
        f"{less:.1f} % less time, which is {more:.1f} % more throughput."
    )


def _result(name: str, got: object) -> Result:
    likely = "the function ends without a return" if got is None else ""
    fine = isinstance(got, (tuple, list)) and len(got) == len(NAMES)
    require(fine, f"Return {', '.join(NAMES)}", got=got, likely=likely)
    for what, value in zip(NAMES, got, strict=True):
        require_number(f"With {name}, {what}", value)
    require(isinstance(got[0], Integral), f"With {name}, the number of buffers is whole", got=got)
    return tuple(got)


def _name_of(results: Sequence[Result], place: int, column: int) -> str:
    """The mistake that explains all results, or this one, or only what is wrong here in each."""
    everything, alone = slice(None), slice(column, column + 1)
    for numbers, part in ((range(len(CASES)), everything), ([place], everything),
                          (range(len(CASES)), alone)):  # fmt: skip
        for text, mistaken in MISTAKES:
            pairs = ((list(results[k][part]), list(mistaken(CASES[k])[part])) for k in numbers)
            if all(close_to(got, wrong, 1e-9, 1e-9) for got, wrong in pairs):
                return text
    return ""
