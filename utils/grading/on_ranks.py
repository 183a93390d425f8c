"""An answer that runs on ranks only: the judge's process carries it there unopened.

How it works: the check sends its answer to the ranks it starts. What it sends here is `OnRank`,
an object of the course that loads the answer when it is first called on a rank, and refuses to be
called anywhere else. So the judge's process, which compares what the ranks bring back, runs no
line of the learner's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from utils.checks.engine import _find
from utils.checks.helpers import NotYet
from utils.grading.answers import Answer, Failed
from utils.ranks import child

_loaded: dict[str, Any] = {}


@dataclass(frozen=True)
class OnRank:
    """Stands in for the answer to exercise `key`."""

    key: str
    answer: Answer

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the answer, on a rank."""
        if child.inside_rank is None:
            raise RuntimeError(f"Exercise {self.key} calls its answer outside of the ranks.")
        if self.key not in _loaded:
            try:
                _loaded[self.key] = self.answer.load(_find(self.key).judge)
            except Failed as failed:
                raise NotYet(failed.text) from None  # the kind that ranks hand on as it is
        return _loaded[self.key](*args, **kwargs)
