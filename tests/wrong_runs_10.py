"""Lab 10's wrong runs: the true log, forged in one place, and functions that leave no log."""

from __future__ import annotations

from dataclasses import asdict, replace

from tests.runs_10 import (
    LAZY_RATE,
    end_of,
    lazy_losses,
    start_of,
    steps_of,
    true_events,
    write,
)
from tests.wrong_builders_10 import right
from utils.checks.truth_10_run import CLOUD, JOB, RECIPES
from utils.recipe import TrainingRecipe


def forged(change):
    """A function that leaves the true log after `change(events)`."""

    def train_job(folder):
        events = true_events()
        changed = change(events)
        write(folder, events if changed is None else changed)

    return train_job


def by(**change):
    """The log of another recipe, consistent with itself as far as formulas go."""

    def forge(events):
        recipe = replace(TrainingRecipe(**start_of(events)["recipe"]), **change)
        start = start_of(events)
        start["recipe"], start["name"] = asdict(recipe), recipe.name
        if recipe not in RECIPES:
            return
        run = right["predict_run"](recipe, JOB, CLOUD)
        start["prediction"] = run
        start["recomputed_flops_per_step"] = run["recomputed_flops"] // JOB.num_steps
        rank = {"peak_bytes": run["peak_bytes"], "held": {},
                "sent_bytes_per_step": int(run["sent_bytes_per_step"])}  # fmt: skip
        end_of(events)["ranks"] = [rank | {"rank": k} for k in range(recipe.num_ranks)]

    return forged(forge)


def told(**prediction):
    """Another prediction: numbers by which it is multiplied."""

    def forge(events):
        said = start_of(events)["prediction"]
        for key, factor in prediction.items():
            said[key] *= factor

    return forged(forge)


def set_in(where, **values):
    return forged(lambda events: where(events).update(values))


def set_in_settings(**values):
    return forged(lambda events: start_of(events)["settings"].update(values))


def set_in_model(**values):
    return forged(lambda events: start_of(events)["config"].update(values))


def set_in_ranks(factor, key):
    def forge(events):
        for each in end_of(events)["ranks"]:
            each[key] = each[key] and int(each[key] * factor)

    return forged(forge)


def predicted_late(events):
    """The prediction came with --resume, after 20 steps."""
    start = start_of(events)
    again = start | {"resumed_from": 20}
    place = events.index(steps_of(events)[19]) + 1
    start["prediction"] = None
    return [*events[:place], again, *events[place:]]


def smoothed(events):
    """The first steps are true, the others what one would like to see."""
    for each in steps_of(events)[5:]:
        each["loss"] -= 0.3
    end_of(events)["validation_loss"] -= 0.3


def of_another_seed(events):
    start_of(events)["settings"]["seed"] = 1


def hurried(events):
    """Settings and losses of a run with a learning rate of nearly nothing."""
    start_of(events)["settings"]["learning_rate"] = LAZY_RATE
    losses, validation_loss = lazy_losses()
    for each, loss in zip(steps_of(events), losses, strict=True):
        each["loss"] = loss
    end_of(events)["validation_loss"] = validation_loss


def step_lost(events):
    del events[events.index(steps_of(events)[7])]


def rank_lost(events):
    del end_of(events)["ranks"][1]


def clock_back(events):
    steps_of(events)[9]["seconds"] = 0.0


def nothing(folder):
    """No run at all."""


def a_note(folder):
    folder.mkdir()
    (folder / "log.jsonl").write_text('{"event": "end", "step": 40, "validation_loss": 1.0}\n')


def returned_only(folder):
    return {"validation_loss": 1.0, "usd": 0.001}


RUNS = [
    (nothing, "There is no log"),
    (returned_only, "There is no log"),
    (a_note, "The log is none of the trainer's"),
    (set_in_model(num_layers=2), "This is the log of another model"),
    (set_in_model(model_dim=32), "This is the log of another model"),
    (set_in_settings(text="mine.txt", text_sha256="0" * 64), "a run on another text"),
    (by(num_ranks=4, batch_size=2), "More ranks than there are devices"),
    (by(batch_size=8), "other sequences than the job wants"),
    (by(precision="bf16"), "these devices have no bf16"),
    (by(method="yafsdp"), "take one of RECIPES"),
    (by(attention="explicit"), "take one of RECIPES"),
    (set_in_settings(steps=80), "meant for another number of steps"),
    (set_in(start_of, prediction=None), "The log's first line has no prediction"),
    (forged(predicted_late), "it came with --resume only"),
    (set_in(start_of, prediction={"peak_bytes": 1}), "The prediction has no number for"),
    (forged(lambda events: events[:-1]), "The run has not ended: the log has 40 of 40"),
    (forged(lambda events: events[:30]), "the log has 29 of 40 steps"),
    (forged(step_lost), "Steps are missing"),
    (set_in_ranks(0, "peak_bytes"), "--no-memory has left it out"),
    (set_in(start_of, flops_per_step=10**9), "FLOPs of a step"),
    (set_in(start_of, recomputed_flops_per_step=0), "FLOPs done again"),
    (set_in(start_of, tokens_per_step=4096), "tokens of a step"),
    (forged(rank_lost), "agree with its recipe: ranks"),
    (forged(clock_back), "Time runs backwards"),
    (set_in_ranks(0.5, "peak_bytes"), "no rank holds at its peak what the log says"),
    (set_in_ranks(0.5, "sent_bytes_per_step"), "no rank sends in a step what the log says"),
    (forged(smoothed), "the loss of step 6 is another one"),
    (forged(of_another_seed), "the loss of step 1 is another one"),
    (set_in(end_of, validation_loss=2.0), "the validation loss is another one"),
    (forged(hurried), "misses the target"),
    (by(checkpointing="none"), "More memory than a device has"),
    (by(method="zero3", batch_size=2, micro_batches=4), "Over the budget on the cloud"),
    (told(usd=0.5), "off by the number of ranks"),
    (told(peak_bytes=2), "off by the number of ranks"),
    (told(flops=1 / JOB.num_steps), "off by the number of steps"),
    (told(sent_bytes_per_step=0.7), "predict the recipe that runs"),
    (told(tokens=1.01), "The prediction of tokens"),
]
