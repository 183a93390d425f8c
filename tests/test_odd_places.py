"""A course that cannot be written: lessons and labs run, and what must write says so and stops."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from tests import odd_places
from tests.odd_notebook import execute, printed, see_all_ran, write_notebook
from tests.odd_places import READ_ONLY, TINY, course, run, run_apart, said_in_one_line
from utils.check_hardware import folder_finding, temporary_finding

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs Linux or macOS")
WRITERS = {
    ("my_labs",): (1, "my-labs", "copy the whole course to a folder that you can write to"),
    ("build", "--only", "03_loss_scaling"): (1, "could not write", "No notebook was changed"),
    ("slides", "--only", "03_loss_scaling"): (1, "slides could not be written", ""),
    ("record", "--only", "matmul_precision"): (2, "cannot be written", "with --folder"),
    ("train", *TINY, "--folder", "run"): (2, "The folder run cannot be written", "--folder"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A course of which nothing has been made yet, and which has the odd notebook."""
    copied = odd_places.copy_course(tmp_path_factory.mktemp("read-only") / "course")
    write_notebook(copied)
    return copied


@pytest.fixture
def env(place: Path, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "home").mkdir()
    return odd_places.environment(place, HOME=str(tmp_path / "home"), TMPDIR=str(tmp_path))


@pytest.fixture
def mounted(env: dict[str, str]) -> dict[str, str]:
    """The environment of a place that is mounted read-only."""
    reason = odd_places.problem(READ_ONLY, env)
    if reason:
        pytest.skip(f"no read-only mount here: {reason}")
    return env


def contents(folder: Path) -> dict[str, str]:
    """Every file but compiled ones, by its digest."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


def test_a_lesson_and_a_lab_run_and_say_once_that_progress_is_not_kept(
    mounted: dict[str, str],
) -> None:
    text = printed(run_apart(READ_ONLY, execute(), mounted))
    see_all_ran(text)
    assert text.count("Results cannot be stored in .progress.json: Read-only file system.") == 1


@pytest.mark.parametrize("words", odd_places.possible(list(WRITERS)), ids=lambda words: words[0])
def test_what_must_write_into_it_is_refused(words: tuple[str, ...], mounted: dict) -> None:
    code, problem, cure = WRITERS[words]
    said = said_in_one_line(run_apart(READ_ONLY, course(*words), mounted), code)
    assert "Read-only file system" in said and problem in said and cure in said


@pytest.mark.parametrize("words", list(WRITERS)[::4], ids=lambda words: words[0])
def test_permissions_refuse_it_as_well(words: tuple[str, ...], place: Path, env: dict) -> None:
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("permissions do not bind root, and setpriv is missing")
    before = contents(place)
    with odd_places.unwritable(place):
        ended = run(odd_places.without_rights(course(*words)), env)
    code, problem, cure = WRITERS[words]
    said = said_in_one_line(ended, code)
    assert "Permission denied" in said and problem in said and cure in said
    assert contents(place) == before


@pytest.mark.slow
def test_what_reads_it_only_works(mounted: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "room/anna").mkdir(parents=True)
    shutil.copy(Path(mounted["PLACE"], "solutions/lab_01_the_bill.ipynb"), tmp_path / "room/anna")
    grade = ("grade", str(tmp_path / "room"), "--out", str(tmp_path / "grades"), "--labs", "01")
    expected = {
        ("check_env",): "course folder: read-only: lessons run",
        ("build", "--check", "--only", "03_loss_scaling"): "All is built.",
        ("planner", "--model", "gpt2-124m", "--tokens", "10e9", "--chip", "H100 SXM"): "cheapest",
        ("train", *TINY, "--folder", str(tmp_path / "run")): "finished after",
        ("slides", "--only", "03_loss_scaling", "--to", str(tmp_path / "slides")): "The decks are",
        ("record", "--only", "collectives", "--folder", str(tmp_path / "kept")): "wrote ",
        grade: "5 passed",
    }
    for words in odd_places.possible(list(expected)):
        ended = run_apart(READ_ONLY, course(*words), mounted)
        assert ended.returncode == 0 and expected[words] in ended.stdout, ended


def test_the_check_of_the_environment_names_both() -> None:
    def finds_none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    assert folder_finding(True).status == "OK" and folder_finding(False).status == "INFO"
    assert temporary_finding().status == "OK"
    assert temporary_finding(finds_none).status == "FAIL"
    assert "free some disk space" in str(temporary_finding(finds_none))
