"""The planner against published runs: predicted GPU-hours beside those that were reported.

Two constants were fitted, once, and then frozen (utils.planning.assumptions): `matmul_share` and
`contention`. Fitted to: llm.c's GPT-2 124M on A100s and 1558M on H100s (the smallest and the
largest of its four), and of YaFSDP's table the four rows that its simulation was calibrated on
already (utils.simulate.yafsdp_published), on a coarse grid, by squared relative errors; llm.c's two
figures count four times, as there are eight of the others. No other row was fitted to.

Said openly: all rows were in sight, so that none is a blind test. And some that were not fitted to
share their blocks (as many layers, of the same widths) with a row that was: Meta's Llama-2-70B
with YaFSDP's 70B, two other runs of GPT-2 124M with llm.c's. `Check.fit_used` tells these apart. A
first version, fitted by hand to llm.c's A100 rows alone, had them within 1.3 % and large models up
to 45 % too fast; `contention`, and rows of large models among those fitted to, came then, and were
the last change. A run's own settings are its
`rerun_share` (blocks that run again), whether its loss is fused (10 instead of 38 bytes a logit and
a fused optimizer), and for YaFSDP's rows the network that was fitted to four of them.

What stays out of reach, and why, is in each row's `left_out`, with figures where the planner can
make them. Left out here: loss curves, and every run whose number of GPUs or tokens is not public.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from itertools import product

from utils.config import GPTConfig
from utils.hardware import Chip, find_chip
from utils.planning.assumptions import Assumptions, between_link, inside_link
from utils.planning.published_checks import ITS_BLOCKS, NEITHER, THE_RUN, Check
from utils.planning.published_rows import PublishedTraining, load_published
from utils.planning.step_time import step_time
from utils.recipe import TrainingRecipe
from utils.simulate.links import LINKS, Link, cluster_of
from utils.simulate.llama import find_llama
from utils.simulate.yafsdp_published import calibrate_published, calibration_runs
from utils.yafsdp_table import PublishedRun, load_yafsdp_published

FUSED = {"loss_bytes_per_logit": 10.0, "optimizer_bytes_per_value": 28.0}
SHARES = tuple(number / 100 for number in range(70, 86, 2))
CONTENTIONS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4)
LLMC_WEIGHT = 4
_ALIKE = {
    "fsdp": "nodes of 8 and one network are assumed; computing and sending disturb each other more",
    "yafsdp": "the planner times FSDP and YaFSDP alike: what FSDP alone loses has no constant, "
    "and the fitted network carries it",
}


def check_trainings(assumptions: Assumptions | None = None) -> list[Check]:
    """GPU-hours of every row of the table."""
    known = assumptions or Assumptions()
    return [
        Check(row.run, row.gpu_hours, predicted_gpu_hours(row, known),
              _fit_used(row.role == "calibrates", row.config), _with_figures(row, known))
        for row in load_published()
    ]  # fmt: skip


def check_yafsdp(assumptions: Assumptions | None = None) -> list[Check]:
    """Seconds of a step of YaFSDP's sixteen rows, FSDP and YaFSDP each."""
    known = assumptions or Assumptions()
    checks = []
    for run in load_yafsdp_published():
        config = find_llama(run.model).config(run.sequence_length)
        used = _fit_used(run in calibration_runs(), config)
        for method, seconds in (("fsdp", run.fsdp_s), ("yafsdp", run.yafsdp_s)):
            predicted_s = _yafsdp_seconds(run, method, known)
            words = {"fsdp": "FSDP", "yafsdp": "YaFSDP"}[method]
            name = f"{run.name}, {words}"
            checks.append(Check(name, seconds, predicted_s, used, _ALIKE[method]))
    return checks


