"""For every test: the figures that it draws can be read by everybody.

How it works: each drawing of a figure is looked at by `tests/figure_rules.py`; what is found fails
the test that drew it. A module that draws badly on purpose says so by `DRAWS_BADLY = True`.

Left out: figures drawn in other processes.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from tests.figure_rules import figure_problems


@pytest.fixture(autouse=True)
def every_figure_is_readable(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Fail at the end of a test that has drawn what some reader could not read."""
    draw, found, seen = FigureCanvasAgg.draw, [], []

    def looked_at(canvas: FigureCanvasAgg) -> None:
        draw(canvas)
        if not any(canvas.figure is figure for figure in seen):
            seen.append(canvas.figure)
            found.extend(figure_problems(canvas.figure))

    if not getattr(request.module, "DRAWS_BADLY", False):
        monkeypatch.setattr(FigureCanvasAgg, "draw", looked_at)
    yield
    assert not found, "\n  ".join(["a figure of this test:", *dict.fromkeys(found)])
