"""Every control of an explorer moved to both ends, without a browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ipywidgets import Checkbox, FloatLogSlider, Widget

from utils.explorer import Explorer


def ends_of(control: Widget) -> Sequence[Any]:
    """The first and the last value that a learner can choose."""
    if isinstance(control, FloatLogSlider):
        return control.base**control.min, control.base**control.max
    if hasattr(control, "min"):
        return control.min, control.max
    if isinstance(control, Checkbox):
        return False, True
    values = [each[1] if isinstance(each, tuple) else each for each in control.options]
    return values[0], values[-1]


def assert_every_control_counts(
    explorer: Explorer, start: Mapping[str, Any] | None = None, **ends: Sequence[Any]
) -> None:
    """No end fails, and the two ends of each control have different readings.

    A control goes back to its value in `start`, if given, before the next one moves. `ends` are
    for controls whose own ends have no sense together with the other settings.
    """
    assert explorer.controls
    for name, control in explorer.controls.items():
        seen = []
        for value in ends.get(name) or ends_of(control):
            control.value = value
            assert explorer.error is None, (name, value, explorer.error)
            seen.append(explorer.reading)
        assert seen[0] != seen[1], name
        if start is not None:
            control.value = start[name]
