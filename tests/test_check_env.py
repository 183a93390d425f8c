"""utils.check_env: what it finds, what it says when something is wrong, and its exit status."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement

from utils import check_env, check_hardware
from utils.check_hardware import Finding

ROOT = Path(__file__).resolve().parent.parent
DIRECT = [
    Requirement(line)
    for line in (ROOT / "requirements.txt").read_text().splitlines()
    if line and not line.startswith("#")
]


def installed(**versions):
    """A fake `importlib.metadata.version` that knows only these packages."""

    def version(name):
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    return version


def write_requirements(folder, text="torch==2.13.0\nmatplotlib>=3.9,<4  # figures\n\n# comment\n"):
    path = folder / "requirements.txt"
    path.write_text(text)
    return path


def test_this_environment_has_every_requirement():
    answers = {finding.name: finding for finding in check_env.requirement_findings()}
    here = [each for each in DIRECT if each.marker is None or each.marker.evaluate()]
    assert set(answers) == {requirement.name for requirement in here}
    assert {finding.status for finding in answers.values()} == {"OK"}
    assert answers["torch"].text == metadata.version("torch")


def test_a_local_build_of_torch_is_the_same_version(tmp_path):
    fake = installed(torch="2.13.0+cpu", matplotlib="3.10.1")
    answers = check_env.requirement_findings(write_requirements(tmp_path), fake)
    assert [str(finding) for finding in answers] == [
        "[ OK ] torch: 2.13.0+cpu",
        "[ OK ] matplotlib: 3.10.1",
    ]


def test_missing_wrong_and_damaged_packages_fail_with_their_own_words(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/a place/python")
    monkeypatch.setattr(sys, "prefix", "/a place")
    path = write_requirements(tmp_path, "torch==2.13.0\nmatplotlib>=3.9,<4\ntqdm>=4,<5\n")
    fake = installed(torch="2.10.0", tqdm=None)
    wrong, missing, damaged = map(str, check_env.requirement_findings(path, fake))
    everything = '"/a place/python" -m pip install -r requirements.txt -c requirements-lock.txt'
    assert wrong.splitlines() == [
        "[FAIL] torch: 2.10.0 is installed, ==2.13.0 is needed",
        f"       fix: {everything}",
    ]
    assert missing.startswith("[FAIL] matplotlib: not installed, <4,>=3.9 is needed\n")
    assert missing.endswith(everything)
    assert damaged.startswith("[FAIL] tqdm: installed, but its files are damaged\n")
    assert damaged.endswith("--ignore-installed tqdm -c requirements-lock.txt")


def test_outside_a_virtual_environment_the_fix_makes_one(monkeypatch):
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    assert check_hardware.pip_install("torch").startswith("make check-env")


def test_without_packaging_or_requirements_file_it_still_answers(tmp_path, monkeypatch):
    (gone,) = check_env.requirement_findings(tmp_path / "requirements.txt")
    assert (gone.status, gone.text) == ("FAIL", "requirements.txt is missing")
    monkeypatch.setitem(sys.modules, "packaging.requirements", None)
    (unreadable,) = check_env.requirement_findings(write_requirements(tmp_path))
    assert (unreadable.status, unreadable.name) == ("FAIL", "packaging")
    assert "requirements.txt" in unreadable.fix


@pytest.mark.parametrize(
    ("version", "line"),
    [
        ((3, 10, 0), "[ OK ] Python: 3.10.0"),
        ((3, 13, 9), "[ OK ] Python: 3.13.9"),
        ((3, 14, 0), "[ OK ] Python: 3.14.0 (newer than 3.13, the last one tried)"),
        ((3, 9, 18), "[FAIL] Python: 3.9.18 is too old, 3.10 or newer is needed"),
    ],
)
def test_python_versions(version, line):
    finding = check_env.python_finding(version)
    assert str(finding).splitlines()[0] == line
    assert ("make clean-venv venv" in finding.fix) == (finding.status == "FAIL")


def test_an_old_python_is_the_only_thing_said(monkeypatch):
    monkeypatch.setattr(check_env.sys, "version_info", (3, 9, 18, "final", 0))
    (finding,) = check_env.findings()
    assert finding.status == "FAIL"


def test_memory_is_read_and_a_container_limit_counts(tmp_path):
    machine = check_hardware.memory_bytes(tmp_path)
    if machine is None:
        pytest.skip("this system does not tell its memory")
    limit_file = tmp_path / "sys/fs/cgroup/memory.max"
    limit_file.parent.mkdir(parents=True)
    limit_file.write_text("max\n")
    assert check_hardware.memory_bytes(tmp_path) == machine > 0
    limit_file.write_text("1073741824\n")
    assert check_hardware.memory_bytes(tmp_path) == 2**30


def test_memory_and_disk_in_words():
    assert str(check_hardware.memory_finding(8 * 2**30)) == "[ OK ] memory: 8.0 GiB"
    assert check_hardware.memory_finding(2**30).status == "INFO"
    assert check_hardware.memory_finding(None).text == "unknown on this system"
    assert check_hardware.disk_finding(2**20).status == "INFO"
    assert str(check_hardware.disk_finding(5 * 2**30)) == "[ OK ] disk: 5.0 GiB free"


def test_bf16_is_fast_emulated_or_unknown(tmp_path):
    fast = check_hardware.bf16_finding({"avx2", "avx512_bf16", "amx_bf16"})
    assert str(fast) == "[ OK ] bf16: fast, the processor has avx512_bf16, amx_bf16"
    emulated = check_hardware.bf16_finding({"avx2"})
    assert (emulated.status, emulated.text.split()[0]) == ("OK", "emulated")
    assert check_hardware.bf16_finding(None).status == "INFO"
    cpuinfo = tmp_path / "cpuinfo"
    assert check_hardware.cpu_flags(None, cpuinfo) is None
    cpuinfo.write_text("flags : fpu avx512_bf16\n")
    assert "avx512_bf16" in check_hardware.cpu_flags(None, cpuinfo)


def fake_cuda(names):
    cuda = SimpleNamespace(
        is_available=lambda: bool(names), device_count=lambda: len(names), get_device_name=names.get
    )
    return SimpleNamespace(cuda=cuda)


def test_gpus_by_name_none_or_not_looked_for():
    two = check_hardware.gpu_finding(fake_cuda({0: "NVIDIA H200", 1: "NVIDIA H200"}))
    assert str(two) == "[ OK ] GPU: NVIDIA H200, NVIDIA H200"
    assert check_hardware.gpu_finding(fake_cuda({})).status == "INFO"
    assert "torch cannot be imported" in check_hardware.gpu_finding(None).text


def test_a_missing_program_is_no_failure():
    finding = check_hardware.program_finding("C++", ("no-such-program",), "compiled figures")
    assert str(finding) == "[INFO] C++: not found; not needed, it adds compiled figures"
    python = check_hardware.program_finding("Python", ("no-such-program", sys.executable), "")
    assert (python.status, python.text) == ("OK", sys.executable)


def test_a_wrong_product_or_no_torch_fails(monkeypatch):
    torch, problem = check_env.import_torch()
    assert check_hardware.matmul_finding(torch, problem).status == "OK"
    monkeypatch.setattr(torch, "equal", lambda left, right: False)
    assert "came out wrong" in check_hardware.matmul_finding(torch).text
    monkeypatch.setitem(sys.modules, "torch", None)
    torch, problem = check_env.import_torch()
    answer = check_hardware.matmul_finding(torch, problem)
    assert torch is None
    assert (answer.status, bool(answer.fix)) == ("FAIL", True)
    assert "torch" in answer.text


def test_main_prints_every_line_and_answers_with_the_exit_status(capsys):
    good, bad = Finding("OK", "a", "1"), Finding("FAIL", "b", "gone", "mend it")
    assert check_env.main([good, Finding("INFO", "c", "none")]) == 0
    assert capsys.readouterr().out.splitlines()[:2] == ["[ OK ] a: 1", "[INFO] c: none"]
    assert check_env.main([good, bad]) == 1
    printed = capsys.readouterr().out.splitlines()
    assert printed[1:3] == ["[FAIL] b: gone", "       fix: mend it"]
    assert printed[3].startswith("1 of the lines above failed")


def test_the_command_runs_here_and_starts_without_any_package():
    whole = subprocess.run(
        [sys.executable, "-m", "utils.check_env"], cwd=ROOT, capture_output=True, text=True
    )
    assert whole.returncode == 0, whole.stdout + whole.stderr
    assert all(line.startswith(("[ OK ] ", "[INFO] ")) for line in whole.stdout.splitlines()[:-1])
    bare = subprocess.run(  # -S: no site-packages, as on a fresh machine
        [sys.executable, "-S", "-m", "utils.check_env"], cwd=ROOT, capture_output=True, text=True
    )
    assert (bare.returncode, bare.stderr) == (1, "")
    assert "[FAIL] packaging" in bare.stdout and "[FAIL] torch works" in bare.stdout
