"""A full disk: one sentence from every command, and every file is what it was before."""

from __future__ import annotations

import shutil

import pytest

from tests import odd_places
from tests.odd_notebook import execute, printed, see_all_ran, write_notebook
from tests.odd_places import (
    FULL_DISK,
    TINY,
    course,
    possible,
    python,
    run_apart,
    said_in_one_line,
)

# Prints what has changed; an empty file is nothing lost. Compiled files may be made.
WATCHED = """
digests() { find "$DISK" -type f -size +0 ! -name "*.pyc" ! -name "filler*" -print0 | sort -z |
  xargs -0 sha256sum; }
digests > /dev/shm/before
set +e; "$@"; code=$?
digests > /dev/shm/after
diff /dev/shm/before /dev/shm/after >&2 || echo CHANGED >&2
exit $code
"""
NOTES = "mount -t tmpfs -o size=4m notes /dev/shm"  # for the digests
ROOMY = f'{NOTES}; mkdir "$DISK/roomy"; mount -t tmpfs -o size=64m room "$DISK/roomy"\n' + (
    'export TMPDIR="$DISK/roomy" HOME="$DISK/roomy"'
)
FULL_SHARED = """
mount -t tmpfs -o size=64k shared /dev/shm
mountpoint -q /dev/shm
head -c 65k /dev/zero > /dev/shm/filler 2>/dev/null || true
"""
RANKS = """
import tempfile
from utils.ranks import run_ranks
def total(rank, world_size):
    import torch, torch.distributed as dist
    ones_N = torch.ones(4)
    dist.all_reduce(ones_N)
    return ones_N.tolist()
"""
FILLS_LATER = """
place = tempfile.gettempdir()
with open(place + "/filler", "wb") as file:
    try:
        for _ in range(65):
            file.write(bytes(2**20))
            file.flush()
    except OSError as error:
        print(error.strerror)
"""
PLAN = ("planner", "--model", "gpt2-124m", "--tokens", "10e9", "--chip", "H100 SXM")
# With no temporary folder, and with one: only what is to be kept goes to the full disk.
NOWHERE = {
    ("my_labs",): (1, "free some disk space"),
    ("build", "--only", "03_loss_scaling"): (1, "No notebook was changed"),
    ("slides", "--only", "03_loss_scaling"): (1, "slides could not be written"),
    ("record", "--only", "matmul_precision", "--folder", "kept"): (2, "the free disk space"),
    ("train", *TINY, "--folder", "run"): (2, "The folder run cannot be written"),
    ("grade", "room", "--out", "grades", "--labs", "01"): (1, "The last table in grades is whole"),
    PLAN: (2, "free some disk space"),
}
OUTPUTS = {
    ("slides", "--only", "03_loss_scaling"): (1, "No space left on device"),
    ("train", *TINY, "--folder", "run"): (2, "The folder run cannot be written"),
    ("grade", "room", "--out", "grades", "--labs", "01"): (1, "The last table in grades is whole"),
    ("record", "--only", "matmul_precision", "--folder", "kept"): (2, "the free disk space"),
    ("build", "--root", "small", "--force"): (1, "No notebook was changed"),
}


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A course with something to lose in every folder that commands write to."""
    folder = tmp_path_factory.mktemp("full")
    place = odd_places.copy_course(folder / "course")
    write_notebook(place)
    for name in ("slides/03_loss_scaling.html", "kept/other.json", "small/notebooks/00_one.ipynb"):
        (place / name).parent.mkdir(parents=True)
        (place / name).write_text("kept")
    (place / "small/sources").mkdir()
    (place / "small/sources/00_one.py").write_text("# %% [markdown]\n# # One\n\n# %%\nprint(1)\n")
    (place / "room/anna").mkdir(parents=True)
    shutil.copy(place / "solutions/lab_01_the_bill.ipynb", place / "room/anna")
    (folder / "disk").mkdir()
    made = odd_places.environment(place, DISK=str(folder / "disk"))
    reason = odd_places.problem(FULL_DISK, made)
    if reason:
        pytest.skip(f"no disk of its own here: {reason}")
    return made


def watched(setup: str, words: list[str], env: dict[str, str]) -> object:
    """Run it, and tell on the error stream which files have changed."""
    return run_apart(FULL_DISK + setup, ["sh", "-c", WATCHED, "sh", *words], env)


def nowhere(words: tuple[str, ...]) -> object:
    is_quick = words[0] in ("my_labs", "train")
    return pytest.param(words, id=words[0], marks=() if is_quick else pytest.mark.slow)


@pytest.mark.parametrize("words", [nowhere(words) for words in possible(list(NOWHERE))])
def test_with_no_room_at_all(words: tuple[str, ...], env: dict[str, str]) -> None:
    code, said = NOWHERE[words]
    ended = watched(NOTES, course(*words), env)
    if words == PLAN and ended.returncode == 0:  # it writes nothing: a spare page was enough
        assert "What would help most" in ended.stdout and not ended.stderr
    else:
        assert said in said_in_one_line(ended, code)


@pytest.mark.slow
@pytest.mark.parametrize("words", possible(list(OUTPUTS)), ids=lambda words: words[0])
def test_with_room_for_temporary_files_only(words: tuple[str, ...], env: dict[str, str]) -> None:
    code, said = OUTPUTS[words]
    assert said in said_in_one_line(watched(ROOMY, course(*words), env), code)


@pytest.mark.slow
def test_progress_that_finds_no_room_is_said_once(env: dict[str, str]) -> None:
    text = printed(run_apart(FULL_DISK + ROOMY, execute(), env))
    see_all_ran(text)
    assert text.count("Results cannot be stored in .progress.json: No space left on device.") == 1


def test_ranks_without_a_temporary_folder_are_one_sentence(env: dict[str, str]) -> None:
    ended = run_apart(FULL_DISK, python("-c", RANKS + "run_ranks(total, 2)"), env)
    assert ended.returncode == 1
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("RuntimeError: Ranks need a folder for temporary files") and (
        "free some disk space" in last
    )


@pytest.mark.parametrize("place", ["temporary", "shared"])
def test_ranks_need_no_room(place: str, env: dict[str, str]) -> None:
    """The temporary folder is full once the kernel runs; or the shared memory of Linux is."""
    setup, script = (ROOMY, FILLS_LATER) if place == "temporary" else (FULL_SHARED, "")
    words = python("-c", RANKS + script + "print(run_ranks(total, 2)[1])")
    ended = run_apart((FULL_DISK if place == "temporary" else "") + setup, words, env)
    assert ended.returncode == 0, ended
    if place == "temporary":
        assert ended.stdout.startswith("No space left on device")
    assert ended.stdout.endswith("[2.0, 2.0, 2.0, 2.0]\n")
