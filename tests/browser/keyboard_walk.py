"""Each control of an explorer, moved with the keyboard from its first place to its last.

How it works: a first walk with Tab moves every control down to its first place and up to its last,
so all stand at the top in the end; a second walk brings every one back to its first place. After
each key the explorer must show a picture and a reading that makes sense, and where the focus is.
Left out: the other mixtures of settings; unit tests draw them without a browser.
"""

from __future__ import annotations

from explorer_page import CONTROLS, NONSENSE, ExplorerPage, Shown


def walk_to_all_ends(explorer: ExplorerPage) -> int:
    """Move every control of an explorer to both ends; returns how many keys were pressed."""
    before = explorer.shown()
    _assert_sense(before, "at first")
    num_controls, labels, num_keys = explorer.root.locator(CONTROLS).count(), [], 0
    for _ in explorer.walk():
        labels.append(explorer.label())
        num_keys += _move_to_both_ends(explorer)
    assert len(labels) == num_controls, f"of {num_controls} controls Tab reached only {labels}"
    assert len(set(labels)) == num_controls and all(labels), f"not each has its name: {labels}"
    for _ in explorer.walk():
        num_keys += _move_back(explorer)
    return num_keys


def _move_to_both_ends(explorer: ExplorerPage) -> int:
    """First place, on by steps and pages, last place; returns how many keys were pressed."""
    keys, label, seen = explorer.keys(), explorer.label(), {explorer.shown()}
    for key in keys:
        seen.add(_press(explorer, key))
        state = explorer.state()
        assert key != "Home" or state["place"] == state["first"], f"{label}: {key} gave {state}"
    assert state["place"] == state["last"], f"{label}: the end was not reached, {state}"
    assert len(seen) > 1, f"{label}: no key changed what is shown"
    return len(keys)


def _move_back(explorer: ExplorerPage) -> int:
    is_checkbox = explorer.control.get_attribute("type") == "checkbox"
    _press(explorer, "Space" if is_checkbox else "Home")
    state = explorer.state()
    assert state["place"] == state["first"], f"{explorer.label()}: {state}"
    return 1


def _press(explorer: ExplorerPage, key: str) -> Shown:
    shown, where = explorer.press(key), f"{explorer.label()}: {key}"
    _assert_sense(shown, where)
    problem = explorer.focus_is_seen()
    assert not problem, f"{where}: {problem}"
    return shown


def _assert_sense(shown: Shown, where: str) -> None:
    assert not shown.error, f"{where}: {shown.error}"
    assert shown.reading.rstrip().endswith("."), f"{where}: no sentence in {shown.reading!r}"
    assert shown.reading == shown.alternative_text, f"{where}: {shown}"
    assert not NONSENSE.search(shown.reading), f"{where}: {shown.reading}"
