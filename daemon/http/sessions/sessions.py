"""Who is logged in.

A session is 256 random bits, of which only the SHA-256 is kept, as of keys (`visaged.daemon.http.keys`). It belongs to
the key that its user logged in with, has that key's role and limits, and ends with it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from starlette.concurrency import run_in_threadpool

from visaged.daemon.http.keys import Holder, Keyring
from visaged.daemon.http.sessions.file import KeptSession, SessionFile
from visaged.pipelines.runtime.ratelimit import LimitedLog

log = logging.getLogger(__name__)

LIFE_S = 30 * 24 * 3600
"""Seconds after its last use at which a session ends."""

MOST_EACH = 32
"""Most sessions of a key; one more ends the one that was not used for longest."""

# A session's end is moved, in the file and in the browser, no more often than this.
_RENEW_S = 24 * 3600
# Longest wait for the disk at a login or logout. The session counts at once; a disk that hangs delays its keeping.
_KEEP_S = 2.0
_BYTES = 32
_FORM = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(slots=True, eq=False)
class Session:
    """A session.

    Attributes:
        sha256: SHA-256 of its token in hexadecimal digits.
        fingerprint: Of its key; see `KeptSession`.
        holder: Holder of its key.
        used_at: When it was last used, in seconds since 1970.
        told_at: The `used_at` that the browser's cookie goes by; 0 if that is not known any more.
        ended: Set when it ends, for requests that are still in work then.
    """

    sha256: str
    fingerprint: str
    holder: Holder
    used_at: float
    told_at: float
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Sessions:
    """The sessions; used by the thread of the event loop alone.

    Args:
        keyring: The valid keys.
        folder: State folder; None keeps sessions in memory alone.
        clock: Returns seconds since 1970.

    Attributes:
        keyring: The valid keys.
    """

    def __init__(self, keyring: Keyring, folder: Path | None = None, clock: Callable[[], float] = time.time) -> None:
        self.keyring = keyring
        self._file = SessionFile(folder if keyring else None)
        self._clock = clock
        self._complain = LimitedLog(log)
        self._is_changed = False
        self._writer: asyncio.Task[None] | None = None
        fingerprints = keyring.fingerprints()
        self._sessions = {
            kept.sha256: Session(kept.sha256, kept.fingerprint, holder, kept.used_at, 0.0)
            for kept in self._file.read()
            if (holder := fingerprints.get(kept.fingerprint)) is not None
        }
        for holder in fingerprints.values():
            self._make_room(holder, MOST_EACH)

    def __len__(self) -> int:
        return len(self._sessions)

    def begin(self, holder: Holder) -> str:
        """Begin a session of a key's holder, and return its token."""
        self._make_room(holder, MOST_EACH - 1)
        token = secrets.token_urlsafe(_BYTES)
        (fingerprint,) = (mark for mark, one in self.keyring.fingerprints().items() if one is holder)
        now = self._clock()
        session = Session(_hash(token), fingerprint, holder, now, now)
        self._sessions[session.sha256] = session
        self._keep()
        return token

    def find(self, token: str) -> Session | None:
        """Return the session of a token, which is used thereby; None if there is none any more."""
        session = self._sessions.get(_hash(token)) if _FORM.fullmatch(token) else None
        if session is None:
            return None
        if self._is_over(session):
            self.end(session)
            return None
        session.used_at = self._clock()
        return session

    def renew(self, session: Session) -> bool:
        """Return whether the browser has to be told the session's new end; once a day it has."""
        if abs(session.used_at - session.told_at) < _RENEW_S:
            return False
        session.told_at = session.used_at
        self._keep()
        return True

    def end(self, session: Session) -> None:
        """End a session, and the requests by it that are in work."""
        if self._sessions.pop(session.sha256, None) is not None:
            session.ended.set()
            self._keep()

    def end_all(self, holder: Holder) -> int:
        """End all sessions of a key's holder; return their number."""
        theirs = self._of(holder)
        for session in theirs:
            self.end(session)
        return len(theirs)

    async def kept(self) -> None:
        """Wait until what has changed is on the disk, or the disk has had time enough."""
        if self._writer is not None:
            await asyncio.wait([self._writer], timeout=_KEEP_S)

    def _make_room(self, holder: Holder, most: int) -> None:
        theirs = sorted(self._of(holder), key=lambda session: session.used_at, reverse=True)
        for index, session in enumerate(theirs):
            if index >= most or self._is_over(session):
                del self._sessions[session.sha256]
                session.ended.set()

    def _of(self, holder: Holder) -> list[Session]:
        return [session for session in self._sessions.values() if session.holder is holder]

    def _is_over(self, session: Session) -> bool:
        return self._clock() - session.used_at > LIFE_S

    def _keep(self) -> None:
        """Have the file written in another thread: a disk may take its time, or hang."""
        self._is_changed = True
        if self._writer is None or self._writer.done():
            self._writer = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        while self._is_changed:
            self._is_changed = False
            kept = [
                KeptSession(session.sha256, session.holder.name, session.fingerprint, int(session.used_at))
                for session in self._sessions.values()
            ]
            try:
                await run_in_threadpool(self._file.write, kept)
            except OSError as error:
                self._complain(
                    "logins and logouts cannot be kept in the state folder: %s; a restart will undo them",
                    error.strerror or error,
                )


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
