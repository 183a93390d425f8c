"""What is allowed but may not be meant, said in one line each before training starts.

How it works: `notes_on` looks at the settings and the device that this rank trains on. Left out:
whatever cannot be; `RunSettings` refuses that.
"""

from __future__ import annotations

import torch

from utils.trainer.settings import RunSettings
from utils.trainer.speed import chip_of


def notes_on(settings: RunSettings, device: torch.device) -> list[str]:
    """Sentences for rank 0 to print."""
    notes = []
    if settings.warmup_steps > settings.steps:
        notes.append(
            f"Note: --warmup-steps {settings.warmup_steps} is more than --steps {settings.steps}, "
            "so the learning rate never reaches its full height."
        )
    running = _running_chip(device)
    if settings.chip is not None and running not in (None, settings.chip):
        notes.append(
            f"Note: this runs on {running}, and the MFU is a share of the peak of --chip "
            f"{settings.chip}."
        )
    return notes


def _running_chip(device: torch.device) -> str | None:
    """None for a GPU that the table of names does not know: --chip is there to say it."""
    if device.type == "cuda":
        return chip_of(torch.cuda.get_device_name(device))
    return "a CPU"
