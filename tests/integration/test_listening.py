"""Connections that are too many: silent ones before their TLS handshake, and those that no descriptor is left for."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.access_server import PATIENCE_S, Running
from tests.support.certificates import Authority
from tests.support.waiting import until
from visaged.daemon.config.tls import TlsSettings
from visaged.daemon.http.server import Limits
from visaged.daemon.http.sockets import Listening


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True
    except (TimeoutError, BlockingIOError):
        return False


def test_connections_without_a_handshake_are_bounded(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue_server()
    tls = TlsSettings(certificate=pair.certificate, key=pair.key).context()
    trusting = ssl.create_default_context(cafile=authority.certificate)
    with Running(tls=tls, limits=Limits(connections=5)) as running, contextlib.ExitStack() as stack:
        silent = [stack.enter_context(running.raw()) for _ in range(60)]
        until(
            lambda: running.value("http_connections_cut_total", listener="http", cause="too_many") == 60 - (5 + 32),
            PATIENCE_S,
        )
        for connection in silent:
            connection.setblocking(False)
        assert not any(is_closed(connection) for connection in silent[:5])
        until(lambda: sum(is_closed(connection) for connection in silent[5:]) == 60 - (5 + 32), PATIENCE_S)
        for connection in silent:
            connection.close()

        def speaks() -> bool:
            try:
                with running.raw() as plain, trusting.wrap_socket(plain, server_hostname="localhost"):
                    return True
            except OSError:
                return False

        until(speaks, PATIENCE_S)


@contextlib.contextmanager
def no_files_left() -> Iterator[None]:
    """Use up all file descriptors of this process."""
    with contextlib.ExitStack() as stack:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        # Above all that are open: a lower limit would refuse even a descriptor that is closed and opened again.
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, highest + 64), hard))
        with contextlib.suppress(OSError):
            while True:
                stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        yield


def test_without_file_descriptors_connections_are_closed(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(5):
        caplog.clear()
        # A thread that an earlier test left in this process may take the last descriptor at that moment.
        with contextlib.suppress(BlockingIOError):
            without_file_descriptors(caplog)
            return
    pytest.fail("the last descriptor was never there")


def without_file_descriptors(caplog: pytest.LogCaptureFixture) -> None:
    refused: list[None] = []
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        Listening(listener, lambda *_: True, lambda: refused.append(None)) as listening,
        contextlib.ExitStack() as stack,
    ):
        listening.setblocking(False)
        clients = [stack.enter_context(socket.create_connection(listener.getsockname(), PATIENCE_S)) for _ in range(3)]
        with no_files_left():
            for _ in clients:
                with pytest.raises(ConnectionAbortedError):
                    listening.accept()
            with pytest.raises(BlockingIOError):
                listening.accept()
        assert all(is_closed(client) for client in clients)
        assert len(refused) == 3
        assert [record.message for record in caplog.records] == [
            "there are too many open files, so connections are closed as they come"
        ]
        with socket.create_connection(listener.getsockname(), PATIENCE_S):
            listening.accept()[0].close()
