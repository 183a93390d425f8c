"""A curve that grows while a cell trains, and stays in the notebook as a picture.

How it works: `with Live(title) as live` shows a progress bar and an HTML image; each `live.log`
adds a point and redraws at most twice a second. At the end the widget hides itself and the finished
curve is displayed as a PNG. The texts beside it are constant, so a strict comparison stays green.
Drawing costs time, which `live.overhead_s` adds up: subtract it from a time measured around it.

Left out: a stop button. JupyterLab handles no click while a cell runs; interrupt the kernel.
"""

from __future__ import annotations

import base64
import html
import time
from types import TracebackType

import ipywidgets as widgets
from matplotlib.figure import Figure

from utils.measured import measured, publish
from utils.plots import image_html, label_line_ends, new_figure, png_of

_SECONDS_BETWEEN_DRAWINGS = 0.5


class Live:
    """Context manager for one curve or several over the same `unit` of training.

    `overhead_s`: seconds spent in Live's own code so far. `num_drawings`: redraws so far.
    """

    def __init__(self, title: str, unit: str = "steps") -> None:
        self.title, self.unit = title, unit
        self.overhead_s, self.num_drawings = 0.0, 0
        self._curves: dict[str, list[tuple[float, float]]] = {}
        self._last_drawing_s = float("-inf")
        self._bar = widgets.IntProgress(max=100, description="0 %")
        self._image, self._caption = widgets.HTML(), widgets.HTML()
        self.view = widgets.VBox([self._bar, self._image, self._caption])
        self.view.add_class("course-live")

    def __enter__(self) -> Live:
        start_s = time.perf_counter()
        bundle = self.view._repr_mimebundle_() or {}
        bundle["text/plain"] = f"[live] {self.title}: run the cell to watch the curve grow"
        publish(bundle)
        self.overhead_s += time.perf_counter() - start_s
        return self

    def log(self, step: float, fraction_done: float, **values: float) -> None:
        """Add one point per named value at `step`; `fraction_done` (0 to 1) moves the bar."""
        start_s = time.perf_counter()
        if not values:
            raise ValueError("live.log needs at least one named value, such as loss=2.5.")
        for name, value in values.items():
            point = (float(step), float(value))
            if name in self._curves:
                self._curves[name].append(point)  # whole or not at all, if the cell is interrupted
            else:
                self._curves[name] = [point]
        if start_s - self._last_drawing_s >= _SECONDS_BETWEEN_DRAWINGS:
            self._redraw(step, fraction_done)
            self._last_drawing_s = time.perf_counter()
        self.overhead_s += time.perf_counter() - start_s

    def figure(self) -> Figure:
        """Return the curve so far as a new figure."""
        figure = new_figure(6.4, 2.8)
        axes = figure.subplots()
        for name, points in self._curves.items():
            axes.plot(*zip(*points, strict=True), label=name, markersize=4)
        axes.set(title=self.title, xlabel=self.unit)
        if len(self._curves) == 1:
            axes.set_ylabel(next(iter(self._curves)))
        else:
            label_line_ends(axes)
        return figure

    def reading(self) -> str:
        """The curves in one sentence: where each starts and ends, marked as measured."""
        ends = (
            f"{name} goes from {measured(points[0][1])} at {measured(points[0][0], self.unit)} "
            f"to {measured(points[-1][1])} at {measured(points[-1][0], self.unit)}"
            for name, points in self._curves.items()
        )
        return f"{self.title}: {'; '.join(ends)}."

    def _redraw(self, step: float, fraction_done: float) -> None:
        percent = round(100 * min(1.0, max(0.0, fraction_done)))
        self._bar.value, self._bar.description = percent, f"{percent} %"
        latest = ", ".join(f"{name} {points[-1][1]:.4g}" for name, points in self._curves.items())
        caption = f"{self.unit}: {step:,}; {latest}"
        self._image.value = image_html(png_of(self.figure()), f"{self.title}, {caption}")
        self._caption.value = html.escape(caption)
        self.num_drawings += 1

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Hide the widget and leave the finished curve; after an error too, as far as it came."""
        start_s = time.perf_counter()
        self.view.layout.display = "none"
        self._image.value = ""  # the finished picture replaces it
        if self._curves:
            png = base64.b64encode(png_of(self.figure())).decode("ascii")
            alt = self.reading()
            text = f"[live curve] {self.title}"
            publish({"image/png": png, "text/plain": text}, {"image/png": {"alt": alt}})
        self.overhead_s += time.perf_counter() - start_s
