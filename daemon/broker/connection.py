"""One client's connection to the embedded broker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from visaged.daemon.broker import packets
from visaged.daemon.broker.exchange import Exchange
from visaged.daemon.broker.limits import UNIT_BYTES, Limits
from visaged.daemon.broker.outgoing import Outgoing
from visaged.daemon.broker.packets import Answer, Connect, Kind, Packet, ProtocolError, Publish
from visaged.daemon.broker.turns import Turns

log = logging.getLogger(__name__)

_SHOWN = 40


class Places(Protocol):
    """The places for connections."""

    def came(self, connection: Connection) -> None:
        """Note a connection that has not sent CONNECT yet."""
        ...

    def admits(self, connection: Connection, connect: Connect) -> Answer:
        """Answer CONNECT: decide whether the client may stay, and whether it is the daemon itself."""
        ...

    def went(self, connection: Connection) -> None:
        """Note the end of a connection."""
        ...


class Connection(asyncio.Protocol):
    """The server's side of a connection, from its first byte to its end.

    Args:
        places: Decides who may stay.
        exchange: Passes messages on.
        turns: Shares out the time of the broker.
        limits: Bounds of the broker.
        clock: Returns monotonic seconds.
        call_later: Calls a function after some seconds.

    Attributes:
        client_id: Client identifier; empty before CONNECT.
        is_own: Whether the client is the daemon itself.
        outgoing: What waits for the client.
        filters: The client's filters with their QoS.
    """

    def __init__(
        self,
        places: Places,
        exchange: Exchange,
        turns: Turns,
        limits: Limits,
        clock: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self._places, self._exchange, self._turns, self._limits = places, exchange, turns, limits
        self._clock, self._call_later = clock, call_later
        self._complain = exchange.complain
        self._transport: asyncio.Transport | None = None  # None before the connection and after its end
        self._peer = "?"
        self._buffer = bytearray()
        self._answers: list[bytes] = []
        self._connect: Connect | None = None
        self._will: Publish | None = None
        self._unreleased: set[int] = set()
        self._units = float(limits.turn)
        self._is_waiting = False
        self._is_sending_later = False
        now_s = clock()
        self._counted_s = self._came_s = self._packet_s = self._began_s = now_s
        # Since when packets wait for turns, the socket is full, messages wait for acknowledgements, and the connection
        # is being closed.
        self._behind_s: float | None = None
        self._full_s: float | None = None
        self._held_s: float | None = None
        self._closing_s: float | None = None
        self.client_id, self.is_own = "", False
        self.outgoing = Outgoing(exchange.retained, exchange.backlog, limits)
        self.filters: dict[str, int] = {}

    def __str__(self) -> str:
        return f"client {self.client_id[:_SHOWN]!r} at {self._peer}" if self._connect else f"a client at {self._peer}"

    @property
    def silent_s(self) -> float:
        """Seconds since the last packet of the client."""
        return self._clock() - self._packet_s

    @property
    def behind_s(self) -> float:
        """Seconds for which packets of the client have been waiting for turns without a break."""
        return 0.0 if self._behind_s is None else self._clock() - self._behind_s

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; called by asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(self._limits.buffer_bytes)
        peer = transport.get_extra_info("peername")
        self._peer = f"{peer[0]}:{peer[1]}" if peer else "?"
        self._places.came(self)

    def connection_lost(self, error: Exception | None) -> None:
        """End: publish the last will unless the client signed off; called by asyncio."""
        self._transport = None
        self._turns.leave(self._go_on)
        self._exchange.unsubscribe(self, list(self.filters))
        self.outgoing.clear()
        self._places.went(self)
        will, self._will = self._will, None
        if will is not None:
            self._exchange.publish(self, will)

    def data_received(self, data: bytes) -> None:
        """Handle what came in; called by asyncio."""
        if not self._buffer:
            self._began_s = self._clock()
        self._buffer += data
        self._work()

    def pause_writing(self) -> None:
        """Note that the client does not read; called by asyncio."""
        self._full_s = self._clock()

    def resume_writing(self) -> None:
        """Go on sending to a client that reads again; called by asyncio."""
        self._full_s = None
        self.send()
        self._work()

    def send(self) -> None:
        """Send what waits for the client, as far as it takes it."""
        self._flush()
        self._units -= self.outgoing.look_up()
        size = 0
        for _ in range(self._limits.turn):
            packet = self.outgoing.next() if self._is_writable and size < self._limits.buffer_bytes else None
            if packet is None:
                break
            size += len(packet)
            self._write(packet)
        self._flush()
        if not self._is_writable:
            return
        if self.outgoing.has_more and not self.outgoing.is_held_up and not self._is_sending_later:
            self._is_sending_later = True
            self._call_later(0.0, self._send_later)

    def check(self) -> None:
        """Close the connection if the client has let a deadline pass."""
        now_s, limits = self._clock(), self._limits
        self._held_s = (self._held_s or now_s) if self.outgoing.is_held_up else None
        if self._closing_s is not None:
            if now_s - self._closing_s > limits.unread_s:
                self.abort()
        elif self._full_s is not None and now_s - self._full_s > limits.unread_s:
            self._end("unread", "disconnects %s, which does not read", self)
        elif self._connect is None:
            if now_s - self._came_s > limits.connect_s:
                self._end("deadline", "closes the connection of %s, which sent no CONNECT", self)
        elif self._is_waiting:
            return  # for its turn, and so cannot be silent
        elif self._buffer and now_s - self._began_s > limits.packet_s:
            self._end("deadline", "disconnects %s, which sends a packet too slowly", self)
        elif self._connect.keepalive_s and now_s - self._packet_s > 1.5 * self._connect.keepalive_s:
            self._end("keepalive", "disconnects %s, which is silent beyond its keep-alive", self)
        elif self._held_s is not None and now_s - self._held_s > limits.unacknowledged_s:
            self._end("unacknowledged", "disconnects %s, which acknowledges no messages", self)

    def close(self, with_will: bool = True) -> None:
        """Close the connection as soon as the client has read what was sent to it, or has had the time to.

        Args:
            with_will: Whether its last will is published then.
        """
        if not with_will:
            self._will = None
        self._flush()
        if self._transport is not None and self._closing_s is None:
            self._closing_s = self._clock()
            self._transport.close()

    def abort(self) -> None:
        """Close the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def _end(self, kind: str, text: str, *args: object) -> None:
        self._complain(kind, text, *args)
        self.abort()

    def _send_later(self) -> None:
        self._is_sending_later = False
        self.send()

    def _work(self) -> None:
        """Handle packets in the buffer until it has no whole one, or the client has used up its turn."""
        try:
            while self._is_writable:
                if not self._has_turn():
                    return
                packet = packets.take(self._buffer, self._most_bytes)
                if packet is None:
                    self._behind_s = None
                    break
                self._packet_s = self._began_s = self._clock()
                self._units -= 1 + len(packet.body) // UNIT_BYTES
                self._handle(packet)
        except ProtocolError as error:
            self._end("protocol", "disconnects %s: %s", self, error)
        except Exception:
            self.abort()
            raise
        finally:
            self._flush()
        if self._transport is not None and self._is_open:
            self._transport.resume_reading() if self._full_s is None else self._transport.pause_reading()

    @property
    def _is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    @property
    def _is_writable(self) -> bool:
        return self._is_open and self._full_s is None

    def _has_turn(self) -> bool:
        """Return whether the client may cause work now; if not, its socket is not read until it may."""
        now_s, limits = self._clock(), self._limits
        self._units = min(float(limits.turn), self._units + (now_s - self._counted_s) * limits.own_units_per_s)
        self._counted_s = now_s
        if self._units > 0:
            return True
        if not self._is_waiting and self._transport is not None:
            self._is_waiting = True
            self._behind_s = self._behind_s or now_s
            self._transport.pause_reading()
            if self.is_own:  # the daemon's messages are not slowed down; others only have their turn in between
                self._call_later(0.0, self._go_on)
            else:
                self._turns.wait(self._go_on)
        return False

    def _go_on(self) -> None:
        self._is_waiting = False
        # Work that was more than a turn has to be paid off with later ones.
        self._units = self._limits.turn if self.is_own else self._units + self._limits.turn
        self._work()

    def _most_bytes(self, kind: Kind) -> int:
        if kind is not Kind.PUBLISH:
            return self._limits.control_bytes
        return self._limits.own_message_bytes if self.is_own else self._limits.message_bytes

    def _handle(self, packet: Packet) -> None:
        if self._connect is None:
            if packet.kind is not Kind.CONNECT:
                raise ProtocolError(f"its first packet is {packet.kind.name} and not CONNECT")
            self._open(packets.read_connect(packet))
            return
        match packet.kind:
            case Kind.PUBLISH:
                self._publish(packets.read_publish(packet))
            case Kind.PUBACK:
                if self.outgoing.acknowledge(packets.read_number(packet)):
                    self._held_s = None
                    self.send()
            case Kind.PUBREL:
                number = packets.read_number(packet)
                self._unreleased.discard(number)
                self._write(packets.numbered(Kind.PUBCOMP, number))
            case Kind.SUBSCRIBE:
                self._subscribe(*packets.read_subscribe(packet))
            case Kind.UNSUBSCRIBE:
                number, filters = packets.read_unsubscribe(packet)
                self._units -= len(filters)
                self._exchange.unsubscribe(self, filters)
                self._write(packets.numbered(Kind.UNSUBACK, number))
            case Kind.PINGREQ:
                self._write(packets.empty(Kind.PINGRESP))
            case Kind.DISCONNECT:
                self.close(with_will=False)
            case _:
                raise ProtocolError(f"clients do not send {packet.kind.name} packets here")

    def _open(self, connect: Connect) -> None:
        answer = self._places.admits(self, connect)
        self._write(packets.connack(answer, connect.version))
        if answer is Answer.ACCEPTED:
            self._connect, self._will = connect, connect.will
        else:
            self.close()

    def _publish(self, message: Publish) -> None:
        if not self._exchange.is_valid(message.topic, self.is_own):
            raise ProtocolError("a message has a topic that is empty, too long, or has wildcards")
        if not self._exchange.may_publish(self, message.topic):
            text = "dropped a message of %s to %r: only the daemon publishes there"
            self._complain("forged", text, self, message.topic[:_SHOWN])
        elif message.number not in self._unreleased or message.qos < 2:
            self._units -= self._exchange.publish(self, message)
        if message.qos == 1:
            self._write(packets.numbered(Kind.PUBACK, message.number))
        elif message.qos == 2:
            self._unreleased.add(message.number)
            if len(self._unreleased) > self._limits.unreleased:
                raise ProtocolError(f"it has more than {self._limits.unreleased} QoS 2 messages on their way")
            self._write(packets.numbered(Kind.PUBREC, message.number))

    def _subscribe(self, number: int, wanted: list[tuple[str, int]]) -> None:
        self._units -= len(wanted)
        self._write(packets.suback(number, [self._exchange.subscribe(self, text, qos) for text, qos in wanted]))
        self.send()

    def _write(self, packet: bytes) -> None:
        self._answers.append(packet)

    def _flush(self) -> None:
        """Write the answers that were collected, at once because each writing takes as long as many packets."""
        answers, self._answers = self._answers, []
        if answers and self._transport is not None and self._is_open:
            self._transport.write(b"".join(answers))
