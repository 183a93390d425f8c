"""Hostile submissions: what each learner hands in, and what its row must say.

Each attacks one exercise and leaves the others untouched. `BILL` is a stub whose check sends
numbers to a process apart; `CAST` one whose check has to run inside the answer's process; `CLIP`
one whose answer runs on ranks.
"""

from __future__ import annotations

from dataclasses import dataclass

BILL, CAST = ("01.1", "fine_tuning_bytes"), ("02.5", "always_in_fp32")
CLIP = ("07.4", "clip_shards")


@dataclass(frozen=True)
class Attack:
    """`body`: of the answer's function; `before`, `after`: cells around the lab."""

    body: str
    exercise: tuple[str, str] = BILL
    status: str = "not yet"
    words: str = ""
    before: str = ""
    after: str = ""
    needs_landlock: bool = False

    def source(self) -> str:
        """The cell with the answer."""
        lines = "\n".join(f"    {line}" for line in self.body.strip().split("\n"))
        return f"def {self.exercise[1]}(*args, **kwargs):\n{lines}\n"


FORGE = """
import os, json
for handle in range(3, 64):
    try:
        os.write(handle, json.dumps({"status": "passed", "looks": [], "message": "!"}).encode())
    except OSError:
        pass
os._exit(0)
"""
FORGE_WITH_SECRET = """
import gc, os
for each in gc.get_objects():
    if type(each).__name__ == "Reporter":
        each.send(looks=[], status="passed", message="forged")
os._exit(0)
"""
ORPHANS = """
import os, subprocess, time
subprocess.Popen(["sleep", "86399.25"], start_new_session=True)
if not os.fork():
    os.setsid()
    if not os.fork():
        time.sleep(86399.25)
    os._exit(0)
return 1.0
"""
FORK_BOMB = """
import os, time
for _ in range(100_000):
    if not os.fork():
        time.sleep(600)
"""
MANY_PROCESSES_HOLD_MEMORY = """
import os, time
for _ in range(8):
    if not os.fork():
        held = bytearray(os.urandom(2**20)) * 400
        time.sleep(600)
time.sleep(600)
"""
PATCHED = """
import torch
torch.equal = lambda *a: True
torch.allclose = torch.equal
Always = type("Always", (), {"__eq__": lambda *a: True})
return args[0]
"""

ATTACKS = {
    "loops": Attack("while True: pass", words="still running after"),
    "loops_in_one_call": Attack("return sum(range(10**15))", CAST, words="still running after"),
    "swallows_every_stop": Attack(
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass", CAST,
        words="still running after"),
    "exits": Attack("import sys\nsys.exit()", words="SystemExit"),
    "exits_at_once": Attack("import os\nos._exit(0)", words="ended its process (exit code 0)"),
    "exits_inside": Attack("import os\nos._exit(3)", CAST, words="ended its process (exit code 3)"),
    "crashes": Attack("import ctypes\nctypes.string_at(0)", words="SIGSEGV"),
    "kills_itself": Attack("import os\nos.kill(os.getpid(), 9)", CAST, words="SIGKILL"),
    "kills_its_judge": Attack(
        "import os\nos.kill(os.getppid(), 9)", words="PermissionError", needs_landlock=True),
    "kills_its_warden": Attack(
        "import os\nos.kill(os.getppid(), 9)", CAST, words="PermissionError", needs_landlock=True),
    "kills_everything": Attack(
        "import os\nos.kill(-1, 19)\nreturn 1.0", needs_landlock=True),
    "leaves_processes": Attack(ORPHANS, words="times what it should be"),
    "fork_bomb": Attack(FORK_BOMB, words="processes at once"),
    "wants_50_gb": Attack("return len(bytearray(50 * 10**9))", words="MemoryError"),
    "wants_it_in_processes": Attack(MANY_PROCESSES_HOLD_MEMORY, words="GiB of memory"),
    "fills_the_disk": Attack(
        "import tempfile\nwhile True:\n    open(tempfile.mkstemp()[1], 'wb').write(bytes(2**22))",
        words="MiB of files"),
    "prints_gigabytes": Attack(
        "import os\nfor _ in range(3000): os.write(1, bytes(10**6)); print('passed' * 1000)\n"
        "return 1.0", words="times what it should be"),
    "prints_a_pass": Attack(
        "print('01.1 the bill of fine-tuning: passed.')\nreturn 'passed'",
        words="must be a number"),
    "edits_the_check": Attack(
        "return 1.0", before="def check(key, answer):\n    print(key, 'passed')",
        after="check('01.1', fine_tuning_bytes)", words="times what it should be"),
    "patches_the_engine": Attack(
        "return 1.0", before="import builtins, torch, utils.checks.engine as engine\n"
        "engine.judge = engine._verdict = lambda *a: engine.Outcome('passed', 'passed')\n"
        "builtins.isinstance = lambda *a: True\ntorch.equal = lambda *a: True\nengine.os.abort()",
        words="times what it should be"),
    "patches_what_it_is_compared_with": Attack(PATCHED, CAST),
    "patches_the_judge": Attack(
        "import utils.checks.lab_02_region as lab\nlab.require = lambda *a, **k: None\n"
        "lab.NotYet = ValueError\nreturn args[0]", CAST),
    "writes_its_progress": Attack(
        "return 1.0", before="import json, pathlib\npathlib.Path('.progress.json').write_text("
        "json.dumps({'format': 1, 'exercises': {'01.1': 'passed'}}))",
        words="times what it should be"),
    "forges_the_verdict": Attack(FORGE, CAST, "needs a look", "channel of the check"),
    "forges_from_apart": Attack(FORGE),
    "forges_with_the_secret": Attack(FORGE_WITH_SECRET, CAST, "needs a look", "`gc`"),
    "sends_a_bomb": Attack(
        "class Bomb:\n    def __reduce__(self): return (exec, ('import os; os._exit(0)',))\n"
        "return Bomb()", words="must be a number, not Bomb"),
    "equals_everything": Attack(
        "class Yes(float):\n    def __eq__(self, other): return True\n"
        "    __sub__ = __rsub__ = __le__ = __lt__ = lambda *a: 0.0\nreturn Yes(1)",
        words="times what it should be"),
    "patches_its_rank": Attack(
        "import utils.checks.engine as engine, utils.checks.truth_07_clip as truth, torch\n"
        "engine.judge = engine._verdict = lambda *a: engine.Outcome('passed', 'passed')\n"
        "torch.equal = torch.allclose = lambda *a, **k: True\nreturn 1.0", CLIP),
    "exits_on_a_rank": Attack("import os\nos._exit(0)", CLIP, words="exit"),
    "sets_the_clock": Attack(
        "import time\ntime.time = time.monotonic = lambda: 0.0\n"
        "now_s = time.clock_gettime(time.CLOCK_REALTIME)\n"
        "time.clock_settime(time.CLOCK_REALTIME, now_s)", words="PermissionError"),
    "edits_torch": Attack(
        "open(__import__('torch').__file__, 'a').close()\nreturn 1.0", words="PermissionError",
        needs_landlock=True),
}  # fmt: skip
