"""How far a camera's URL reaches: opens it, where it redirects to, and what its playlist names, if that is allowed."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

import av
from av.container import InputContainer

from visaged.pipelines.runtime.redact import with_credentials
from visaged.pipelines.source.config import SourceConfig
from visaged.pipelines.source.errors import SourceError, certificate_refused
from visaged.pipelines.source.opening.options import demuxer_options
from visaged.pipelines.source.opening.places import Place, place_of, why_not
from visaged.pipelines.source.opening.redirects import Login, location

_MOST_REDIRECTS = 5
# Options of FFmpeg's in which logins for the camera stand.
_FOR_CAMERA = frozenset({"headers", "cookies", "referer", "post_data"})


class Web:
    """The web server of one camera, and the places that it may lead to.

    Args:
        config: The source, an http or https URL.
        credentials: User and password, if they are not in the URL.
    """

    def __init__(self, config: SourceConfig, credentials: Login) -> None:
        parts = urlsplit(config.address.target)
        named = (unquote(parts.username) if parts.username else None, unquote(parts.password or ""))
        self._config = config
        self._login = credentials if credentials[0] is not None else named
        self._url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        self._place: Place | None = place_of(self._url)
        self._now = self._url  # where the URL redirected to, the last time

    def open(self, opening: Callable[[str], InputContainer]) -> InputContainer:
        """Open the camera's URL, or what it redirects to.

        Args:
            opening: Opens a URL without a login, and follows no redirects.

        Raises:
            SourceError: A redirect leads to where it may not, or a certificate is not accepted.
            Exception: PyAV raised it.
        """
        try:
            return self._followed(self._now, opening)
        except BaseException:
            self._now = self._url
            raise

    def with_login(self, url: str) -> str:
        """Return a URL with the camera's login in it, if it is of the camera's own host."""
        return with_credentials(url, *self._login) if self._is_own(url) else url

    def options(self, url: str) -> dict[str, str]:
        """Return the configured options for a URL: those that may hold a login only for the camera's own host."""
        options = self._config.options
        return options if self._is_own(url) else {k: v for k, v in options.items() if k not in _FOR_CAMERA}

    def open_named(self, url: str, prefix: str, options: Mapping[str, str]) -> InputContainer:
        """Open what the camera's playlist names, or the playlist itself; see `playlists.Opening`."""
        if url == self._now:
            return self._as_bytes(url, prefix, options)
        self._check(url, "names")
        return self._followed(url, lambda there: self._as_bytes(there, prefix, options))

    def _as_bytes(self, url: str, prefix: str, options: Mapping[str, str]) -> InputContainer:
        own = self.options(url)
        asked = {name: value for name, value in options.items() if name in own or name not in _FOR_CAMERA}
        return as_bytes(self._config, prefix + self.with_login(url), own | asked)

    def _is_own(self, url: str) -> bool:
        place = place_of(url)
        return url == self._url or (place is not None and self._place is not None and place.host == self._place.host)

    def _followed(self, url: str, opening: Callable[[str], InputContainer]) -> InputContainer:
        is_own = url == self._now
        for _ in range(_MOST_REDIRECTS):
            try:
                return opening(url)
            except OSError as error:
                there = self._redirect(url) if error.errno == errno.EIO else None
                if there is None:
                    raise
                url = there
                if is_own:
                    self._now = url
        raise SourceError("redirected", f"{self._config.shown_url} redirects more than {_MOST_REDIRECTS} times")

    def _redirect(self, url: str) -> str | None:
        """Return where a URL redirects to, checked; None if it does not, and something else is wrong with it."""
        config = self._config
        refusal = config.tls.refusal(url)
        if refusal is not None:
            raise certificate_refused(config, refusal)
        own = with_credentials(url, None, None)
        login = self._login if self.with_login(own) != own else (None, None)
        there = location(own, login, config.tls.context(), config.open_timeout_s)
        if there is not None:
            self._check(there, "redirects to")
        return there

    def _check(self, url: str, verb: str) -> None:
        reason = None if self._place is None else why_not(self._place, url, self._config.other_hosts)
        if reason is not None or self._place is None:
            raise SourceError(
                "redirected",
                f"{self._config.shown_url} {verb} {reason or 'another URL'}; name that URL itself as the camera's, "
                "or list its host in other_hosts",
            )


class Folder:
    """The folder of a playlist that is a file; it may name files in that folder and below.

    Args:
        config: The source, a file.
    """

    def __init__(self, config: SourceConfig) -> None:
        self._config = config
        self._folder = (config.address.path or Path()).parent.resolve()

    def open_named(self, url: str, prefix: str, options: Mapping[str, str]) -> InputContainer:
        """Open what the playlist names, or the playlist itself; see `playlists.Opening`."""
        path = Path(url.removeprefix("file:")).resolve()
        if not path.is_relative_to(self._folder) or not path.is_file():
            raise SourceError(
                "redirected",
                f"{self._config.shown_url} names {path.name[:100]!r}, which is no file in the playlist's own folder",
            )
        return as_bytes(self._config, f"{prefix}file:{path}", self._config.options | dict(options))


def as_bytes(config: SourceConfig, url: str, options: Mapping[str, str]) -> InputContainer:
    """Return an open URL as raw bytes, for `packets` without a codec.

    Args:
        config: The source.
        url: The URL with its login.
        options: FFmpeg's options besides those by the kind of the source.
    """
    return av.open(
        url,
        format="data",
        options=demuxer_options(config) | {"raw_packet_size": "65536"} | dict(options),
        timeout=(config.open_timeout_s, config.read_timeout_s),
    )
