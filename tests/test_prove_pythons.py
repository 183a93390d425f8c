"""utils.prove_pythons on made-up Pythons: what it says, what it keeps, and what it ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import pytest

from tests.fake_python import RESULTS, VERSION, calls, make_python
from utils import prove_pythons
from utils.proving.pythons import ROOT, copy_course

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the made-up Pythons are shell scripts")
HEADS = "Python torch installed check-env passed failed seconds".split()


@pytest.fixture
def says(tmp_path, monkeypatch):
    """A python3.99 on PATH that does everything well; temporary folders are made in `scratch`."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return make_python(tmp_path)


def table(capsys):
    """The printed lines, and the cells of the table's rows without the seconds."""
    lines = capsys.readouterr().out.splitlines()
    start = next(number for number, line in enumerate(lines) if line.split() == HEADS)
    return lines, [line.split()[:-1] for line in lines[start + 1 :]]


def test_a_good_python_is_a_row_and_leaves_nothing(says, tmp_path, capsys):
    assert prove_pythons.main([VERSION]) == 0
    lines, rows = table(capsys)
    assert rows == [[VERSION, "2.13.0+cpu", "yes", "ok", "2", "0"]]
    assert not list((tmp_path / "scratch").iterdir()) and "failed:" not in "\n".join(lines)
    assert len(calls(says, "--nbval")) == 1
    (install,) = calls(says, "pip install")
    assert "requirements.txt -c" in install and install.endswith("requirements-lock.txt")


def test_words_after_two_dashes_go_to_pytest_instead(says, capsys):
    assert prove_pythons.main([VERSION, "--", "-k", "memory", "tests"]) == 0
    (call,) = calls(says, "-m pytest")
    assert call.endswith("-k memory tests") and "--nbval" not in call


def test_a_missing_python_is_a_sentence_and_the_next_is_tried(says, capsys):
    assert prove_pythons.main(["3.98", VERSION]) == 1
    lines, rows = table(capsys)
    assert [line for line in lines if "there is no Python 3.98, neither as python3.98" in line]
    assert rows[0][:2] == ["3.98", "no"] and rows[1][3] == "ok"


