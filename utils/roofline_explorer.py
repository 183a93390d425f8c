"""The roofline explorer: chip, model, batch and precision against the time of a step.

How it works: `draw_roofline` draws the chip's roofs with the parts of a training step on them, and
the milliseconds of each part; the controls are bound to it. A precision that the table has no rate
for is drawn as bf16, and the reading says so.
Left out: everything the roofline leaves out (utils.roofline); so a step is at least this long.
"""

from __future__ import annotations

import ipywidgets as widgets

from utils.config import PRESETS
from utils.explorer import Explorer
from utils.roofline import roofline_chips
from utils.roofline_plots import draw_roofline
from utils.roofline_precisions import PRECISIONS

SEQUENCES = tuple(2**power for power in range(9))
COMPARED = ("fp32", "tf32", "bf16")


def roofline_explorer() -> Explorer:
    """Where mixed precision helps on a chip of the table, and where it cannot."""
    return Explorer(
        "The roofline of a training step, at the peaks of the table of chips",
        draw_roofline,
        figsize=(8.4, 3.8),
        chip=widgets.Dropdown(
            options=[chip.name for chip in roofline_chips()], value="H100 SXM", description="chip"
        ),
        model=widgets.Dropdown(options=list(PRESETS), value="gpt2-124m", description="model"),
        batch_size=widgets.SelectionSlider(options=SEQUENCES, value=8, description="sequences"),
        precision=widgets.Dropdown(options=list(PRECISIONS), value="bf16", description="precision"),
        over=widgets.Dropdown(options=COMPARED, value="fp32", description="compared with"),
    )
