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


def _sum() -> int:
    return sum(_written(int(name)) for name in os.listdir("/proc/self/fd"))


def _written(descriptor: int) -> int:
    """Bytes written to a descriptor if it is a TCP connection, else 0."""
    try:
        copy = os.dup(descriptor)
    except OSError:  # it was the listing's own, or a thread has closed it
        return 0
    try:
        connection = socket.socket(fileno=copy)
    except OSError:  # no socket
        os.close(copy)
        return 0
    with connection:
        if connection.family not in (socket.AF_INET, socket.AF_INET6):
            return 0
        information = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        if information[0] == _LISTENING:  # nothing is written to it
            return 0
        (waiting,) = struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))
    (confirmed,) = struct.unpack("Q", information[_BYTES_ACKED])
    return confirmed + waiting
