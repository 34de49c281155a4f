"""Who may stay connected to the embedded broker, and whether it is the daemon itself."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterator

from visaged.daemon.broker.connection import Connection
from visaged.daemon.broker.exchange import Exchange
from visaged.daemon.broker.limits import Limits
from visaged.daemon.broker.packets import Answer, Connect

_VERSION = 4
_MOST_ID_CHARS = 256


class Places:
    """The places for connections.

    The daemon's own clients are known by a login. They always find a place, and nobody takes their client ids away.

    Args:
        exchange: Where clients publish.
        limits: Bounds of the broker.
        login: User name and password of the daemon's own clients.
    """

    def __init__(self, exchange: Exchange, limits: Limits, login: tuple[str, str]) -> None:
        self._exchange, self._limits, self._login = exchange, limits, login
        self._strangers: dict[Connection, None] = {}  # in the order in which they came
        self._clients: dict[tuple[bool, str], Connection] = {}  # by whether they are the daemon's, and by id

    def __len__(self) -> int:
        return len(self._strangers) + len(self._clients)

    def __iter__(self) -> Iterator[Connection]:
        return iter([*self._strangers, *self._clients.values()])

    def came(self, connection: Connection) -> None:
        """Note a connection that has not sent CONNECT yet; the oldest one makes room for it."""
        if len(self._strangers) >= self._limits.strangers:
            oldest = next(iter(self._strangers))
            self._exchange.complain("strangers", "closes the connection of %s for a newer one", oldest)
            del self._strangers[oldest]
            oldest.abort()
        self._strangers[connection] = None

    def admits(self, connection: Connection, connect: Connect) -> Answer:
        """Return the answer to CONNECT; if it is `ACCEPTED`, the connection has its place and its id."""
        answer = self._examine(connection, connect)
        if answer is not Answer.ACCEPTED:
            return answer
        key = (connection.is_own, connect.client_id or secrets.token_hex(8))
        before = self._clients.get(key)
        if before is not None:
            self._exchange.complain("taken over", "disconnects %s for a newer one with its client id", before)
            before.abort()
        elif not connection.is_own and not self._has_room(connection):
            return Answer.UNAVAILABLE
        self._strangers.pop(connection, None)
        self._clients[key] = connection
        connection.client_id = key[1]
        return answer

    def went(self, connection: Connection) -> None:
        """Note the end of a connection."""
        self._strangers.pop(connection, None)
        key = (connection.is_own, connection.client_id)
        if self._clients.get(key) is connection:
            del self._clients[key]

    def _examine(self, connection: Connection, connect: Connect) -> Answer:
        """Return what is to be said of a CONNECT by itself, and note whether it is the daemon's."""
        if connect.version != _VERSION:
            text = "refused %s, which speaks MQTT with version number %d; only MQTT 3.1.1 (number 4) is spoken here"
            self._exchange.complain("version", text, connection, connect.version)
            return Answer.BAD_VERSION
        if len(connect.client_id) > _MOST_ID_CHARS or not (connect.client_id or connect.clean):
            return Answer.BAD_CLIENT_ID
        connection.is_own = self._is_own(connect)
        if connect.will is not None:
            topic = connect.will.topic
            is_valid = self._exchange.is_valid(topic, connection.is_own)
            if not is_valid or not self._exchange.may_publish(connection, topic):
                self._exchange.complain("will", "refused %s for its last will's topic, %r", connection, topic[:40])
                return Answer.NOT_AUTHORIZED
        return Answer.ACCEPTED

    def _has_room(self, newcomer: Connection) -> bool:
        """Return whether there is a place for one more client, for which one that is silent or behind has to go."""
        others = [one for (is_own, _), one in self._clients.items() if not is_own]
        if len(others) < self._limits.clients:
            return True
        silent, behind = max(others, key=lambda one: one.silent_s), max(others, key=lambda one: one.behind_s)
        if silent.silent_s >= self._limits.silent_s:
            leaver, why = silent, "is silent"
        elif behind.behind_s >= self._limits.behind_s:
            leaver, why = behind, "sends more than there is time for"
        else:
            self._exchange.complain("full", "refused %s: %d are connected", newcomer, len(others))
            return False
        self._exchange.complain(why, "disconnects %s, which %s, for a newer one", leaver, why)
        leaver.abort()
        del self._clients[leaver.is_own, leaver.client_id]
        return True

    def _is_own(self, connect: Connect) -> bool:
        name, password = connect.login
        return name == self._login[0] and hmac.compare_digest(password or b"", self._login[1].encode())
