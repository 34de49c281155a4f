"""A daemon as a member of a fleet: it holds the cameras that orders grant it, and reports how they do.

Nothing here knows Ray. Whoever runs a member sends its reports to the coordinator, and hands it the answers:

    member = Member(document, "harbour-1", version)     # the state folder is held from here on
    member.join(coordinator.join(member.report(), ...)) # the networks are loaded
    thread: member.run()
    every lease_s / 6: sent_s = member.now(); member.obey(coordinator.heartbeat(member.report(), member.config_version), sent_s)
    member.stop()
"""  # noqa: E501

from __future__ import annotations

from typing import Any

from visaged.daemon.fleet.records import Joined, NodeReport, Orders


class Member:
    """A daemon that is a node of a fleet.

    Args:
        document: The configuration as plain data, as in the file: with `fleet`, without the node's overrides. Its
            cameras do not matter: a node runs those that it is granted.
        node: Name of this node.
        version: Version of the program.

    Raises:
        SettingsError: The configuration cannot be used on this node; names every problem by the path of its key.
        StartError: The state folder is in use by another process, or can never be used.

    Attributes:
        incarnation: Number of this run, larger than those of earlier runs with the same state folder.
        home: Tells the state folder from all others.
        config_version: Version of the configuration that was told last.
    """

    def __init__(self, document: dict[str, Any], node: str, version: str) -> None:
        self.incarnation = 0
        self.home = ""
        self.config_version = ""

    def join(self, joined: Joined) -> None:
        """Build the daemon, with what the coordinator says; takes seconds, as networks are loaded.

        Raises:
            SettingsError, StartError: The node cannot take part; the text says why.
        """
        raise NotImplementedError

    def run(self) -> int:
        """Run until `stop` is called or a part dies; return the exit code, 0 or 1. Must be called after `join`.

        It ends within `app.STOP_S` of `stop`. Raises `StartError` if the daemon cannot start.
        """
        raise NotImplementedError

    def now(self) -> float:
        """Return seconds of the clock by which leases end; to be read before a report is sent, for `obey`."""
        raise NotImplementedError

    def report(self) -> NodeReport:
        """Return what this node says of itself; from any thread, also before `join`. Cheap."""
        raise NotImplementedError

    def obey(self, orders: Orders, sent_s: float) -> None:
        """Do what the coordinator answered; from any thread. Returns at once: cameras change in the daemon's thread.

        Args:
            orders: The answer.
            sent_s: What `now` returned before the report was sent.
        """
        raise NotImplementedError

    def stop(self) -> None:
        """Ask the daemon to end; from any thread, or a signal handler. Reports say `leaving` from now on."""
        raise NotImplementedError

    def close(self) -> None:
        """Let the state folder go; only after `run` has returned, or instead of it."""
        raise NotImplementedError
