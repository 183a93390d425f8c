"""A learner opens a lesson in JupyterLab, runs it and plays with every explorer."""

import pytest
from explorer_page import all_explorers

pytestmark = pytest.mark.browser

LESSONS = ("01_the_bill", "06_data_parallel")  # 06 starts processes from the kernel


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_lesson_runs_and_its_explorers_answer_to_the_keyboard(lesson, lab_page, lab_server):
    path = f"notebooks/{lesson}.ipynb"
    assert (lab_server.folder / path).is_file(), f"{path} is missing; run `make build` first"
    lab_page.open_notebook(path)
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
