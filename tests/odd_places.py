"""Odd places for real processes: read-only files, a full disk, no network, names of all kinds.

How it works: a copy of the course is where a command runs. For all but the names, `unshare` gives
the command file systems, a network and a machine's name of its own, which vanish with it: a full
disk is a tmpfs of some megabytes, with everything else read-only, so that no temporary folder is
found elsewhere. `problem` says why a machine cannot do that. Nothing that was started stays.

Left out: disks that fail in other ways, and systems other than Linux.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("notebooks", "labs", "solutions", "sources", "utils", "README.md", "requirements.txt")
LIMIT_S = 400  # a busy machine takes many times what an idle one does
DISK_MIB = 32
TINY = ("--steps", "3", "--num-layers", "1", "--num-heads", "2", "--model-dim", "32",
        "--context-length", "32", "--no-memory")  # fmt: skip
APART = ("unshare", "--user", "--map-root-user", "--mount", "--uts")

READ_ONLY = 'mount --bind "$PLACE" "$PLACE"; mount -o remount,bind,ro "$PLACE"'
# The order matters: what is written to fill the disk must never go anywhere else.
FULL_DISK = f"""
for each in /dev/shm /tmp /var/tmp /; do
  if mountpoint -q $each; then mount -o remount,bind,ro $each; fi
done
mount -t tmpfs -o size={DISK_MIB}m full "$DISK"
mountpoint -q "$DISK"
cp -a "$PLACE" "$DISK/course"
mkdir "$DISK/home" "$DISK/tmp"
export PLACE="$DISK/course" HOME="$DISK/home" TMPDIR="$DISK/tmp"
head -c {DISK_MIB + 1}M /dev/zero > "$DISK/filler" 2>/dev/null || true
for rest in 1 2 3 4 5 6 7 8; do  # single pages that a large write has left
  head -c 4k /dev/zero > "$DISK/filler$rest" 2>/dev/null || true
done
"""
NO_NETWORK = "ip link set lo up"


def copy_course(to: Path) -> Path:
    """What a learner runs, with the compiled files that Python would make at each start."""
    to.mkdir(parents=True)
    for name in PARTS:
        source = ROOT / name
        shutil.copytree(source, to / name) if source.is_dir() else shutil.copy2(source, to / name)
    return to


def environment(place: Path, **more: str) -> dict[str, str]:
    """A learner's: no variable of the tests' own, and the home and temporary folders named."""
    ours = ("COURSE_", "PYTEST", "IPYTHONDIR", "PYTHON", "JUPYTER", "LC_", "LANG", "GLOO_", "MPL")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(ours)}
    return {**kept, "PLACE": str(place), "OMP_NUM_THREADS": "1", **more}


def run(
    words: Sequence[str], env: Mapping[str, str], limit_s: float = LIMIT_S
) -> subprocess.CompletedProcess:
    """Run a command in $PLACE to its end; what it leaves behind is killed."""
    with subprocess.Popen(
        words, env=dict(env), cwd=env["PLACE"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, encoding="utf-8", errors="replace",
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            out, err = process.communicate(timeout=limit_s)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def run_apart(
    setup: str, words: Sequence[str], env: Mapping[str, str], *options: str
) -> subprocess.CompletedProcess:
    """Run it in $PLACE after `setup`, as root of namespaces of its own."""
    script = f'set -e\n{setup}\ncd "$PLACE"\nexec "$@"'
    return run([*APART, *options, "sh", "-c", script, "sh", *words], env)


def problem(setup: str, env: Mapping[str, str], *options: str) -> str:
    """Why this machine has no such place; nothing when it has."""
    missing = [tool for tool in ("unshare", "mount", "ip") if shutil.which(tool) is None]
    if missing:
        return f"{missing[0]} is missing"
    tried = run_apart(setup, ["true"], env, *options)
    said = tried.stderr.strip().splitlines() or ["no message"]
    return "" if tried.returncode == 0 else said[-1]


def python(*words: str) -> list[str]:
    """A command line of this Python."""
    return [sys.executable, *words]


def course(name: str, *words: str) -> list[str]:
    """A command line of the course: `course("record", "--list")`."""
    return python("-m", f"utils.{name}", *words)


def needs(words: Sequence[str]) -> str:
    """Why a command of the course cannot work on this machine in any place; "" if it can."""
    if words[0] == "slides" and find_spec("sphinx_revealjs") is None:
        return "reveal.js is not installed (`make slides-venv`)"
    if words[0] == "grade" and not sys.platform.startswith("linux"):
        return "grading needs Linux"
    return ""


def possible(words: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """Those commands that this machine could run."""
    return [each for each in words if not needs(each)]


def without_rights(words: Sequence[str]) -> list[str]:
    """The command as somebody whom permissions bind, as they do not bind root."""
    if os.geteuid():
        return list(words)
    return ["setpriv", "--inh-caps=-all", "--bounding-set=-all", *words]


@contextlib.contextmanager
def unwritable(place: Path) -> Iterator[None]:
    """While it lasts, permissions keep everybody but root from writing into any folder below."""
    folders = [place, *(path for path in place.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        yield
    finally:
        for folder in folders:
            folder.chmod(0o755)


def said_in_one_line(ended: subprocess.CompletedProcess, code: int) -> str:
    """What a refused command says: one line, no traceback."""
    assert ended.returncode == code, ended
    assert "Traceback" not in ended.stdout + ended.stderr, ended
    (line,) = ended.stderr.strip().splitlines()
    return line
