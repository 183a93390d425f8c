"""One explorer in an open notebook, moved with the keyboard.

How it works: after a key that moves the control, wait until the picture's alternative text or the
message below it has changed; picture and reading come from the kernel in two messages, so a state
counts only when the two agree. What stays different is the failure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

EXPLORER = ".course-explorer"
REDRAW_MS = 20_000
_FIRST_CONTROL = ".noUi-handle, select, input[type=checkbox]"
_SHOWN = """(root) => {
    const text = (selector) => root.querySelector(selector)?.textContent ?? "";
    const image = root.querySelector("img");
    return {picture: image?.src ?? "", alternative_text: image?.alt ?? "",
            reading: text(".course-reading"), error: text(".course-error")};
}"""
_SETTLED = f"""([root, before]) => {{
    const now = ({_SHOWN})(root);
    const agrees = now.error !== "" || now.reading === now.alternative_text;
    const changed = before === null || now.error !== before.error
        || now.reading !== before.reading || now.picture !== before.picture;
    return agrees && changed && now.picture !== "";
}}"""
_POSITION = """(control) => control.type === "checkbox" ? String(control.checked)
    : control.getAttribute("aria-valuenow") ?? control.value"""


@dataclass(frozen=True)
class Shown:
    """The picture, its alternative text, the reading and the error message below it."""

    picture: str
    alternative_text: str
    reading: str
    error: str


class ExplorerPage:
    """The `index`-th explorer of the notebook that is open in `page`."""

    def __init__(self, page: Any, index: int = 0) -> None:
        self._page = page
        self.root = page.locator(EXPLORER).nth(index)
        self.root.scroll_into_view_if_needed()
        self.control = self.root.locator(_FIRST_CONTROL).first

    def shown(self, other_than: Shown | None = None) -> Shown:
        """What the explorer shows as soon as it is settled and `other_than` is gone."""
        before = vars(other_than) if other_than else None
        handle = self.root.element_handle()
        self._page.wait_for_function(_SETTLED, arg=[handle, before], timeout=REDRAW_MS)
        return Shown(**self.root.evaluate(_SHOWN))

    def position(self) -> str:
        """The first control's position: a slider's aria-valuenow, else the value."""
        return self.control.evaluate(_POSITION)

    def press(self, key: str) -> Shown:
        """Press a key on the first control; if that moves it, wait for the new state."""
        shown, position = self.shown(), self.position()
        self.control.focus()
        self._page.keyboard.press(key)
        self._page.wait_for_timeout(100)  # the control's own reaction; the kernel is awaited below
        return self.shown(other_than=shown) if self.position() != position else shown

    def move_to_both_ends(self) -> tuple[Shown, Shown]:
        """Move the first control to its first and last position (a checkbox: off and on)."""
        if self.control.get_attribute("type") == "checkbox":
            return self.press("Space"), self.press("Space")
        return self.press("Home"), self.press("End")


def all_explorers(page: Any) -> list[ExplorerPage]:
    """Every explorer of the open notebook."""
    page.wait_for_selector(f"{EXPLORER} img")
    return [ExplorerPage(page, index) for index in range(page.locator(EXPLORER).count())]
