"""A figure with controls: move a slider, and the figure and its one-sentence reading follow.

How it works: `draw(figure, **values)` fills an empty figure and returns the reading. The Explorer
renders it to a PNG inside an HTML widget. There is no Output widget and no pyplot, so the saved
text is the same in every run, nothing depends on the thread that calls back, and a reader without
a kernel sees the picture. A setting that fails is reported in words below the last good figure,
and one that changes neither figure nor reading is said to change nothing.

Callbacks run in a thread of the kernel: torch's grad mode is per thread, so a `draw` that must
not record gradients says so itself. Left out: animation and linked figures.
"""

from __future__ import annotations

import base64
import html
import threading
from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets as widgets
from matplotlib.figure import Figure

from utils.plots import checked_reading, image_html, new_figure, png_of

Draw = Callable[..., str]
_WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


class Explorer:
    """Show `draw` under control of the given ipywidgets, named like draw's arguments.

    After construction and after every change: `params` (current values), `figure`, `png` and
    `reading` of the last setting that worked, and `error`, the exception of the current setting or
    None. Raises ValueError for a control without a description; a `draw` that fails with the
    first values raises its own exception here, in the cell.
    """

    def __init__(
        self,
        title: str,
        draw: Draw,
        figsize: tuple[float, float] = (6.4, 3.2),
        **controls: widgets.ValueWidget,
    ) -> None:
        self.title, self.controls = title, controls
        self.error: Exception | None = None
        self._draw, self._figsize = draw, figsize
        self._lock = threading.RLock()
        for name, control in controls.items():
            _prepare(name, control)
        if not controls:
            raise ValueError(f"The explorer {title!r} has no controls; use plots.show instead.")
        self._image, self._message = widgets.HTML(), widgets.HTML()
        heading = widgets.HTML(f"<b>{html.escape(title)}</b>")
        self.view = widgets.VBox([heading, *controls.values(), self._image, self._message])
        self.view.add_class("course-explorer")
        self.redraw()
        for control in controls.values():
            control.observe(self._on_change, names="value")

    @property
    def params(self) -> dict[str, Any]:
        """The controls' current values by name."""
        return {name: control.value for name, control in self.controls.items()}

    def _on_change(self, change: Mapping[str, Any]) -> None:
        # One redraw at a time. The values are read inside the lock, so the last redraw is right.
        with self._lock:
            before = (self.png, self.reading, self.error)
            is_new = self.params != self._drawn
            try:
                self.redraw()
            except Exception as error:  # a widget callback's exception is otherwise never seen
                self.error = error
                self._message.value = _error_html(error, self._shown)
                return
            if is_new and (self.png, self.reading, self.error) == before:
                self._message.value += _same_html(change["owner"])

    def redraw(self) -> None:
        """Draw the present setting; what `draw` raises is raised here."""
        values = self.params
        figure: Figure = new_figure(*self._figsize)
        reading = checked_reading(self._draw(figure, **values))
        png = png_of(figure)
        self.figure, self.reading, self.png, self.error = figure, reading, png, None
        self._drawn, self._shown = values, ", ".join(map(_setting, self.controls.values()))
        self._image.value = image_html(png, reading)
        self._message.value = f'<span class="course-reading">{html.escape(reading)}</span>'

    def _repr_mimebundle_(
        self, include: Any = None, exclude: Any = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        # The build removes the widget view: a saved notebook then shows the PNG.
        view = self.view._repr_mimebundle_() or {}
        data = {key: value for key, value in view.items() if key == _WIDGET_VIEW}
        data["image/png"] = base64.b64encode(self.png).decode("ascii")
        data["text/plain"] = f"[interactive] {self.title}: {self.reading}"
        return data, {"image/png": {"alt": self.reading}}


def _prepare(name: str, control: widgets.ValueWidget) -> None:
    """Make a control wait for the end of a drag and show its whole description."""
    if not isinstance(control, widgets.ValueWidget):
        raise ValueError(
            f"The control {name!r} is {control!r}; pass an ipywidgets control such as IntSlider."
        )
    if not getattr(control, "description", "").strip():
        raise ValueError(f"The control {name!r} has no description; give it one in words.")
    if control.has_trait("continuous_update"):
        control.continuous_update = False
    if control.has_trait("indent"):
        control.indent = False
    if control.has_trait("style"):
        control.style.description_width = "initial"
    if control.layout.width is None:
        control.layout.width = "min(34em, 100%)"


def _setting(control: widgets.ValueWidget) -> str:
    """The control as the page shows it: a choice by its label, not by the value behind it."""
    value = control.label if control.has_trait("label") else control.value
    return f"{control.description} = {value}"


def _same_html(control: widgets.ValueWidget) -> str:
    # The setting is named, so that one such note after another is seen to be a new one.
    words = html.escape(f"Now {_setting(control)}, which changes nothing here.")
    return f'<br><span class="course-same">{words}</span>'


def _error_html(error: Exception, shown: str) -> str:
    words = html.escape(f"This setting failed: {type(error).__name__}: {error}")
    note = html.escape(f"The figure still shows the last setting that worked: {shown}.")
    border = "border-left: 4px solid #D55E00; padding-left: 0.6em"
    return f'<div class="course-error" style="{border}"><b>{words}</b><br>{note}</div>'
