"""The traffic of one rank: collectives by kind, their calls and their bytes, counted twice.

How it works: `with TrafficLedger() as ledger:` inside a worker listens to every collective of the
process (`utils.ranks.recorder`), adds up what gloo writes for it by formula (`gloo_bytes`), and
asks the kernel for the bytes really written (`kernel_bytes`). Both agree to the byte when each
collective begun inside also ends inside. Library code is counted like hand-written code.

Left out: what a group's making costs; NCCL's bytes, which are an estimate by the textbook.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

from utils.ranks.gloo_bytes import textbook_bytes

if TYPE_CHECKING:
    from utils.ranks.calls import Call  # with torch, which the ledger alone does not need


class TrafficRow(NamedTuple):
    """One kind of collective on one rank; plain numbers, so a worker can return them.

    `payload_bytes` is the tensors' size as `utils.ranks.calls.Call` defines it, `bytes_sent` what
    this rank wrote of them, `textbook_bytes` what would have been enough as a mean over ranks, and
    `envelope_bytes` what gloo wrote around them.
    """

    kind: str
    calls: int = 0
    payload_bytes: int = 0
    bytes_sent: int = 0
    textbook_bytes: float = 0.0
    envelope_bytes: int = 0


class TrafficLedger:
    """`with TrafficLedger() as ledger: ...`, then `ledger.rows()`, `ledger.bytes_sent`."""

    def __init__(self) -> None:
        self._rows: dict[str, TrafficRow] = {}
        self._lock = threading.Lock()  # a helper thread may send too
        self._before: int | None = None
        self._after: int | None = None
        self._listening = False

    def __enter__(self) -> TrafficLedger:
        from utils.ranks import recorder  # imports torch

        if self._listening:
            raise RuntimeError("This TrafficLedger is already open: make one for each `with`.")
        self._before, self._after = self._kernel(), None
        recorder.listen(self._add)
        self._listening = True
        return self

    def __exit__(self, *error: object) -> None:
        from utils.ranks import recorder

        recorder.stop_listening(self._add)
        self._listening = False
        self._after = self._kernel()

    def rows(self) -> list[TrafficRow]:
        """One row for each kind of collective, in the order of first use."""
        with self._lock:
            return list(self._rows.values())

    @property
    def calls(self) -> dict[str, int]:
        """Calls by kind, such as {"all_reduce": 3}."""
        return {row.kind: row.calls for row in self.rows()}

    @property
    def bytes_sent(self) -> int:
        """Bytes of tensors that this rank wrote, by the formulas of gloo's algorithms."""
        return sum(row.bytes_sent for row in self.rows())

    @property
    def envelope_bytes(self) -> int:
        """Bytes that gloo wrote around them: 48 for each envelope, whatever the tensor's size."""
        return sum(row.envelope_bytes for row in self.rows())

    def kernel_bytes_sent(self) -> int | None:
        """Bytes that the kernel saw this rank write, tensors and envelopes; None if it can't tell.

        Prints and files do not count, other TCP connections of the process do.
        """
        after = self._kernel() if self._listening else self._after
        if after is None or self._before is None:
            return None
        return after - self._before

    @staticmethod
    def _kernel() -> int | None:
        from utils.ranks.kernel_bytes import tcp_bytes_sent  # only where there is fcntl

        return tcp_bytes_sent()

    def _add(self, call: Call) -> None:
        textbook = textbook_bytes(call.kind, call.payload_bytes, call.group_size)
        data_bytes = call.sent.data_bytes if call.backend == "gloo" else round(textbook)
        with self._lock:
            row = self._rows.get(call.kind, TrafficRow(call.kind))
            self._rows[call.kind] = TrafficRow(
                call.kind,
                row.calls + 1,
                row.payload_bytes + call.payload_bytes,
                row.bytes_sent + data_bytes,
                row.textbook_bytes + textbook,
                row.envelope_bytes + call.sent.envelope_bytes,
            )
