"""Ranks in a notebook: `run_ranks` runs a function on several processes of this machine.

Around it, for use inside a worker: `TrafficLedger` counts collectives and bytes, `EventLog` records
who worked when, `SlowLink` makes a collective as slow as a slow network, and
`utils.ranks.collectives` calls the collectives that torch renamed.
"""

from utils.ranks.cores import cores_sentence
from utils.ranks.events import Event, EventLog
from utils.ranks.launch import run_ranks, warm_up
from utils.ranks.ledger import TrafficLedger, TrafficRow
from utils.ranks.report import RankError
from utils.ranks.slow_link import SlowLink

__all__ = [
    "Event",
    "EventLog",
    "RankError",
    "SlowLink",
    "TrafficLedger",
    "TrafficRow",
    "cores_sentence",
    "run_ranks",
    "warm_up",
]
