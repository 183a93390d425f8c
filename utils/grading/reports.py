"""From what a judge has written and how it ended to one verdict.

How it works: the first line comes before any of the learner's code runs and brings the judge's
secret; the last one, with the same secret, is the verdict. A pipe with anything else in it was
written to by the learner's code. A judge that ended without a verdict was ended by it.
"""

from __future__ import annotations

import contextlib
import json
import signal
from typing import Any

NOT_YET, NEEDS_A_LOOK = "not yet", "needs a look"
STATUSES = ("passed", NOT_YET, "not attempted", NEEDS_A_LOOK)
_ENGINE = {"raised": NOT_YET, "stopped": NOT_YET}
FORGED = "the channel of the check was written to by the answer"


def verdict(text: bytes, stopped: str, exit_code: int | None) -> dict[str, Any]:
    """{"status", "message", "looks"} for the table."""
    lines = [_parsed(line) for line in text.split(b"\n") if line]
    looks = list(lines[0].get("looks", [])) if lines else []
    final = lines[-1] if lines else {}
    secrets = {line.get("secret") for line in lines}
    if len(secrets) > 1 or len(lines) > 2 or None in secrets:
        return _row(NEEDS_A_LOOK, f"Not decided: {FORGED}.", [*looks, FORGED])
    if stopped:
        return _row(NOT_YET, stopped, looks)
    if "status" not in final:
        how = ending(exit_code) if exit_code is not None else "it closed the check's channel"
        return _row(NOT_YET, f"Your code ended its process ({how}) before the check was done.",
                    looks)  # fmt: skip
    looks += [look for look in final["looks"] if look not in looks]
    status = _ENGINE.get(final["status"], final["status"])
    return _row(status, final["message"], looks)


def _row(status: str, message: str, looks: list[str]) -> dict[str, Any]:
    """A pass that somebody should look at is none yet; what failed has failed."""
    if looks and status == "passed":
        shown = "; ".join(looks[:4])
        return {"status": NEEDS_A_LOOK, "message": f"Its check passed, but the answer {shown}.",
                "looks": looks}  # fmt: skip
    return {"status": status, "message": message, "looks": looks}


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def ending(code: int) -> str:
    """How a process ended, in words: an exit code, or minus the number of a signal."""
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"signal {signal.Signals(-code).name}"
    return f"signal {-code}"
