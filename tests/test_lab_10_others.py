"""Other right answers to lab 10 pass."""

import json
import math

import pytest

from tests.runs_10 import end_of, start_of, steps_of, true_events, write
from tests.wrong_builders_10 import right
from utils.checks import lab_10_run
from utils.checks.engine import judge
from utils.checks.truth_10_run import CLOUD, JOB, RECIPES
from utils.costs import count_parameters
from utils.planning.recipe_bytes import recipe_bytes
from utils.trainer.speed import flops_per_step
from utils.trainer.start import TrainingFailed, start_training
from utils.zero_bill import sent_weights


def predict_with_the_trainers_count(recipe, job, cloud):
    """FLOPs from the trainer's module, messages by adding up passes, clipping counted."""
    flops, again = flops_per_step(recipe, job.config)
    count, ranks, micro = count_parameters(job.config), recipe.num_ranks, recipe.micro_batches
    values, blocks = count.total, count.num_blocks * count.block
    low = recipe.precision == "bf16"
    weight = 2 if low and recipe.method not in ("ddp", "single") else 4
    gradient = weight if recipe.method.startswith("zero") else 4
    passes = []
    if recipe.method == "ddp":
        passes = [(4, values), (4, values)]
    if recipe.method == "zero2":
        passes = [(weight, values)] + [(gradient, values)] * micro
    if recipe.method == "zero3":
        passes = [(weight, values), (weight, values), (gradient, values)] * micro
    if recipe.method == "fsdp":
        passes = [(weight, values), (weight, blocks), (gradient, values)] * micro
    sent = sum(size * number for size, number in passes) * (ranks - 1) / ranks
    sent += 8 * (ranks > 1)
    rank_s = (flops + again) / cloud.flops_per_s(recipe.precision)
    rank_s += ranks * sent / cloud.link_bytes_per_s
    moments = recipe_bytes(recipe, job.config).moments.values()
    return {
        "usd": rank_s * job.num_steps / 3600 * cloud.usd_per_hour,
        "peak_bytes": float(max(each.total for each in moments)),
        "sent_bytes_per_step": round(sent),
        "tokens": recipe.sequences_per_step * job.config.context_length * job.num_steps,
        "flops": float(flops * job.num_steps), "recomputed_flops": again * job.num_steps,
        "and more": "is ignored",
    }  # fmt: skip


def test_the_course_has_the_same_count_of_passes():
    for recipe in RECIPES:
        if recipe.method in ("ddp", "zero2", "zero3"):
            stage = {"ddp": 0, "zero2": 2, "zero3": 3}[recipe.method]
            models = sent_weights(stage, recipe.num_ranks, recipe.micro_batches)
            run = right["predict_run"](recipe, JOB, CLOUD)
            whole = 4 * count_parameters(JOB.config).total
            assert run["sent_bytes_per_step"] == pytest.approx(models * whole)


def choose_by_sorting(job, cloud, recipes):
    able = [
        recipe for recipe in recipes
        if recipe.num_ranks <= cloud.max_devices and cloud.flops_per_s(recipe.precision)
        and recipe.sequences_per_step == job.sequences_per_step
    ]  # fmt: skip
    runs = [(right["predict_run"](recipe, job, cloud), recipe) for recipe in reversed(able)]
    fit = [(run["usd"], k) for k, (run, _) in enumerate(runs)
           if run["peak_bytes"] <= cloud.memory_bytes and run["usd"] <= job.budget_usd]  # fmt: skip
    return runs[min(fit)[1]][1] if fit else None


def explain_by_ratios(planned, paid):
    """Sums in a dict; each factor from its own two sums."""

    def sums(logs):
        total = dict.fromkeys(("tokens", "useful", "done", "s", "rank_s", "usd"), 0.0)
        for log in logs:
            first = log.start["resumed_from"] or 0
            own = [each for each in log.steps if each["step"] > first]
            kept = [each for each in log.steps if each["step"] <= first]
            spent = {name: own[-1][name] - (kept[-1][name] if kept else 0)
                     for name in ("seconds", "usd")}  # fmt: skip
            total["tokens"] += len(own) * log.start["tokens_per_step"]
            total["useful"] += len(own) * log.start["flops_per_step"]
            total["done"] += len(own) * log.start["recomputed_flops_per_step"]
            total["s"] += spent["seconds"]
            total["rank_s"] += spent["seconds"] * log.start["recipe"]["num_ranks"]
            total["usd"] += spent["usd"]
        total["done"] += total["useful"]
        return total | {"kept": logs[-1].steps[-1]["tokens"]}

    a, b = sums(planned), sums(paid)

    def factor(above, below):
        return (b[above] / b[below]) / (a[above] / a[below])

    return {
        "price": factor("usd", "rank_s"), "ranks": factor("rank_s", "s"),
        "seconds": factor("s", "done"), "recomputation": factor("done", "useful"),
        "model": factor("useful", "tokens"), "repeated": factor("tokens", "kept"),
        "tokens": b["kept"] / a["kept"],
    }  # fmt: skip


