"""One explorer in an open notebook, walked through and moved with the keyboard alone.

How it works: `walk` goes from the explorer's cell from control to control with the Tab key. After a
key that moves a control, wait until the picture's alternative text or the message below it has
changed; picture and reading come from the kernel in two messages, so a state counts only when the
two agree. What stays different is the failure. What a control is, is read from the page.
Left out: the number beside a slider, which is a second way to set the same value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

EXPLORER = ".course-explorer"
REDRAW_MS = 120_000
CONTROLS = ".noUi-handle, select, input, textarea, button"
# A slider is moved by steps and pages between its ends, a list through all its choices. A list must
# be opened first: JupyterLab takes the arrow keys of a closed one and goes to the next cell.
SLIDER_KEYS = ("Home", "ArrowRight", "PageUp", "PageDown", "ArrowLeft", "End")
OUTSIDE = -2
NEXT_CHOICE = "Space ArrowDown Enter"
# A number may be negative, but no size, time, price or share is. Only a number beyond a format, and
# said to be so, becomes "inf" (or "nan", where the format has no infinity).
NONSENSE = re.compile(
    r"\b(?:inf|nan)\b(?! in [^,]+, whose largest value is)|\bNone\b|[-−]\$"
    r"|(?<!\w)[-−]\$?\d[\d,.]*\s?(?:%|(?:bytes|[KMGT]i?B|[mµ]?s|hours|tokens|GPUs?)\b)"
)
_SHOWN = """(root) => {
    const text = (selector) => root.querySelector(selector)?.textContent ?? "";
    const image = root.querySelector("img");
    return {picture: image?.src ?? "", alternative_text: image?.alt ?? "",
            reading: text(".course-reading"), error: text(".course-error"),
            note: text(".course-same")};
}"""
_SETTLED = f"""([root, before]) => {{
    const now = ({_SHOWN})(root);
    const agrees = now.error !== "" || now.reading === now.alternative_text;
    const changed = before === null || Object.keys(now).some((key) => now[key] !== before[key]);
    return agrees && changed && now.picture !== "";
}}"""
_FOCUS_CELL = """(root) => {
    const notebook = window.jupyterapp.shell.currentWidget.content;
    notebook.activeCellIndex = notebook.widgets.findIndex((cell) => cell.node.contains(root));
    notebook.mode = "command";
    notebook.activeCell.node.focus();
}"""
_FOCUSED_CONTROL = f"""(root) => {{
    const at = document.activeElement;
    if (!root.contains(at)) return {OUTSIDE};
    return [...root.querySelectorAll("{CONTROLS}")].indexOf(at);
}}"""
_STATE = """(control) => {
    if (control.type === "checkbox") return {place: +control.checked, first: 0, last: 1};
    if (control.tagName === "SELECT")
        return {place: control.selectedIndex, first: 0, last: control.length - 1};
    const number = (name) => Number(control.getAttribute("aria-value" + name));
    return {place: number("now"), first: number("min"), last: number("max")};
}"""
_LABEL = """(control) => control.closest(".widget-inline-hbox, .widget-checkbox")?.innerText
    .split("\\n")[0] ?? "" """
# A ring, a shadow or another colour that an unfocused control of the kind does not have.
_FOCUS_IS_SEEN = """(control) => {
    const look = () => {
        const style = getComputedStyle(control);
        return [style.outlineStyle, style.outlineWidth, style.boxShadow, style.borderColor,
                style.backgroundColor].join();
    };
    const box = control.getBoundingClientRect();
    const page = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
    const seen = control === page || control.contains(page);
    const focused = look();
    if (document.activeElement !== control) return "the focus is elsewhere";
    if (!seen) return "the control is scrolled out of sight or covered";
    const elsewhere = document.createElement("button");
    document.body.append(elsewhere);
    elsewhere.focus({preventScroll: true});
    const unfocused = look();
    control.focus({preventScroll: true});
    elsewhere.remove();
    return focused === unfocused ? "a focused control looks like any other" : "";
}"""


@dataclass(frozen=True)
class Shown:
    """The picture, its alternative text, and below it reading, error message, and note.

    The note says that a setting changes neither picture nor reading.
    """

    picture: str
    alternative_text: str
    reading: str
    error: str
    note: str


class ExplorerPage:
    """The `index`-th explorer of the notebook that is open in `page`."""

    def __init__(self, page: Any, index: int = 0) -> None:
        self._page = page
        self.root = page.locator(EXPLORER).nth(index)
        self.root.scroll_into_view_if_needed()
        self.control = self.root.locator(CONTROLS).first

    def shown(self, other_than: Shown | None = None) -> Shown:
        """What the explorer shows as soon as it is settled and `other_than` is gone."""
        before = vars(other_than) if other_than else None
        handle = self.root.element_handle()
        self._page.wait_for_function(_SETTLED, arg=[handle, before], timeout=REDRAW_MS)
        return Shown(**self.root.evaluate(_SHOWN))

    def walk(self) -> Iterator[Any]:
        """Every control in the order in which Tab reaches it; the loop's body may move it."""
        self.root.evaluate(_FOCUS_CELL)
        number, is_inside = -1, False
        for _ in range(4 * self.root.locator(CONTROLS).count() + 20):
            self._page.keyboard.press("Tab")
            before, number = number, self.root.evaluate(_FOCUSED_CONTROL)
            if number == OUTSIDE and is_inside:
                return
            is_inside = number != OUTSIDE
            if number >= 0 and number != before:
                self.control = self.root.locator(CONTROLS).nth(number)
                yield self.control

    def label(self) -> str:
        """The words beside the control."""
        return self.control.evaluate(_LABEL)

    def state(self) -> dict[str, float]:
        """The control's place, and the first and last place that it has."""
        return self.control.evaluate(_STATE)

    def press(self, key: str) -> Shown:
        """Press a key, or several, on the control; if that moves it, wait for the new state."""
        shown, state = self.shown(), self.state()
        self.control.focus()
        for each in key.split():
            self._page.keyboard.press(each)
        self._page.wait_for_timeout(100)  # the control's own reaction; the kernel is awaited below
        return self.shown(other_than=shown) if self.state() != state else shown

    def keys(self) -> tuple[str, ...]:
        """The keys that move the control to its first place and on to its last."""
        state = self.state()
        if self.control.get_attribute("type") == "checkbox":
            return ("Space",) * (1 if state["place"] == 0 else 2)
        if self.control.evaluate("(each) => each.tagName") == "SELECT":
            return ("Home", *[NEXT_CHOICE] * int(state["last"]))
        return SLIDER_KEYS

    def focus_is_seen(self) -> str:
        """Empty, or what is wrong with the way that the focus on the control shows."""
        return self.control.evaluate(_FOCUS_IS_SEEN)

    def move_to_both_ends(self) -> tuple[Shown, Shown]:
        """Move the control to its first and last position (a checkbox: off and on)."""
        if self.control.get_attribute("type") == "checkbox":
            return self.press("Space"), self.press("Space")
        return self.press("Home"), self.press("End")


def all_explorers(page: Any) -> list[ExplorerPage]:
    """Every explorer of the open notebook."""
    page.wait_for_selector(f"{EXPLORER} img")
    return [ExplorerPage(page, index) for index in range(page.locator(EXPLORER).count())]
