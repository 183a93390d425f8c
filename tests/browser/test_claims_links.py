"""The table of verdicts in JupyterLab: a click leads to the notebook and heading with the evidence.

The stored table is clicked as it is found, before anything is run, so it is one of an untrusted
notebook, which JupyterLab cleans. JupyterLab 4 opens another notebook at its top and goes to the
heading when the link is clicked once more, as the lesson says.
"""

import pytest

pytestmark = pytest.mark.browser

LESSON = "notebooks/11_the_article_checked.ipynb"
ROWS = (1, 16, 19)  # another lesson, a heading with a question mark, a heading of this lesson
_IS_OPEN = """async start => {
    const panel = window.jupyterapp.shell.currentWidget;
    if (!panel.context || !panel.context.path.startsWith(start)) return false;
    await panel.context.ready;
    return true;
}"""
_GO_BACK = """path => {
    const panels = [...window.jupyterapp.shell.widgets("main")];
    const found = panels.find(each => each.context && each.context.path === path);
    window.jupyterapp.shell.activateById(found.id);
}"""
_HEADING_IS_SEEN = """heading => {
    const panel = window.jupyterapp.shell.currentWidget.node;
    const found = [...panel.querySelectorAll("h2")].find(
        each => each.textContent.startsWith(heading));
    if (!found) return false;
    const place = found.getBoundingClientRect(), view = panel.getBoundingClientRect();
    return place.top >= view.top - 5 && place.top < view.bottom;
}"""


@pytest.mark.parametrize("number", ROWS)
def test_a_click_leads_to_the_evidence(number, lab_page, lab_server):
    assert (lab_server.folder / LESSON).is_file(), f"{LESSON} is missing; run `make build` first"
    lab_page.open_notebook(LESSON)
    page = lab_page.page
    links = page.locator("td a[href*='.ipynb']")
    assert links.count() == 21
    link = links.nth(number - 1)
    lesson, heading = link.inner_text().removeprefix("lesson ").split(": ", 1)
    link.scroll_into_view_if_needed()
    link.click()
    page.wait_for_function(_IS_OPEN, arg=f"notebooks/{lesson}_")
    if lesson != "11":
        page.evaluate(_GO_BACK, LESSON)
        page.wait_for_function(_IS_OPEN, arg=LESSON)
        link.click()
    page.wait_for_function(_HEADING_IS_SEEN, arg=heading)
    assert not lab_page.errors, lab_page.errors
