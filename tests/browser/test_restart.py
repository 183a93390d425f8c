"""A learner restarts the kernel while ranks run: nothing of the first kernel stays, all runs again.

How it works: Run All and Restart Kernel are chosen in JupyterLab's menus, as a learner would. The
lesson starts its ranks from the kernel; once some are alive, the kernel is restarted under them.
"""

import sys

import psutil
import pytest

from tests.rank_processes import descendants, gone, ranks

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc"),
]
LESSON = "notebooks/06_data_parallel.ipynb"
RANKS_WITHIN_S = 600


def test_a_restart_while_ranks_run_leaves_none_and_the_lesson_runs_again(lab_page, lab_server):
    lab_page.open_notebook(LESSON)
    page = lab_page.page
    lab_page.choose("Run", "Run All Cells")
    first = _kernel_with_ranks(lab_server.pid, page)
    started = ranks(first) | descendants(first)
    lab_page.choose("Kernel", "Restart Kernel…")
    page.locator(".jp-Dialog").get_by_role("button", name="Confirm Kernel Restart").click()
    page.locator(".jp-Dialog").wait_for(state="detached")
    assert gone(started | {first}, within_s=60), _commands(started | {first})
    page.wait_for_function(
        "window.jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status === 'idle'"
    )
    # The cell that was cut short says so; nothing else may have gone wrong.
    errors = [each for each in lab_page.kernel_trouble() if each.startswith("error: ")]
    assert set(errors) <= {"error: KeyboardInterrupt"}, errors
    lab_page.run_all()
    lab_page.assert_nothing_is_broken()
    (second,) = _kernels(lab_server.pid)
    assert second != first
    assert not ranks(second), _commands(ranks(second))


def _kernel_with_ranks(server, page):
    """The number of the kernel's process, as soon as two ranks of it are alive."""
    for _ in range(20 * RANKS_WITHIN_S):
        found = [kernel for kernel in _kernels(server) if len(ranks(kernel)) >= 2]
        if found:
            return found[0]
        page.wait_for_timeout(50)
    raise AssertionError(f"no ranks were started within {RANKS_WITHIN_S} s")


def _kernels(server):
    children = psutil.Process(server).children()
    return [each.pid for each in children if "ipykernel_launcher" in " ".join(each.cmdline())]


def _commands(pids):
    return [psutil.Process(pid).cmdline() for pid in pids if psutil.pid_exists(pid)]
