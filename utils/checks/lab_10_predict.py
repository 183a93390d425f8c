"""Judge of lab 10, predict a run: bytes, messages, tokens, FLOPs, dollars of seven recipes."""

from collections.abc import Callable, Mapping, Sequence

from utils.checks.diagnose import require_function, require_number
from utils.checks.engine import exercise
from utils.checks.helpers import NotYet, close_to, require
from utils.checks.truth_10_cloud import KEYS, right
from utils.checks.truth_10_predict_mistakes import CASES, MISTAKES

TOLERANCES = {"sent_bytes_per_step": 1e-3}  # padding and clipping may be counted
USD_TOLERANCE = 1e-3


@exercise(
    "10.1",
    "predict a run",
    hints=[
        "Bytes: recipe_bytes knows them. Messages: how many passes over weights and over gradients "
        "has the method, of how many bytes a value, and in each micro-batch or once? Dollars: "
        "seconds of a step, times what is rented meanwhile.",
        "With p = (N - 1)/N, P parameters, R of them outside of blocks: DDP p * 8 P; ZeRO-2 "
        "p * (w + m * g) * P; ZeRO-3 p * m * (2 w + g) * P; FSDP p * m * (w * (2 P - R) + g * P), "
        "for m micro-batches, w and g bytes of a weight and a gradient. usd = num_steps * "
        "((flops + again) / (N * rate) + sent / link) * N * usd_per_hour / 3600.",
    ],
    seconds=60,
    lab="lab_10_all_together",
)
def judge_predict(answer: Callable) -> str:
    """Seven recipes of three models, a number after the other."""
    require_function(answer)
    truths = [right(*case) for case in CASES]
    results = [_result(case.recipe.name, answer(*case)) for case in CASES]
    for key in KEYS:
        _require_all(key, [each[key] for each in results], [each[key] for each in truths])
    case, truth = CASES[3], truths[3]
    return (
        f"{len(CASES)} recipes, {len(KEYS)} numbers each. {case.recipe.name}: a rank holds up to "
        f"{truth['peak_bytes']:,} bytes and sends {truth['sent_bytes_per_step']:,.0f} a step; "
        f"{case.job.num_steps} steps cost ${truth['usd']:.4f}."
    )


def _result(name: str, got: object) -> Mapping[str, float]:
    likely = "the function ends without a return" if got is None else ""
    require(isinstance(got, Mapping), "Return a dict of numbers", got=got, likely=likely)
    missing = [key for key in KEYS if key not in got]
    require(not missing, f"For {name}, {', '.join(missing)} is missing", got=list(got))
    for key in KEYS:
        require_number(f"For {name}, {key}", got[key])
    return got


def _require_all(key: str, got: Sequence[float], truths: Sequence[float]) -> None:
    rtol = TOLERANCES.get(key, USD_TOLERANCE if key == "usd" else 1e-9)
    wrong = [k for k, pair in enumerate(zip(got, truths, strict=True)) if not _same(*pair, rtol)]
    if wrong:
        case = CASES[wrong[0]]
        recipe, job = case.recipe, case.job
        where = (
            f"{recipe.name}, {recipe.batch_size} x {recipe.micro_batches} sequences on each rank, "
            f"{job.num_steps} steps"
        )
        likely = _name_of(key, got, wrong, rtol)
        raise NotYet(f"{key} is wrong for {where}", truths[wrong[0]], got[wrong[0]], likely)


def _name_of(key: str, got: Sequence[float], wrong: Sequence[int], rtol: float) -> str:
    """The mistake that explains all results, or all wrong ones, or the first of them."""
    for numbers in (range(len(CASES)), wrong, wrong[:1]):
        for text, mistaken in MISTAKES[key]:
            if all(_same(got[k], mistaken(*CASES[k]), rtol) for k in numbers):
                return text
    return ""


def _same(got: float, expected: float, rtol: float) -> bool:
    return close_to(got, expected, rtol, 1e-12)
