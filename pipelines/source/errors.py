"""Failures of a source, with a text for people and one word for metrics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import av.error

from visaged.pipelines.runtime.redact import redact
from visaged.pipelines.source.config import SourceConfig


class SourceError(Exception):
    """A source cannot be opened, or broke. The text says why, without credentials.

    Attributes:
        cause: One word for metrics: refused, unauthorized, not_found, redirected, certificate, timeout, unreachable,
            invalid, too_large, ended, device, other.
    """

    def __init__(self, cause: str, text: str) -> None:
        super().__init__(text)
        self.cause = cause


_CAUSES: tuple[tuple[type[Exception], str, str], ...] = (
    (av.error.HTTPUnauthorizedError, "unauthorized", "refused the user or password (401)"),
    (av.error.HTTPForbiddenError, "unauthorized", "refused access (403)"),
    (av.error.HTTPNotFoundError, "not_found", "has no such stream (404)"),
    (av.error.HTTPOtherClientError, "refused", "refused the request (4xx); an RTSP camera without video answers so"),
    (av.error.HTTPError, "refused", "answered with an error"),
    (av.error.ConnectionRefusedError, "refused", "refused the connection: nothing listens at this port"),
    (av.error.ExitError, "timeout", "did not answer in time"),
    (av.error.TimeoutError, "timeout", "did not answer in time"),
    (av.error.InvalidDataError, "invalid", "sent something that is no video"),
    (av.error.EOFError, "ended", "closed the connection"),
    (av.error.FileNotFoundError, "not_found", "does not exist"),
    (av.error.PermissionError, "device", "may not be opened: permission denied"),
    (BlockingIOError, "timeout", "did not answer in time"),
    (ConnectionError, "refused", "broke the connection"),
)


def certificate_refused(config: SourceConfig, reason: str) -> SourceError:
    """Return the error for a camera whose certificate is not accepted.

    Args:
        config: The source.
        reason: Why, as TLS libraries say it.
    """
    return SourceError(
        "certificate",
        f"{config.shown_url} has a certificate that is not accepted ({reason.rstrip('.')}), so nothing was sent: "
        "name the authority that it comes from, or the certificate itself, in the camera's tls.ca_file; "
        "tls.verify: false accepts any",
    )


# Causes and texts for files, where the texts above do not fit.
_FILE_CAUSES: tuple[tuple[type[Exception], str, str], ...] = (
    (av.error.InvalidDataError, "invalid", "is not a video, or is damaged"),
    (av.error.EOFError, "invalid", "ends before its first picture"),
    (PermissionError, "not_found", "may not be read: permission denied"),
)


@contextmanager
def blaming(config: SourceConfig, *, opened: bool) -> Iterator[None]:
    """Turn any exception into a `SourceError`: a camera must never end the daemon."""
    try:
        yield
    except SourceError:
        raise
    except Exception as error:
        raise explain(error, config, opened) from None


def explain(error: Exception, config: SourceConfig, opened: bool) -> SourceError:
    """Return the error for an exception. FFmpeg's own texts repeat the URL with its password, so they are not used."""
    where = config.shown_url
    if config.address.scheme == "rtp" and isinstance(error, av.error.InvalidDataError):
        return SourceError(
            "invalid", f"{where} sends what only its SDP describes; save that as a .sdp file, and name it"
        )
    if isinstance(error, av.error.ArgumentError) and config.address.kind != "device" and not opened:
        # FFmpeg knows what this is, and may not open it.
        return SourceError(
            "invalid",
            f"{where} is no video, or a list of other files or hosts; playlists are played where their name "
            "ends in .m3u8, .m3u or .mpd, or with the camera's format",
        )
    for kind, cause, text in (*_FILE_CAUSES, *_CAUSES) if config.is_file else _CAUSES:
        if isinstance(error, kind):
            return SourceError(cause, f"{where} {text}")
    if not isinstance(error, av.error.FFmpegError | OSError):
        return SourceError("other", f"{where} failed: {type(error).__name__}: {redact(str(error))[:200]}")
    reason = redact(str(getattr(error, "strerror", None) or type(error).__name__))
    if config.address.kind == "device":
        what = "stopped sending" if opened else "cannot be opened"
        hint = "" if opened else " (is another program using it?)"
        return SourceError("device", f"{where} {what}: {reason}{hint}")
    if config.is_file:
        return SourceError("invalid", f"{where} cannot be read: {reason}")
    if opened:
        return SourceError("timeout", f"{where} stopped sending: {reason}")
    cause = "unreachable" if isinstance(error, OSError) else "other"
    return SourceError(cause, f"{where} cannot be opened: {reason}; check host, port and path")
