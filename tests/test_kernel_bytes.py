"""Bytes that are on their way between two processes keep ranks from being called stuck."""

from __future__ import annotations

import socket
import sys
import time

import pytest

from utils.ranks import kernel_bytes, whereabouts

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")


@pytest.fixture
def connection(monkeypatch):
    """Both ends of a TCP connection of this machine; others of this process do not count."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as sender:
            receiver, _ = server.accept()
            with receiver:
                names = [str(each.fileno()) for each in (server, sender, receiver)]
                monkeypatch.setattr(kernel_bytes.os, "listdir", lambda folder: names)
                yield sender, receiver


def settled(wanted):
    """Wait until the kernel has confirmed what the other end holds."""
    end_s = time.monotonic() + 30
    while kernel_bytes.tcp_bytes_under_way() != wanted and time.monotonic() < end_s:
        time.sleep(0.01)
    return kernel_bytes.tcp_bytes_under_way()


def test_what_was_sent_is_under_way_until_it_is_read(connection):
    sender, receiver = connection
    assert settled(0) == 0
    sender.sendall(bytes(1000))
    assert settled(1000) == 1000
    receiver.recv(400)
    assert settled(600) == 600
    receiver.recv(600)
    assert settled(0) == 0


def test_a_rank_with_a_message_on_its_way_may_still_act(connection):
    sender, receiver = connection
    assert not whereabouts._is_message_on_its_way()
    sender.sendall(b"x")
    assert whereabouts._is_message_on_its_way() and not whereabouts.where_now(1).alone
    receiver.recv(1)
    assert settled(0) == 0 and not whereabouts._is_message_on_its_way()
