"""Judge of lab 02, the choice of a list: operations that the learner has not seen."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from utils.checks.engine import exercise
from utils.checks.helpers import NotYet, require
from utils.techniques.formats import BF16, FP16, NumberFormat

LISTS = ("16 bits", "fp32", "widest", "none")


@dataclass(frozen=True)
class Trial:
    """An operation, its fp32 inputs, the right list, and what other answers betray."""

    name: str
    operation: Callable
    make_inputs: Callable[[torch.Generator], list[Tensor]]
    format: NumberFormat
    truth: str
    mistakes: dict[str, str] = field(default_factory=dict)


class Watched:
    """Runs an operation and remembers the dtypes of its inputs: an answer needs an experiment."""

    def __init__(self, trial: Trial, inputs: list[Tensor]) -> None:
        self.trial, self.calls = trial, []
        self.is_integer = [not tensor.is_floating_point() for tensor in inputs]

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Run the operation; integer inputs must have stayed integers."""
        kinds = [not tensor.is_floating_point() for tensor in inputs]
        likely = "cast only what is floating point: 257 becomes 256 in bf16, which is another row"
        lost = any(was and not now for was, now in zip(self.is_integer, kinds, strict=False))
        require(not lost, f"The integer input of {self.trial.name} was cast", likely=likely)
        self.calls.append({tensor.dtype for tensor in inputs if tensor.is_floating_point()})
        return self.trial.operation(*inputs)


def _randn(*shapes: tuple[int, ...], scale: float = 1.0, shift: float = 0.0) -> Callable:
    def make(generator: torch.Generator) -> list[Tensor]:
        return [shift + scale * torch.randn(shape, generator=generator) for shape in shapes]

    return make


def _with_rows(*shapes: tuple[int, ...]) -> Callable:
    """Random tensors with row numbers, some above 256, in the second place."""

    def make(generator: torch.Generator) -> list[Tensor]:
        table, *others = _randn(*shapes)(generator)
        return [table, torch.tensor([0, 257, 299]), *others]

    return make


def _squared_distance(x: Tensor, y: Tensor) -> Tensor:
    return (x * x).sum(-1) + (y * y).sum(-1) - 2 * (x * y).sum(-1)


TRIALS = (
    Trial(
        "x times sigmoid(x) in bf16",
        lambda x: x * x.sigmoid(),
        _randn((64,)),
        BF16,
        "none",
        {"fp32": "some rounding is allowed: 8 epsilons of the largest result"},
    ),
    Trial(
        "a product of large numbers in bf16",
        torch.matmul,
        _randn((8, 16), (16, 8), scale=1000.0),
        BF16,
        "16 bits",
        {
            "fp32": "measure the error against the largest result: rounding grows with the numbers",
            "widest": "ask first whether it is a product: those pay in 16 bits, and autocast casts "
            "both inputs",
            "none": "the FLOP counter counts products, and those pay in 16 bits",
        },
    ),
    Trial(
        "the same product in fp16",
        torch.matmul,
        _randn((8, 16), (16, 8), scale=1000.0),
        FP16,
        "fp32",
        dict.fromkeys(
            ("16 bits", "widest", "none"),
            "above 65,504 fp16 is infinite: being safe comes before being fast",
        ),
    ),
    Trial(
        "a softmax by hand in fp16",
        lambda x: x.exp() / x.exp().sum(-1, keepdim=True),
        lambda generator: [torch.linspace(0, 12, 16)],
        FP16,
        "fp32",
        {"none": "the error is nan, and `nan > limit` is False: ask `not error <= limit`"},
    ),
    Trial(
        "a squared distance by products in bf16",
        _squared_distance,
        _randn((8, 4), (8, 4), shift=10.0),
        BF16,
        "fp32",
        {"none": "nothing overflows, yet nearly all digits cancel: measure the error"},
    ),
    Trial(
        "a rotation by large angles in bf16",
        lambda x, angle: x * torch.cos(angle),
        lambda generator: [*_randn((16,))(generator), 100.0 * torch.arange(16)],
        BF16,
        "none",
        {
            "fp32": "run fp32 on the rounded inputs: the operation is not to blame for how its "
            "inputs were rounded",
        },
    ),
    Trial("a table look-up", lambda table, rows: table[rows], _with_rows((300, 2)), BF16, "none"),
    Trial(
        "adding rows to a table in bf16",
        lambda table, rows, values: table.index_add(0, rows, values),
        _with_rows((300, 2), (3, 2)),
        BF16,
        "widest",
        {"none": "try one input in fp32 and the others in 16 bits: it raises a RuntimeError"},
    ),
    Trial(
        "a convolution in fp16",
        F.conv1d,
        _randn((1, 2, 8), (3, 2, 3)),
        FP16,
        "16 bits",
        {
            "widest": "ask first whether it is a product: those pay in 16 bits",
            "none": "the FLOP counter counts products, and those pay in 16 bits",
        },
    ),
)


@exercise(
    "02.1",
    "choose the list",
    hints=[
        "Four questions in this order: does 16 bits spoil it, is it a product, does it refuse "
        "inputs of two dtypes, or none of these?",
        "Make `low` (floating-point inputs in 16 bits) and `high` (those back in fp32), compare "
        "the results with `not error <= limit`, count FLOPs of the run on `low`, and try "
        "`operation(inputs[0], *low[1:])` between try and except RuntimeError.",
    ],
    seconds=60,  # the first FLOP counter of a process imports much
    lab="lab_02_manual_autocast",
)
def judge_choice(answer: Callable) -> str:
    """The list of nine operations, each decided by an experiment."""
    for trial in TRIALS:
        inputs = trial.make_inputs(torch.Generator().manual_seed(4))
        watched = Watched(trial, inputs)
        before = [tensor.clone() for tensor in inputs]
        got = answer(watched, inputs, trial.format.dtype)
        require(got in LISTS, f"Name one of the lists {', '.join(LISTS)}", got=got)
        same = all(map(torch.equal, before, inputs))
        require(same, "The inputs were changed", likely="cast copies, never in place")
        _require_experiment(watched)
        if got != trial.truth:
            likely = trial.mistakes.get(got, "")
            raise NotYet(f"The list for {trial.name} is off", trial.truth, got, likely)
    return f"{len(TRIALS)} unseen operations on the right list, each after an experiment."


def _require_experiment(watched: Watched) -> None:
    """The answer must have seen results from 16-bit inputs and from fp32 inputs."""
    for dtypes in ({watched.trial.format.dtype}, {torch.float32}):
        name = str(next(iter(dtypes))).removeprefix("torch.")
        require(
            dtypes in watched.calls,
            f"The list for {watched.trial.name} was chosen without an experiment: the operation "
            f"never ran with all its floating-point inputs in {name}",
            likely="compare both precisions before you decide",
        )
