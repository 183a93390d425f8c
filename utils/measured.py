"""The one way to show a measured number, a measured text or a table.

A notebook's outputs are compared strictly (`pytest --nbval`), so a number that changes from run to
run must say so. It stands between two marks: `measured(8.8, "ms")` gives "\u23f1 8.80 ms \u23f1".
The rules in `tests/nbval_sanitize.cfg` cut out what stands between two marks, in a
`<td class="measured">` and in a `<pre class="measured">`; everything else must come out the same
on every machine.

Left out: taking the measurement (`utils.timing`, `utils.memory`) and any statistics.
"""

from __future__ import annotations

import datetime
import html
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display

MARK = "\u23f1"
_FIGURE_CELL = re.compile(rf"{MARK}|[-+\u2212]?[$<>~]?\s*\.?\d")
_EMPTY_CELLS = ("", "-", "\u2013")


def significant(value: float, digits: int = 3) -> str:
    """Round to `digits` significant digits, with thousands separators; a whole number stays whole.

    8.8 gives "8.80", 1720320 gives "1,720,000", 0.00000123 gives "1.23e-06".
    """
    if digits < 1:
        raise ValueError(f"digits is {digits}; ask for at least 1 significant digit.")
    is_whole = isinstance(value, int)
    mantissa, _, exponent_text = f"{float(value):.{digits - 1}e}".partition("e")
    if not exponent_text:  # nan and inf have no exponent
        return mantissa
    exponent = int(exponent_text)
    if value != 0 and not -5 <= exponent < 15:
        return f"{mantissa}e{exponent_text}"
    decimals = 0 if is_whole or value == 0 else max(0, digits - 1 - exponent)
    return f"{float(f'{mantissa}e{exponent_text}'):,.{decimals}f}"


def measured(value: Any, unit: str = "", digits: int = 3) -> str:
    """Return a measured value between two marks, e.g. "\u23f1 8.80 ms \u23f1".

    `value` is a number (also a one-element tensor), rounded to `digits` significant digits, or a
    text, passed through. Raises ValueError for a line break or a mark inside: they would leave a
    part of the measurement outside of what the comparison ignores.
    """
    if not isinstance(value, (str, bool, int)):
        value = float(value)
    text = str(value) if isinstance(value, (str, bool)) else significant(value, digits)
    text = f"{text} {unit}".strip()
    if MARK in text or len(text.splitlines()) > 1:
        raise ValueError(
            f"A measured value is one line without the mark {MARK}, but this is {text!r}; "
            "mark each part alone, or show a block with measured_text()."
        )
    return f"{MARK} {text} {MARK}"


def measured_where(
    dtype: str = "float32", device: str = "cpu", today: datetime.date | str | None = None
) -> str:
    """Say where and when a number was measured: processor, threads, dtype, date, between marks."""
    dtype = str(dtype).removeprefix("torch.")
    day = today or datetime.date.today()
    return measured(f"{_device_name(str(device))}, {dtype}, {day}")


def measured_text(title: str, text: str) -> None:
    """Display a block that changes from run to run (sample text, environment) under a title.

    The title is compared by nbval, the block is not. Characters that HTML cannot show (a model
    that writes bytes makes them) appear as the replacement character.
    """
    shown = "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)
    block = html.escape(shown.replace(MARK, "\ufffd"))
    publish(
        {
            "text/html": f'<b>{html.escape(title)}</b>\n<pre class="measured">{block}</pre>\n',
            "text/plain": f"[measured] {title}",
        }
    )


def table(headers: Sequence[str], rows: Sequence[Sequence[Any]], caption: str) -> None:
    """Print the caption and display a table: figures to the right, words to the left.

    A cell is a text, a whole number (shown with thousands separators) or a float (4 significant
    digits below 1,000, no decimals above; pass a text for anything else). A cell that contains a
    mark is not compared. Raises ValueError for no caption, no row or a row of another length.
    """
    if not caption.strip():
        raise ValueError("A table needs a caption: say in a few words what it shows.")
    if not rows:
        raise ValueError(f"The table {caption!r} has no rows; give at least one.")
    for row in rows:
        if len(row) != len(headers):
            raise ValueError(
                f"The table {caption!r} has {len(headers)} headers but the row {list(row)!r} has "
                f"{len(row)} cells; give one cell for each header."
            )
    cells = [[_cell_text(cell) for cell in row] for row in rows]
    # The text twin is not padded: padding would depend on the length of measured numbers.
    plain = "\n".join(" | ".join(row) for row in [list(headers), *cells])
    print(caption)
    publish({"text/html": _html_table(headers, cells), "text/plain": plain})


def publish(data: Mapping[str, str], metadata: Mapping[str, Any] | None = None) -> None:
    """Display a bundle {mime type: content}; outside of a notebook print its text/plain."""
    if InteractiveShell.initialized():
        display(dict(data), metadata=dict(metadata or {}), raw=True)
    else:
        print(data["text/plain"])


def _cell_text(cell: Any) -> str:
    if isinstance(cell, (str, bool)) or cell is None:
        return "" if cell is None else " ".join(str(cell).split())
    if isinstance(cell, int) or abs(float(cell)) >= 1000:
        return f"{cell:,.0f}"
    return f"{float(cell):.4g}"


def _html_table(headers: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    sides = [_side(column) for column in zip(*cells, strict=True)]
    head = "".join(_html_cell("th", text, side) for text, side in zip(headers, sides, strict=True))
    lines = ["<table>", f"<thead><tr>{head}</tr></thead>", "<tbody>"]
    for row in cells:
        body = "".join(_html_cell("td", text, side) for text, side in zip(row, sides, strict=True))
        lines.append(f"<tr>{body}</tr>")
    return "\n".join([*lines, "</tbody>", "</table>"])


def _html_cell(tag: str, text: str, side: str) -> str:
    if MARK in text:  # exactly this opening tag: the sanitize rule looks for it
        return f'<td class="measured">{html.escape(text)}</td>'
    if tag == "th" and not text:
        return "<td></td>"  # a corner heads no column
    scope = ' scope="col"' if tag == "th" else ""
    return f'<{tag}{scope} style="text-align: {side}">{html.escape(text)}</{tag}>'


def _side(column: Sequence[str]) -> str:
    filled = [cell for cell in column if cell not in _EMPTY_CELLS]
    return "right" if filled and all(_FIGURE_CELL.match(cell) for cell in filled) else "left"


def _device_name(device: str) -> str:
    import torch  # here, so that a notebook that only prints does not pay for the import

    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    if not device.startswith("cpu"):
        return f"{processor_name()} ({device})"
    threads = torch.get_num_threads()
    return f"{processor_name()}, {threads} thread{'' if threads == 1 else 's'}"


def processor_name() -> str:
    """The processor's own name, else its architecture; `platform` alone often knows only that."""
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", cpu_info.read_text(errors="replace"), re.M)
        if found:
            return " ".join(found.group(1).split())
    if sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.stdout.strip():
            return answer.stdout.strip()
    return platform.processor() or platform.machine() or "unknown processor"