def save_by_newton(mean_hours, save_s, restart_s):
    """x = t / M from (1 - x) e^(x + c/M) = 1, by Newton from Young's guess."""
    mean_s = mean_hours * 3600
    c = save_s / mean_s
    x = math.sqrt(2 * c) / (1 + math.sqrt(2 * c))
    for _ in range(60):
        x -= (math.log1p(-x) + x + c) / (1 - 1 / (1 - x))
    paid = math.exp(restart_s / mean_s) * (math.exp(x + c) - 1) / x
    return [x * mean_s, paid, 100 - 100 / paid]


def save_by_trying(mean_hours, save_s, restart_s):
    """A grid of a twentieth of a percent."""
    mean_s = 3600 * mean_hours

    def paid(t):
        return mean_s * math.exp(restart_s / mean_s) * math.expm1((t + save_s) / mean_s) / t

    tries = (mean_s * 1.0005**-k for k in range(15_000))
    best = min(tries, key=paid)
    return best, paid(best), 100 * (1 - 1 / paid(best))


@pytest.mark.parametrize(
    "key, answer",
    [
        ("10.1", predict_with_the_trainers_count),
        ("10.2", choose_by_sorting),
        ("10.4", explain_by_ratios),
        ("10.5", save_by_newton),
        ("10.5", save_by_trying),
    ],
)
def test_other_right_answers_pass(key, answer):
    outcome = judge(key, answer)
    assert outcome.status == "passed", outcome.message


def resumed(events):
    """The same run, interrupted after step 20 and resumed with the same prediction."""
    place = events.index(steps_of(events)[19]) + 1
    again = start_of(events) | {"resumed_from": 20}
    return [*events[:place], again, *events[place:]]


def rounded(events):
    """Another processor's rounding, and memory some bytes beside the formula."""
    for each in steps_of(events)[3:]:
        each["loss"] += 0.01
    for each in end_of(events)["ranks"]:
        each["peak_bytes"] += 10_000
    return events


@pytest.mark.parametrize("change", [resumed, rounded])
def test_logs_of_other_good_runs_pass(change):
    outcome = judge("10.3", lambda folder: write(folder, change(true_events())))
    assert outcome.status == "passed", outcome.message


def by_hand(folder):
    """Another recipe within the budget, numbers typed in, the prediction inside of the folder."""
    recipe = next(each for each in RECIPES if each.method == "fsdp" and each.batch_size == 4
                  and each.checkpointing == "blocks")  # fmt: skip
    folder.mkdir()
    said = right["predict_run"](recipe, JOB, CLOUD) | {"peak_bytes": 4.2e6}
    (folder / "said.json").write_text(json.dumps(said))
    options = ("--steps", "40", "--prediction", str(folder / "said.json"), "--save-every", "15")
    start_training(recipe, *options, folder=folder, config=JOB.config)
    return "whatever"


@pytest.mark.slow
def test_another_recipe_passes_and_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(lab_10_run.tempfile, "tempdir", str(tmp_path))
    outcome = judge("10.3", by_hand)
    assert outcome.status == "passed", outcome.message
    assert lab_10_run.last_run().start["recipe"]["method"] == "fsdp"
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_fails_says_why_and_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(lab_10_run.tempfile, "tempdir", str(tmp_path))

    def train_job(folder):
        folder.mkdir()
        raise TrainingFailed("40 sequences do not divide: take another --batch-size.")

    outcome = judge("10.3", train_job)
    assert outcome.status == "raised" and "do not divide" in outcome.message
    assert list(tmp_path.iterdir()) == []
