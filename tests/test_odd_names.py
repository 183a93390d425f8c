"""Names with spaces and letters of many scripts, long names, links, and a plain locale."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests import odd_places
from tests.odd_notebook import execute, printed, see_all_ran, write_notebook
from tests.odd_places import TINY, course, python, run
from tests.rank_processes import left_in

PLAIN = {"LANG": "C", "LC_ALL": "C"}  # as in a bare container; Python then takes UTF-8 by itself
LATIN = {"LANG": "de_DE", "PYTHONIOENCODING": "latin-1"}  # a terminal that lacks most letters
ODD = "Zoë Müller 日本"
pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs Linux or macOS")
RANKS = "from utils.ranks import run_ranks\nprint(run_ranks(max, 2))"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a course in it, reached by a link from another folder."""
    folder = tmp_path_factory.mktemp("names") / ODD
    write_notebook(odd_places.copy_course(folder / " a course, é"))
    for name in (" home", "tmp of 'mine'", "link to"):
        (folder / name).mkdir()
    (folder / "link to" / "the course").symlink_to(folder / " a course, é")
    (folder / "the room/Zoë M.").mkdir(parents=True)
    lab = folder / " a course, é/solutions/lab_01_the_bill.ipynb"
    shutil.copy(lab, folder / "the room/Zoë M.")
    return folder


def environment(folder: Path, place: str = " a course, é", **more: str) -> dict[str, str]:
    named = {"HOME": str(folder / " home"), "TMPDIR": str(folder / "tmp of 'mine'"), **more}
    return odd_places.environment(folder / place, **named)


@pytest.mark.parametrize(
    "place", [" a course, é", pytest.param("link to/the course", marks=pytest.mark.slow)]
)
def test_a_lesson_a_lab_and_ranks_run(place: str, folder: Path) -> None:
    progress = folder / " a course, é/.progress.json"
    progress.unlink(missing_ok=True)
    see_all_ran(printed(run(execute(), environment(folder, place, **PLAIN))))
    assert '"01.1": "passed"' in progress.read_text()


def test_ranks_where_temporary_files_have_a_long_name(folder: Path) -> None:
    """A socket's path has at most 107 bytes, and multiprocessing's lies in that folder."""
    long = folder / ("long " * 30)
    long.mkdir()
    ended = run(python("-c", RANKS), environment(folder, TMPDIR=str(long)))
    assert ended.returncode == 0 and ended.stdout == "[2, 2]\n", ended
    assert not left_in(long)


def test_a_terminal_without_the_letters_shows_their_numbers(folder: Path) -> None:
    script = "from utils.my_labs import main\nmain(['--to', 'labs of 日'])"
    ended = run(python("-c", script), environment(folder, **LATIN))
    assert ended.returncode == 0 and "copied labs of \\u65e5/lab_01" in ended.stdout, ended


@pytest.mark.slow
@pytest.mark.parametrize("locale", [PLAIN, LATIN], ids=["plain", "latin"])
def test_every_command_works(locale: dict[str, str], folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "ö ü"
    room = ("grade", str(folder / "the room"), "--out", str(out / "grades"), "--labs", "01")
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m",
                "utils.train", *TINY, "--method", "ddp", "--batch-size", "2")  # fmt: skip
    expected = {
        ("check_env",): "This machine is ready",
        ("my_labs", "--to", f"my labs ö {locale['LANG']}"): "copied my labs",
        ("build", "--check", "--only", "03_loss_scaling"): "All is built.",
        ("build", "--only", "lab_01_the_bill"): "wrote labs/lab_01_the_bill.ipynb",
        ("planner", "--model", "gpt2-124m", "--tokens", "10e9", "--chip", "H100 SXM"): "cheapest",
        ("slides", "--only", "03_loss_scaling", "--to", "the decks"): "The decks are",
        ("record", "--only", "collectives", "--folder", str(out / "kept")): "wrote ",
        ("train", *TINY, "--folder", str(out / "run")): "finished after",
        room: "5 passed",
    }
    lines = {words: course(*words) for words in odd_places.possible(list(expected))}
    lines["torchrun"] = python(*torchrun, "--folder", str(out / "run of two"))
    for words, line in lines.items():
        ended = run(line, environment(folder, **locale))
        said = expected.get(words, "finished after")
        assert ended.returncode == 0 and said in ended.stdout, ended