def predicted_gpu_hours(row: PublishedTraining, assumptions: Assumptions) -> float:
    """The planner's GPU-hours for the row's tokens."""
    known = replace(assumptions, **FUSED) if row.fused_loss == "yes" else assumptions
    chip = row.chip_row
    seconds = _seconds(
        row.recipe, row.config, chip, between_link(chip), row.rerun_share, known
    )
    tokens = row.recipe.sequences_per_step * row.context_length
    return row.tokens / tokens * seconds * row.num_gpus / 3600


def fitted_constants() -> tuple[float, float]:
    """(matmul_share, contention) with the least squared error on the calibration rows."""
    trainings, runs = _fitted_trainings(), calibration_runs()

    def loss(constants: tuple[float, float]) -> float:
        known = replace(Assumptions(), matmul_share=constants[0], contention=constants[1])
        hours = [math.log(predicted_gpu_hours(row, known) / row.gpu_hours) for row in trainings]
        steps = [
            math.log(_yafsdp_seconds(run, method, known) / seconds)
            for run in runs
            for method, seconds in (("fsdp", run.fsdp_s), ("yafsdp", run.yafsdp_s))
        ]
        return LLMC_WEIGHT * sum(e * e for e in hours) + sum(e * e for e in steps)

    return min(product(SHARES, CONTENTIONS), key=loss)


def _fitted_trainings() -> list[PublishedTraining]:
    return [row for row in load_published() if row.role == "calibrates"]


def _fit_used(is_fitted: bool, config: GPTConfig) -> str:
    """Of USES."""
    if is_fitted:
        return THE_RUN
    fitted = [row.config for row in _fitted_trainings()]
    fitted += [find_llama(run.model).config(run.sequence_length) for run in calibration_runs()]
    return ITS_BLOCKS if _blocks(config) in map(_blocks, fitted) else NEITHER


def _blocks(config: GPTConfig) -> tuple[int, ...]:
    """How many there are, and their widths; vocabulary and context apart."""
    return config.num_layers, config.model_dim, config.feed_forward_dim, config.kv_dim


def _yafsdp_seconds(run: PublishedRun, method: str, assumptions: Assumptions) -> float:
    shape, chip = find_llama(run.model), find_chip("A100 80GB")
    library = "ours" if method == "yafsdp" else "torch"
    recipe = TrainingRecipe(
        "bf16", method=method, library=library, batch_size=1, num_ranks=run.num_gpus
    )
    share = run.checkpointed_layers / shape.num_layers
    config = shape.config(run.sequence_length)
    return _seconds(recipe, config, chip, _yafsdp_link(), share, assumptions)


@lru_cache
def _yafsdp_link() -> Link:
    """Of each GPU: an eighth of the node's fitted rate, which is one that software reached."""
    rate = calibrate_published().node_bytes_per_s / 8 / Assumptions().link_share
    return Link(LINKS["InfiniBand 400 Gbit/s"].latency_s, rate, "fitted to four of its rows")


def _seconds(
    recipe: TrainingRecipe, config: GPTConfig, chip: Chip, between: Link, rerun_share: float,
    assumptions: Assumptions,
) -> float:  # fmt: skip
    """Seconds of a step in which a share of the blocks runs again."""
    cluster = cluster_of(recipe.num_ranks, inside_link(chip), between)
    plain_s, again_s = (
        step_time(replace(recipe, checkpointing=name), config, chip, cluster, assumptions).total_s
        for name in ("none", "blocks")
    )
    return plain_s + rerun_share * (again_s - plain_s)


def _with_figures(row: PublishedTraining, assumptions: Assumptions) -> str:
    """The row's explanation, with the planner's figure for what it names."""
    explicit = replace(row, attention="explicit")
    slower = replace(assumptions, matmul_share=assumptions.matmul_share * 500 / 700)
    text = row.left_out
    for word, changed, known in (
        ("%EXPLICIT%", explicit, assumptions), ("%POWER%", row, slower),
    ):  # fmt: skip
        if word in text:
            hours = predicted_gpu_hours(changed, known)
            text = text.replace(word, f"{hours / row.gpu_hours - 1:+.0%}")
    return text
