"""What `python -m utils.train` does: check, measure, build, go on or begin, train, tell.

How it works: everything that can be wrong is found before the folder is touched, on all ranks
together, and said in one sentence by rank 0 (exit code 2; 130 after Ctrl-C). What goes wrong later
leaves the last complete checkpoint as it is. Under torchrun, which ends all ranks as soon as one
has ended, another rank that has failed waits for rank 0 to speak, and speaks if it does not.

Left out: anything that shapes losses; `utils.trainer.loop` has that.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from utils.corpus import Corpus
from utils.model import build_gpt
from utils.peers.agree import from_all
from utils.trainer.about import start_line
from utils.trainer.arguments import parse
from utils.trainer.command import ERROR
from utils.trainer.folder import claim, is_finished, take_newest, way_on
from utils.trainer.group import UNDER_TORCHRUN, Ranks, joined, place_from_environment, together
from utils.trainer.log import LogWriter
from utils.trainer.loop import Loop, Spent, end_of
from utils.trainer.memory import allocator_peak_bytes, measure_ranks
from utils.trainer.notes import notes_on
from utils.trainer.output import GONE
from utils.trainer.progress import Progress
from utils.trainer.room import TOO_LARGE, check_room
from utils.trainer.settings import RunSettings, TrainerError
from utils.trainer.speed import Peak, find_peak
from utils.trainer.systems import job_of, system_of
from utils.trainer.text import text_of

BAD, INTERRUPTED = 2, 130
PATIENCE_S = 5.0  # for rank 0, which may still import torch; torchrun cuts it short


def main(words: Sequence[str] | None = None) -> int:
    """Train by a command line; the exit code. What is wrong is said by rank 0, in one sentence."""
    rank, settings = 0, None
    try:
        rank, world_size = place_from_environment()
        settings = parse(words, world_size)
        with joined(settings.recipe.library) as ranks:
            _run(settings, ranks)
        return 0
    except TrainerError as error:
        return _say(str(error), rank, BAD)
    except KeyboardInterrupt:
        return _say(f"Interrupted; {_way_on(settings)}", rank, INTERRUPTED)
    except RuntimeError as error:
        if _is_out_of_memory(error):
            return _say(f"rank {rank}: {TOO_LARGE}", 0, BAD)
        if not _lost_a_rank(error):
            raise
        return _say(f"{GONE}: {_way_on(settings)}", rank, BAD)


def _say(sentence: str, rank: int, code: int) -> int:
    if rank and UNDER_TORCHRUN not in os.environ:
        return code
    if rank:  # if this rank ended first, torchrun would end rank 0 before it has spoken
        time.sleep(PATIENCE_S)
        sentence = f"rank {rank}: {sentence}"
    print(ERROR + sentence, file=sys.stderr, flush=True)
    return code


def _way_on(settings: RunSettings | None) -> str:
    return way_on(None if settings is None else settings.folder)


def _is_out_of_memory(error: RuntimeError) -> bool:
    on_cpu = "can't allocate memory" in str(error) or "not enough memory" in str(error)
    return on_cpu or isinstance(error, torch.OutOfMemoryError)


def _lost_a_rank(error: Exception) -> bool:
    words = ("onnection closed", "onnection reset", "roken pipe", "imed out", "NCCL")
    return any(each in str(error) for each in words)


def _run(settings: RunSettings, ranks: Ranks) -> None:
    together(lambda: check_room(settings.recipe, settings.config, ranks.device))
    corpus, text_sha256 = text_of(settings)
    peak = find_peak(settings.recipe.precision, ranks.device, settings.chip)
    log = claim(settings, settings.identity(text_sha256), ranks)
    try:
        if not _has_finished(settings, ranks):
            _train(settings, ranks, corpus, text_sha256, peak, log)
    finally:
        if log is not None:
            log.close()


def _train(
    settings: RunSettings, ranks: Ranks, corpus: Corpus, text_sha256: str, peak: Peak,
    log: LogWriter | None,
) -> None:  # fmt: skip
    measured = _measure(settings, ranks)
    system = _build(settings, ranks)
    about, said = None, notes_on(settings, ranks.device)
    if settings.resume:
        about, more = take_newest(system, settings.folder, ranks, settings.recipe.library)
        said += more
    spent = Spent(**{name: about[name] for name in asdict(Spent())}) if about else Spent()
    progress = Progress()

    def tell(event: str, **fields: Any) -> None:
        if log is not None:
            progress(log.write(event, **fields))

    if ranks.is_first:
        print(*said, sep="\n", end="\n" * bool(said), flush=True)
    together(lambda: log is not None and log.cut(spent.step))
    start = start_line(settings, ranks, corpus, text_sha256, peak)
    tell("start", **start, resumed_from=spent.step if about else None)
    loop = Loop(settings, ranks, corpus, system, peak, tell, spent, spent.step if about else None)
    try:
        loss = loop.run()
    except TrainerError as error:
        _note(tell, spent.step, str(error))
        raise
    measured["allocator_peak_bytes"] = allocator_peak_bytes(ranks.device)
    tell("end", **end_of(loop, loss, from_all(measured)))


def _note(tell: Any, step: int, reason: str) -> None:
    """The log says why a run stopped, if the disk lets it."""
    try:
        tell("stopped", step=step, reason=reason)
    except TrainerError:
        pass


def _has_finished(settings: RunSettings, ranks: Ranks) -> bool:
    """Whether there is nothing left to do; rank 0 says so."""
    has_finished = together(lambda: settings.resume and is_finished(settings))
    if has_finished and ranks.is_first:
        print(f"{settings.folder} is finished: all {settings.steps} steps are done.", flush=True)
    return has_finished


def _measure(settings: RunSettings, ranks: Ranks) -> dict[str, Any]:
    if not settings.measures_memory:
        return {"rank": ranks.rank, "peak_bytes": None, "held": {}, "sent_bytes_per_step": None}
    measured = measure_ranks(
        settings.recipe, settings.config, ranks, max_norm=settings.max_gradient_norm
    )
    allocator_peak_bytes(ranks.device)  # the real steps' peak begins here
    return measured


def _build(settings: RunSettings, ranks: Ranks) -> Any:
    job = job_of(
        settings.recipe, settings.config, learning_rate=settings.learning_rate,
        seed=settings.seed, max_norm=settings.max_gradient_norm,
    )  # fmt: skip
    model = build_gpt(job.config, seed=settings.seed).to(ranks.device)
    return system_of(settings.recipe)(model, ranks.rank, ranks.world_size, job)
