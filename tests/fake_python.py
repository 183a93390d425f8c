"""A `python3.99` made of shell: makes environments, installs, checks and tests as a test asks.

It looks into the folder `says` beside it: `pip`, `check` and `pytest` hold shell to run there
instead of what goes well. Each call is a line in `calls`.
"""

from __future__ import annotations

from pathlib import Path

VERSION = "3.99"
CASE = '<testcase file="tests/test_a.py" classname="tests.test_a" name="test_{}" time="1">'
RESULTS = (
    f"<testsuites><testsuite>{CASE.format('one')}</testcase>{CASE.format('two')}<failure/>"
    "</testcase></testsuite></testsuites>"
)
SCRIPT = """#!/bin/sh
says="{says}"
echo "$*" >> "$says/calls"
words="$*"
answer() {{ if [ -e "$says/$1" ]; then . "$says/$1"; exit; fi; }}
case "$words" in
    *sys.version_info*) echo {version} ;;
    *"-m venv"*) mkdir -p "$4/bin"; cp "$0" "$4/bin/python" ;;
    *"pip install"*) answer pip ;;
    *check_env*) answer check; echo "[ OK ] torch: 2.13.0+cpu" ;;
    *pytest*)
        for word in "$@"; do case $word in --junitxml=*) xml="${{word#--junitxml=}}" ;; esac; done
        answer pytest
        cat "$says/results.xml" > "$xml" ;;
esac
"""


def make_python(folder: Path) -> Path:
    """Writes bin/python3.99 and its folder `says`, which is returned; test_two passes."""
    says, scripts = folder / "says", folder / "bin"
    says.mkdir()
    scripts.mkdir()
    (says / "results.xml").write_text(RESULTS.replace("<failure/>", ""))
    script = scripts / f"python{VERSION}"
    script.write_text(SCRIPT.format(says=says, version=VERSION))
    script.chmod(0o755)
    return says


def calls(says: Path, part: str) -> list[str]:
    """What it was called with, of the calls that hold this part."""
    lines = (says / "calls").read_text().splitlines()
    return [line for line in lines if part in line]
