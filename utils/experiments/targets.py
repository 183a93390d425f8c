"""Three targets of the course on a GPU of the H200's class, judged from recorded runs only.

    bf16            a step at least 6 times as fast as in true fp32
    checkpointing   at least 70 % of the activation bytes saved for at most 25 % more time
    MFU             the capstone's GPT at 50 % of the bf16 peak or more

How it works: each target reads one experiment of the recorded files (utils/recorded.py) and says
"met" or "not met" with its measurement. A CPU or another GPU shows the same figures without a
verdict; with no GPU of the class, the verdict is "not recorded yet". Nothing is measured here.

Left out: averages over devices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from utils.measured import measured_text
from utils.recorded import FOLDER, RecordedRun, load_recorded

H200_CLASS = ("H100 SXM", "H200", "B200")  # rows of utils/data/chips.csv
MIN_SPEED_UP, MIN_SAVED, MAX_SLOWER, MIN_MFU = 6.0, 0.70, 0.25, 0.50


@dataclass(frozen=True)
class Finding:
    """What one recorded run shows of a target; `is_met` by the figures alone, on any device."""

    measurement: str
    is_met: bool


@dataclass(frozen=True)
class Target:
    """A sentence, the experiment that decides it, and how its rows are read."""

    sentence: str
    experiment: str
    read: Callable[[list[dict]], Iterator[Finding]]


def bf16_findings(rows: list[dict]) -> Iterator[Finding]:
    """Seconds of a step in true fp32 over those in bf16."""
    seconds = {row["precision"]: row["seconds"] for row in rows}
    if "fp32" in seconds and "bf16" in seconds:
        ratio = seconds["fp32"] / seconds["bf16"]
        before, after = (f"{1e3 * seconds[name]:,.1f} ms" for name in ("fp32", "bf16"))
        yield Finding(f"{ratio:.3g} times as fast ({before} to {after})", ratio >= MIN_SPEED_UP)


def checkpointing_findings(rows: list[dict]) -> Iterator[Finding]:
    """For each attention: what every plan saves of the activations, and its price in time."""
    for attention in dict.fromkeys(row["attention"] for row in rows):
        plans = {row["plan"]: row for row in rows if row["attention"] == attention}
        changes = dict(_changes(plans))
        if changes:
            met = [plan for plan, (saved, slower) in changes.items()
                   if saved >= MIN_SAVED and slower <= MAX_SLOWER]  # fmt: skip
            words = ", ".join(
                f"{plan} {saved:.0%} for {slower:+.0%} time"
                for plan, (saved, slower) in changes.items()
            )
            yield Finding(f"{attention} attention: {words}", bool(met))


def mfu_findings(rows: list[dict]) -> Iterator[Finding]:
    """The best share of the peak rate."""
    known = [row for row in rows if row["mfu"] is not None]
    if known:
        best = max(known, key=lambda row: row["mfu"])
        how = "compiled" if best["is_compiled"] else "as it is"
        words = (
            f"{best['mfu']:.1%} with {best['batch_size']} sequences in {best['precision']}, {how}; "
            f"peak: {best['peak_source']}"
        )
        yield Finding(words, best["mfu"] >= MIN_MFU)


TARGETS = (
    Target("A bf16 step at least 6 times as fast as in true fp32", "step_precision", bf16_findings),
    Target("Checkpointing: at least 70 % of activation bytes for at most 25 % more time",
           "checkpointing", checkpointing_findings),
    Target("The capstone's GPT at 50 % MFU or more in bf16", "capstone", mfu_findings),
)  # fmt: skip


def is_h200_class(run: RecordedRun) -> bool:
    """Whether a verdict is due."""
    from utils.trainer.speed import chip_of  # here: the trainer's modules take a second to load

    return run.kind == "cuda" and chip_of(run.device) in H200_CLASS


def target_lines(folder: Path = FOLDER) -> list[str]:
    """Each target, and below it a line for each recorded run; skipped files are named once."""
    lines, skipped = [], []
    for target in TARGETS:
        runs = load_recorded(target.experiment, folder=folder, report=skipped.append)
        lines += [target.sentence, *_lines_of(target, runs), ""]
    return [*lines, *dict.fromkeys(skipped)]


def print_targets(folder: Path = FOLDER) -> None:
    """Display every target with its verdict; the block is not compared, for anyone may record."""
    measured_text("Targets on a GPU of the H200's class", "\n".join(target_lines(folder)).rstrip())


def _lines_of(target: Target, runs: list[RecordedRun]) -> Iterator[str]:
    verdicts = 0
    for run in sorted(runs, key=lambda run: not is_h200_class(run)):
        findings = list(target.read(run.experiments[target.experiment]))
        if not findings:
            yield f"  no figure: the rows lack a part, record them again [{run.label}]"
        for finding in findings:
            verdict = "no verdict"
            if is_h200_class(run):
                verdict, verdicts = "met" if finding.is_met else "not met", verdicts + 1
            yield f"  {verdict}: {finding.measurement} [{run.label}]"
    if not verdicts:
        yield "  not recorded yet: no GPU of this class (`make record` on one adds it)"


def _changes(plans: dict[str, dict]) -> Iterator[tuple[str, tuple[float, float]]]:
    """(plan, (share of activation bytes saved, share of time added)) against plan "none"."""
    plain = plans.get("none", {})
    if not (plain.get("peak_bytes") and plain.get("seconds") and plain.get("held_bytes")):
        return
    added_bytes = plain["peak_bytes"] - plain["held_bytes"]
    for name, row in plans.items():
        if name != "none" and row["peak_bytes"] and row["seconds"] and added_bytes > 0:
            saved = (plain["peak_bytes"] - row["peak_bytes"]) / added_bytes
            yield name, (saved, row["seconds"] / plain["seconds"] - 1)
