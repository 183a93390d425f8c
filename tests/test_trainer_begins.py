"""The first seconds of `python -m utils.train`: help, one sentence under torchrun, an early Ctrl-C.

A sitecustomize.py on PYTHONPATH makes the unlucky moment come every time.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trainer_runs import call_main, words_of
from utils.recipe import TrainingRecipe
from utils.trainer import main as trainer_main
from utils.trainer.arguments import parse
from utils.trainer.command import EARLY, ERROR
from utils.trainer.group import UNDER_TORCHRUN
from utils.trainer.phrases import PHRASES, phrase
from utils.trainer.process import ROOT

LIMIT_S = 90
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
LATE_RANK_0 = "import os, time\nif os.environ.get('RANK') == '0':\n    time.sleep(1.5)\n"
CTRL_C_AT_TORCH = """
import os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
"""


def run_with(site: str, folder: Path, *words: str) -> subprocess.CompletedProcess:
    """This Python on the words, each process of which first runs `site`."""
    (folder / "sitecustomize.py").write_text(site)
    paths = os.pathsep.join([str(folder), str(ROOT)])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    return subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, timeout=LIMIT_S
    )


def test_under_torchrun_rank_0_says_what_is_wrong_however_late_it_is(tmp_path: Path) -> None:
    words = words_of(TrainingRecipe(method="ddp"), tmp_path / "run", "--learning-rate", "nan")
    ended = run_with(LATE_RANK_0, tmp_path, *TORCHRUN, "-m", "utils.train", *words)
    assert ended.returncode != 0
    said = [line for line in ended.stderr.splitlines() if ERROR in line]
    assert said == [f"{ERROR}--learning-rate must be a positive number, not nan."]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("under_torchrun", [True, False])
def test_a_rank_speaks_when_rank_0_does_not(
    under_torchrun: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when only one machine lacks a file; without torchrun nobody ends the others."""
    waited = []
    monkeypatch.setattr(trainer_main.time, "sleep", waited.append)
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(UNDER_TORCHRUN, raising=False)
    if under_torchrun:
        monkeypatch.setenv(UNDER_TORCHRUN, "none")
    recipe = TrainingRecipe(method="ddp")
    ended = call_main(words_of(recipe, tmp_path / "run", "--prediction", "nowhere.json"))
    assert ended.code == 2
    if under_torchrun:
        assert ended.err.startswith(f"{ERROR}rank 1: The prediction nowhere.json cannot be read")
    assert waited == [trainer_main.PATIENCE_S] * under_torchrun
    assert bool(ended.err) == under_torchrun


def test_ctrl_c_while_torch_is_imported_is_one_line(tmp_path: Path) -> None:
    words = words_of(TrainingRecipe(), tmp_path / "run")
    ended = run_with(CTRL_C_AT_TORCH, tmp_path, "-m", "utils.train", *words)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", EARLY)
    assert EARLY.startswith(ERROR) and not (tmp_path / "run").exists()


def test_help_has_a_phrase_and_the_default_of_every_option(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as left:
        parse(["--help"])
    assert left.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    options = re.findall(r"--(?!no-bias|no-tied|help)([a-z-]+)", said.split("options:")[0])
    assert {each.replace("-", "_") for each in options} == set(PHRASES)
    for name in PHRASES:
        assert phrase(name) in said and "None" not in phrase(name)
    for name, value in (("learning_rate", "0.002"), ("method", "single"), ("steps", "200")):
        assert phrase(name).endswith(f"(default: {value})")
