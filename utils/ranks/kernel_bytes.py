"""What the kernel says this process has sent over its TCP connections, to the byte.

How it works: gloo's ranks talk over TCP, on one machine too. Linux counts for each connection the
bytes that the other side has confirmed, and those that wait for it; together that is what this
process has written. `/proc/self/io` gives the same sum for collectives, but counts prints and files
as well. Left out: systems that do not tell (the answer is then None), connections already closed.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys
import termios
import time
from typing import NamedTuple

# In struct tcp_info of linux/tcp.h: tcpi_bytes_acked, and a value of tcpi_state.
_BYTES_ACKED, _LISTENING = slice(120, 128), 10
_TRIES, _PAUSE_S = 200, 0.0005


def tcp_bytes_sent() -> int | None:
    """Bytes written to this process's open TCP connections so far; None where nobody counts.

    The two counters of a connection cannot be read at the same moment, so they are read until
    nothing moves: call it when no collective of this rank is under way.
    """
    if not sys.platform.startswith("linux"):
        return None
    try:
        seen = _sum()
        for _ in range(_TRIES):
            time.sleep(_PAUSE_S)
            again = _sum()
            if again == seen:
                break
            seen = again
        return seen
    except OSError:
        return None


def tcp_bytes_under_way() -> int:
    """Bytes that have left this process or come to it, and that nobody has read yet; 0 elsewhere.

    A kernel that lacks a core for its own work moves none of them, though no thread seems to run.
    """
    if not sys.platform.startswith("linux"):
        return 0
    try:
        return sum(each.unconfirmed + each.unread for each in _connections())
    except OSError:
        return 0


class _Counts(NamedTuple):
    """Bytes of one connection."""

    confirmed: int
    unconfirmed: int
    unread: int


def _sum() -> int:
    return sum(each.confirmed + each.unconfirmed for each in _connections())


def _connections() -> list[_Counts]:
    counts = (_counts(int(name)) for name in os.listdir("/proc/self/fd"))
    return [each for each in counts if each is not None]


def _counts(descriptor: int) -> _Counts | None:
    """Of a descriptor that is a TCP connection, else None."""
    try:
        copy = os.dup(descriptor)
    except OSError:  # it was the listing's own, or a thread has closed it
        return None
    try:
        connection = socket.socket(fileno=copy)
    except OSError:  # no socket
        os.close(copy)
        return None
    with connection:
        if connection.family not in (socket.AF_INET, socket.AF_INET6):
            return None
        information = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        if information[0] == _LISTENING:  # nothing is written to it
            return None
        unconfirmed, unread = (
            struct.unpack("i", fcntl.ioctl(connection, question, bytes(4)))[0]
            for question in (termios.TIOCOUTQ, termios.FIONREAD)
        )
    return _Counts(struct.unpack("Q", information[_BYTES_ACKED])[0], unconfirmed, unread)
