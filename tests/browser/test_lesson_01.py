"""A learner opens lesson 01 in JupyterLab, runs it and plays with every explorer."""

import pytest
from explorer_page import all_explorers

pytestmark = pytest.mark.browser

LESSON = "notebooks/01_the_bill.ipynb"


def test_lesson_01_runs_and_its_explorers_answer_to_the_keyboard(lab_page, lab_server):
    assert (lab_server.folder / LESSON).is_file(), f"{LESSON} is missing; run `make build` first"
    lab_page.open_notebook(LESSON)
    lab_page.run_all()
    explorers = all_explorers(lab_page.page)
    before = explorers[0].shown()
    after = explorers[0].press("ArrowRight")
    assert after.picture != before.picture
    assert after.reading != before.reading
    assert after.reading == after.alternative_text
    for explorer in explorers:
        low, high = explorer.move_to_both_ends()
        assert (low.error, high.error) == ("", "")
        assert low.reading != high.reading
        assert high.reading == high.alternative_text
    assert not lab_page.errors, lab_page.errors
