"""No network: only the loopback device, or not even that; names that nobody or nothing answers."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import odd_places
from tests.odd_notebook import execute, printed, see_all_ran, write_notebook
from tests.odd_places import NO_NETWORK, TINY, course, python, run_apart, said_in_one_line
from utils.recipe import TrainingRecipe
from utils.trainer.start import command_words

NO_NAME = f"{NO_NETWORK}\nhostname no-such-host-anywhere"  # gloo would look for its address
NO_DEVICE = ":"  # a new network's loopback device is switched off
HANGS = "import socket, time; s = socket.socket(type=socket.SOCK_DGRAM); " + (
    "s.bind(('127.0.0.1', 53)); print('up', flush=True); time.sleep(900)"
)
# A server of names that takes questions and never answers.
NO_ANSWERS = NO_NAME + """
mount -t tmpfs none /mnt
echo "nameserver 127.0.0.1" > /mnt/resolv.conf
mount --bind /mnt/resolv.conf /etc/resolv.conf
"$PYTHON" -c "$HANGS" > /mnt/said 2> /dev/null &
until grep -q up /mnt/said; do sleep 0.1; done
code=0; timeout 2 getent hosts some.name.invalid || code=$?
test $code = 124 || { echo "names do not hang here" >&2; exit 1; }
"""
ON_TWO = TrainingRecipe(method="ddp", num_ranks=2, batch_size=2)


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("alone")
    place = odd_places.copy_course(folder / "course")
    write_notebook(place)
    (folder / "room/anna").mkdir(parents=True)
    shutil.copy(place / "solutions/lab_01_the_bill.ipynb", folder / "room/anna")
    (folder / "home").mkdir()
    return odd_places.environment(
        place, HOME=str(folder / "home"), TMPDIR=str(folder), PYTHON=python()[0], HANGS=HANGS,
        FOLDER=str(folder),
    )  # fmt: skip


def alone(setup: str, words: list[str], env: dict[str, str]) -> subprocess.CompletedProcess:
    """Run it in a network of its own, or skip the test where there is none."""
    reason = odd_places.problem(setup, env, "--net")
    if reason:
        pytest.skip(f"no network of its own here: {reason}")
    return run_apart(setup, words, env, "--net")


def test_a_lesson_a_lab_and_ranks_run(env: dict[str, str]) -> None:
    see_all_ran(printed(alone(NO_NAME, execute(), env)))


def test_without_a_device_ranks_say_what_to_switch_on(env: dict[str, str]) -> None:
    script = "from utils.ranks import run_ranks\nrun_ranks(print, 2)"
    ended = alone(NO_DEVICE, python("-c", script), env)
    assert ended.returncode == 1
    (said,) = [line for line in ended.stderr.splitlines() if "RankError" in line]
    assert "ranks 0 and 1 failed starting" in said
    assert "the network device 'lo' is switched off or missing" in said
    assert "`ip link set lo up`" in said and "enforce fail" not in ended.stderr


def test_without_a_device_the_trainer_says_so(env: dict[str, str], tmp_path: Path) -> None:
    words = course("train", *TINY, "--folder", str(tmp_path / "run"))
    said = said_in_one_line(alone(NO_DEVICE, words, env), 2)
    assert "the network device 'lo' is switched off or missing" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_torchrun_on_a_machine_whose_name_has_no_address(
    env: dict[str, str], tmp_path: Path
) -> None:
    """As the course starts it; torchrun alone would ask for the name's address for half an hour."""
    ended = alone(NO_NAME, command_words(ON_TWO, *TINY, folder=tmp_path / "run"), env)
    assert ended.returncode == 0 and "finished after" in ended.stdout, ended


@pytest.mark.slow
def test_jupyterlab_starts_and_its_page_needs_no_other_machine(env: dict[str, str]) -> None:
    page = Path(__file__).with_name("odd_lab_page.py")
    ended = alone(NO_ANSWERS, python(str(page)), env)
    assert ended.returncode == 0, ended.stderr[-3000:]
    found = json.loads(ended.stdout)
    assert found["elsewhere"] == [] and found["parts"] > 0 and found["cells"] > 40


@pytest.mark.slow
def test_every_command_works(env: dict[str, str], tmp_path: Path) -> None:
    room = ("grade", f"{env['FOLDER']}/room", "--out", str(tmp_path / "grades"), "--labs", "01")
    expected = {
        ("check_env",): "This machine is ready",
        ("my_labs",): "copied my-labs/lab_01",
        ("build", "--check", "--only", "03_loss_scaling"): "All is built.",
        ("planner", "--model", "gpt2-124m", "--tokens", "10e9", "--chip", "H100 SXM"): "cheapest",
        ("slides", "--only", "03_loss_scaling", "--to", "decks"): "The decks are",
        ("record", "--only", "collectives", "--folder", str(tmp_path / "kept")): "wrote ",
        room: "5 passed",
    }
    for words in odd_places.possible(list(expected)):
        ended = alone(NO_NAME, course(*words), env)
        assert ended.returncode == 0 and expected[words] in ended.stdout, ended