def test_a_shim_of_another_version_is_not_taken(says, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    shutil.copy(tmp_path / "bin" / f"python{VERSION}", tmp_path / "bin/python3.98")
    assert prove_pythons.main(["3.98"]) == 1
    assert "there is no Python 3.98" in capsys.readouterr().out
    of_pyenv = tmp_path / "pyenv/versions/3.98.1/bin/python"
    of_pyenv.parent.mkdir(parents=True)
    shutil.copy(tmp_path / "bin/python3.98", of_pyenv)
    text = of_pyenv.read_text()
    of_pyenv.write_text(text.replace("echo 3.99", "echo 3.98"))
    assert prove_pythons.main(["3.98"]) == 0


@pytest.mark.parametrize(
    ("pip", "sentence"),
    [
        ("echo 'ERROR: disk full'; echo more; exit 1", "could not be installed: ERROR: disk full"),
        ("echo 'ERROR: No matching distribution found for torch==2.13.0'; exit 1",
         "the locked torch has no build for Python 3.99"),
    ],
)  # fmt: skip
def test_a_failing_installation_says_why_and_removes_the_environment(
    says, tmp_path, capsys, pip, sentence
):
    (says / "pip").write_text(pip)
    assert prove_pythons.main([VERSION]) == 1
    lines, rows = table(capsys)
    assert rows == [[VERSION, "no", "0", "0"]] and sentence in "\n".join(lines)
    assert not calls(says, "-m pytest")
    (kept,) = (tmp_path / "scratch").glob("*/3.99")
    assert (kept / "install.txt").exists() and not (kept / "venv").exists()


def test_failing_tests_are_named_and_their_log_is_kept(tmp_path, says, capsys):
    (says / "results.xml").write_text(RESULTS)
    assert prove_pythons.main([VERSION]) == 1
    lines, rows = table(capsys)
    assert rows == [[VERSION, "2.13.0+cpu", "yes", "ok", "1", "1"]]
    assert "  failed: tests/test_a.py::test_two" in lines
    assert list((tmp_path / "scratch").glob("*/3.99/pytest.txt"))


def test_a_pytest_without_results_or_without_tests_is_a_failure(says, capsys):
    (says / "pytest").write_text("echo 'ImportError: gone'; exit 4")
    assert prove_pythons.main([VERSION]) == 1
    assert "pytest ended with status 4 and no results: ImportError: gone" in capsys.readouterr().out
    (says / "pytest").write_text('echo "<testsuites/>" > "$xml"; exit 5')
    assert prove_pythons.main([VERSION]) == 1


def test_another_torch_is_asked_for_beside_the_copy(says, tmp_path, capsys):
    folder = tmp_path / "kept"
    (says / "check").write_text("echo '[FAIL] torch: 2.11.0 is installed, ==2.13.0 is needed'\n"
                                "exit 1")  # fmt: skip
    assert prove_pythons.main([VERSION, "--torch", "2.11.0", "--folder", str(folder)]) == 0
    assert table(capsys)[1] == [[VERSION, "2.11.0", "yes", "other", "torch", "2", "0"]]
    for name in ("requirements.txt", "requirements-lock.txt"):
        assert "\ntorch==2.11.0\n" in (folder / VERSION / name).read_text()
        assert (folder / VERSION / "course" / name).read_bytes() == (ROOT / name).read_bytes()
    assert prove_pythons.main([VERSION, "--folder", str(folder)]) == 1  # nobody asked for 2.11
    (says / "check").write_text("echo '[FAIL] torch: 2.11.0'; echo '[FAIL] numpy: old'; exit 1")
    assert prove_pythons.main([VERSION, "--torch", "2.11.0", "--folder", str(folder)]) == 1


def test_a_kept_environment_is_used_again_and_the_copy_is_fresh(says, tmp_path, capsys):
    words = [VERSION, "--folder", str(tmp_path / "kept")]
    assert prove_pythons.main(words) == 0
    stale = tmp_path / "kept" / VERSION / "course/stale.txt"
    stale.touch()
    assert prove_pythons.main(words) == 0
    assert len(calls(says, "-m venv")) == 1 and not stale.exists()


@pytest.mark.parametrize("words", [[], ["2.7"], ["3.12.1"], ["3.12", "--torch", "new"]])
def test_what_cannot_be_asked_is_said(words, capsys):
    with pytest.raises(SystemExit) as ended:
        prove_pythons.main(words)
    assert ended.value.code == 2 and "usage:" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_a_sentence(says, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert prove_pythons.main([VERSION, "--folder", str(tmp_path / "file/folder")]) == 2
    assert "name another with --folder" in capsys.readouterr().err


def test_ctrl_c_ends_what_runs_and_removes_the_folder(says, tmp_path):
    (says / "pytest").write_text('echo $$ > "$says/new"; mv "$says/new" "$says/pid"; sleep 600')
    command = [sys.executable, "-m", "utils.prove_pythons", VERSION]
    environment = {**os.environ, "TMPDIR": str(tmp_path / "scratch")}
    asked = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    try:
        while not (says / "pid").exists():
            assert asked.poll() is None
            time.sleep(0.05)
        asked.send_signal(signal.SIGINT)
        assert asked.wait() == 130
    finally:
        asked.kill()
    with pytest.raises(ProcessLookupError):
        os.kill(int((says / "pid").read_text()), 0)
    assert not list((tmp_path / "scratch").iterdir())


@pytest.mark.parametrize("has_git", [True, False])
def test_a_copy_leaves_out_what_is_made_here(tmp_path, has_git):
    if has_git and shutil.which("git") is None:
        pytest.skip("git is not installed")
    source = tmp_path / "course"
    kept = {"a b.txt", "utils/slides/x.py", ".gitignore"}
    for name in (*kept, ".venv/bin/python", "slides/x.html"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    (source / ".gitignore").write_text("/.venv/\n/slides/\n")
    if has_git:
        subprocess.run(["git", "init", "-q", str(source)], check=True)
    copy = copy_course(tmp_path / "copy", source)
    files = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
    assert files == kept
