"""A real mosquitto for tests: with logins, TLS and persistence, that can be killed, hung and brought back."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.certificates import Certificates
from tests.support.process import ManagedProcess, ProcessError
from tests.support.requirements import find_program

START_TIMEOUT_S = 30.0


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nothing listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class MosquittoBroker:
    """One mosquitto on 127.0.0.1. `start()` it, or use it in a `with` block."""

    host = "127.0.0.1"

    def __init__(
        self,
        folder: Path,
        *,
        login: tuple[str, str] | None = None,
        certificates: Certificates | None = None,
        requires_client_certificate: bool = False,
        is_persistent: bool = False,
        extra_config: Sequence[str] = (),
    ) -> None:
        """Keeps its files in `folder`, which is created.

        Args:
            folder: For the configuration, the password file and the database.
            login: User and password; None lets everyone in.
            certificates: Makes its port speak TLS.
            requires_client_certificate: Refuses clients without a certificate of the same authority.
            is_persistent: Writes retained messages, sessions and queued messages to disk soon after a change; what must
                outlive a `kill()` needs a `save()` before. Without it they are lost at every end.
            extra_config: Lines for mosquitto.conf.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._login = login
        self.certificates = certificates
        self._requires_client_certificate = requires_client_certificate
        self._is_persistent = is_persistent
        self._extra_config = list(extra_config)
        self._process: ManagedProcess | None = None
        self.port = 0
        """0 before the first start, then kept."""

    @property
    def process(self) -> ManagedProcess:
        """The running process; `process.lines` is its log."""
        if self._process is None:
            raise AssertionError("start() the broker first")
        return self._process

    @property
    def is_running(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.is_running

    def start(self) -> Self:
        """Starts it and waits until it listens; the first time on a free port."""
        if self.port:
            self._start_on(self.port)
            return self
        for _ in range(10):  # another process may take the port in between
            port = free_port()
            try:
                self._start_on(port)
            except ProcessError as error:
                if "Address already in use" not in str(error):
                    raise
                continue
            self.port = port
            return self
        raise ProcessError("found no free port for mosquitto")

    def kill(self) -> None:
        """Ends it without warning (SIGKILL)."""
        self.process.kill()

    def stop(self) -> None:
        """Ends it in order (SIGTERM), if it runs."""
        if self._process is not None:
            self._process.stop()

    def restart(self) -> Self:
        """Kills it if it runs, and starts it on the same port."""
        if self.is_running:
            self.kill()
        return self.start()

    def save(self, timeout_s: float = 30.0) -> None:
        """Makes a persistent broker write its database now, and waits until it is written."""
        self.process.send(signal.SIGUSR1)
        # It does one thing at a time, and looks for the signal each time after serving its clients: when it has reacted
        # to a second client, the database that followed its reaction to the first is written.
        for _ in range(2):
            client = socket.create_connection((self.host, self.port), timeout_s)
            with client, contextlib.suppress(ConnectionError):
                client.sendall(bytes(16))  # neither MQTT nor TLS: it closes the connection
                client.recv(1)

    def freeze(self) -> None:
        """Hangs it: the port accepts connections (the kernel does), nothing answers."""
        self.process.freeze()

    def thaw(self) -> None:
        """Ends `freeze()`."""
        self.process.thaw()

    def __enter__(self) -> Self:
        return self if self.is_running else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _start_on(self, port: int) -> None:
        config = self._folder / "mosquitto.conf"
        config.write_text("\n".join(self._config(port)) + "\n")
        process = ManagedProcess([find_program("mosquitto") or "mosquitto", "-c", str(config)])
        try:
            process.wait_for_line(lambda line: line.endswith(" running"), START_TIMEOUT_S)
        except ProcessError:
            process.kill()
            raise
        self._process = process

    def _config(self, port: int) -> list[str]:
        lines = [f"listener {port} {self.host}", f"persistence {'true' if self._is_persistent else 'false'}"]
        if os.geteuid() == 0:
            lines.append("user root")  # else it changes to the user "mosquitto", who cannot read a test's folder
        if self._is_persistent:
            lines += [f"persistence_location {self._folder}/", "autosave_on_changes true", "autosave_interval 1"]
        if self._login is None:
            lines.append("allow_anonymous true")
        else:
            lines += ["allow_anonymous false", f"password_file {self._write_passwords(*self._login)}"]
        if self.certificates is not None:
            lines += [
                f"cafile {self.certificates.ca}",
                f"certfile {self.certificates.server.certificate}",
                f"keyfile {self.certificates.server.key}",
                f"require_certificate {'true' if self._requires_client_certificate else 'false'}",
            ]
        return lines + self._extra_config

    def _write_passwords(self, user: str, password: str) -> Path:
        path = self._folder / "passwords"
        tool = find_program("mosquitto_passwd") or "mosquitto_passwd"
        subprocess.run([tool, "-c", "-b", str(path), user, password], check=True, capture_output=True, timeout=60)
        return path
