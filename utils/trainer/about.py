"""The first line of a run's log: everything that a reader needs to compare runs.

How it works: recipe, config and settings as they are, what follows from them (FLOPs, tokens,
parameters), and the machine. Left out: the machines of other ranks; they should be alike.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

import torch

from utils.corpus import Corpus
from utils.costs import count_parameters
from utils.measured import processor_name
from utils.record import code_version
from utils.trainer.group import Ranks
from utils.trainer.log import SCHEMA
from utils.trainer.settings import RunSettings
from utils.trainer.speed import Peak, flops_per_step


def start_line(
    settings: RunSettings, ranks: Ranks, corpus: Corpus, text_sha256: str, peak: Peak
) -> dict[str, Any]:
    """The fields of "start", apart from where the run goes on."""
    flops, again = flops_per_step(settings.recipe, settings.config)
    text_bytes = len(corpus.train_N) + len(corpus.validation_N)
    on_gpu = ranks.device.type == "cuda"
    return {
        "schema": SCHEMA, "name": settings.recipe.name, "recipe": asdict(settings.recipe),
        "config": asdict(settings.config),
        "settings": {
            **settings.logged(), "text": corpus.source, "text_bytes": text_bytes,
            "text_sha256": text_sha256,
        },
        "num_parameters": count_parameters(settings.config).total,
        "tokens_per_step": settings.tokens_per_step,
        "flops_per_step": flops, "recomputed_flops_per_step": again,
        "device": torch.cuda.get_device_name() if on_gpu else processor_name(),
        "torch": torch.__version__,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "code_version": code_version(), "chip": peak.chip, "peak_flops_per_s": peak.flops_per_s,
        "peak_source": peak.source, "peak_dtype": peak.dtype,
        "usd_per_gpu_hour": settings.usd_per_gpu_hour, "prediction": settings.prediction,
    }  # fmt: skip
