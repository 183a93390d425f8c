"""Judge of lab 10, choose a recipe: the cheapest that fits, beside all others."""

from collections.abc import Callable, Sequence

from utils.checks.diagnose import require_function
from utils.checks.engine import exercise
from utils.checks.helpers import NotYet, close_to, format_bytes, require
from utils.checks.truth_10_choose import CASES, Case, allowed, best, known_rate
from utils.checks.truth_10_choose_mistakes import MISTAKES
from utils.checks.truth_10_cloud import peak_bytes, usd_of
from utils.recipe import TrainingRecipe

BROKEN = {
    "precision": "the devices have no {recipe.precision}",
    "batch": "a step of {recipe.sequences_per_step} sequences, and the job wants "
    "{job.sequences_per_step}",
    "devices": "{recipe.num_ranks} devices, and there are {cloud.max_devices}",
    "budget": "${usd:.6f}, and the budget is ${job.budget_usd:.6f}",
    "memory": "a peak of {peak}, and a device has {memory}",
}


@exercise(
    "10.2",
    "choose a recipe",
    hints=[
        "Which recipes are out, whatever they cost? Go through the contract: each sentence is a "
        "condition. Of those that are left, which number decides?",
        "Skip a recipe if cloud.flops_per_s(recipe.precision) is 0, its sequences_per_step are "
        "others, num_ranks > max_devices, or predict_run's peak_bytes > memory_bytes or usd > "
        "budget_usd. Keep the one with the least usd; None if nothing is left.",
    ],
    seconds=120,
    lab="lab_10_all_together",
)
def judge_choose(answer: Callable) -> str:
    """Six jobs; of equally cheap recipes any is right."""
    require_function(answer)
    results = [_result(case, _answered(answer, case)) for case in CASES]
    likely = "the function ends without a return"
    require(any(results), "None for every job, though most can be done", likely=likely)
    wrong = [k for k, case in enumerate(CASES) if not _is_right(case, results[k])]
    if wrong:
        _explain(CASES[wrong[0]], results[wrong[0]], _name_of(results, wrong))
    names = sorted({result.name for result in results if result})
    return (
        f"{len(CASES)} jobs on {len(CASES)} clouds, each beside all {len(CASES[0].recipes)} "
        f"recipes. The cheapest are {'; '.join(names)}; one job is beyond its budget."
    )


def _answered(answer: Callable, case: Case) -> object:
    """What the answer gives; NotYet where it fails over a precision whose rate is 0, only there."""
    try:
        return answer(case.job, case.cloud, list(case.recipes))
    except (ZeroDivisionError, NotYet) as error:  # NotYet: what came of it in another process
        known = [each for each in case.recipes if known_rate(each, case.job, case.cloud)]
        is_other = isinstance(error, NotYet) and "ZeroDivisionError" not in str(error)
        if is_other or len(known) == len(case.recipes) or not _works(answer, case, known):
            raise
        expected = "recipes whose precision has no rate to be left out before they are predicted"
        likely = "these devices have no bf16: their rate is 0, and predict_run divides by it"
        what, got = f"For {case.name}: no choice", "a ZeroDivisionError"
        raise NotYet(what, expected, got, likely) from None


def _works(answer: Callable, case: Case, recipes: Sequence[TrainingRecipe]) -> bool:
    try:
        answer(case.job, case.cloud, list(recipes))
    except (ZeroDivisionError, NotYet):
        return False
    return True


def _result(case: Case, got: object) -> TrainingRecipe | None:
    is_recipe = got is None or isinstance(got, TrainingRecipe)
    require(is_recipe, f"For {case.name}: return a TrainingRecipe or None", got=got)
    likely = "take one of the list"
    known = got is None or got in case.recipes
    require(known, f"For {case.name}: this recipe is not in the list", got=got, likely=likely)
    return got


def _is_right(case: Case, got: TrainingRecipe | None) -> bool:
    right = best(case)
    if None in (got, right):
        return got is right
    usd = (usd_of(each, case.job, case.cloud) for each in (got, right))
    return not allowed(got, case) and close_to(*usd, 1e-9)


def _name_of(results: Sequence[TrainingRecipe | None], wrong: Sequence[int]) -> str:
    """The mistake that explains all choices, or all wrong ones, or the first of them."""
    for numbers in (range(len(CASES)), wrong, wrong[:1]):
        for text, way in MISTAKES:
            if all(way.explains(results[k], CASES[k]) for k in numbers):
                return text
    return ""


def _explain(case: Case, got: TrainingRecipe | None, likely: str) -> None:
    right = best(case)
    expected = "None" if right is None else _shown(right, case)
    if got is None:
        raise NotYet(f"For {case.name} there is a recipe", expected, "None", likely)
    words = {
        "recipe": got, "job": case.job, "cloud": case.cloud,
        "peak": format_bytes(peak_bytes(got, case.job)),
        "memory": format_bytes(case.cloud.memory_bytes),
    }  # fmt: skip
    rule = allowed(got, case)
    what = f"For {case.name}: not the cheapest"
    if rule:
        usd = 0.0 if rule == "precision" else usd_of(got, case.job, case.cloud)
        what = f"For {case.name}: {BROKEN[rule].format(**words, usd=usd)}"
    raise NotYet(what, expected, _shown(got, case, rule == "precision"), likely)


def _shown(recipe: TrainingRecipe, case: Case, is_free: bool = False) -> str:
    usd = "" if is_free else f", ${usd_of(recipe, case.job, case.cloud):.6f}"
    return f"{recipe.name}, {recipe.batch_size} x {recipe.micro_batches} on each rank{usd}"
