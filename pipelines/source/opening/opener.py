"""Opens a source with FFmpeg, and finds out whether it is a recording or live."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping

import av
import av.error
from av.container import InputContainer
from av.video.stream import VideoStream

from visaged.pipelines.runtime.redact import with_credentials
from visaged.pipelines.source.config import SourceConfig
from visaged.pipelines.source.errors import SourceError, certificate_refused
from visaged.pipelines.source.opening.hardware import Hardware
from visaged.pipelines.source.opening.jpegs import JpegStream
from visaged.pipelines.source.opening.options import demuxer_options, formats, playlist_format
from visaged.pipelines.source.opening.playlists import Opening, PlaylistFiles
from visaged.pipelines.source.opening.reach import Folder, Web
from visaged.pipelines.source.rtsp.relay import Relay
from visaged.pipelines.source.times.pacing import FilePace, LeadPace, Pace, SegmentPace, Unpaced


class Opener:
    """Opens one camera's source, and remembers whether it sends JPEGs that FFmpeg cannot read by itself.

    Such a camera is opened twice the first time: FFmpeg is tried first, because it reads nearly everything.

    Args:
        config: The source.
        credentials: User and password, put into the URL when it is opened.
        hardware: The hardware decoder.
        on_connected: Called with the seconds that the connection to an RTSP camera took.
    """

    def __init__(
        self,
        config: SourceConfig,
        credentials: tuple[str | None, str | None],
        hardware: Hardware,
        on_connected: Callable[[float], None] = lambda connect_s: None,
    ) -> None:
        self._config = config
        self._credentials = credentials
        self._hardware = hardware
        self._on_connected = on_connected
        self._is_jpegs = False
        self._web = Web(config, credentials) if config.address.scheme in ("http", "https") else None
        self._beneath: JpegStream | PlaylistFiles | Relay | None = None  # what an open container reads from

    def open(self) -> InputContainer:
        """Return the open source.

        Raises:
            SourceError: The file is missing, the source sends no picture, or leads to where it may not.
            Exception: PyAV raised it.
        """
        missing = self._config.address.missing()
        if missing is not None:
            raise SourceError("not_found", missing)
        playlist = playlist_format(self._config)
        if playlist is not None:
            return self._open_playlist(playlist)
        if self._web is None:
            return self._open(self._config.address.format, demuxer_options(self._config))
        if not self._is_jpegs:
            container = self._open_known()
            if container is not None:
                return container
        self._is_jpegs = False
        container = self._open_jpegs()
        self._is_jpegs = True
        return container

    def close(self, container: InputContainer) -> None:
        """Close the source that `open` returned; must be called in the same thread."""
        container.close()
        if self._beneath is not None:
            self._beneath.close()
            self._beneath = None

    def is_still(self, container: InputContainer) -> bool:
        """Return whether an open source may be a single picture (a snapshot URL), and not a stream."""
        name = container.format.name
        return self._web is not None and (name == "mpjpeg" or name.endswith("_pipe"))

    def _open_known(self) -> InputContainer | None:
        """Return the source as FFmpeg opens it; None if FFmpeg does not know its format, which may be JPEGs."""
        options = demuxer_options(self._config) | {
            # Those left out would go by the ending of the URL, or read too slowly.
            "format_whitelist": formats(without=_BARE_JPEGS),
            # A camera that sends one small JPEG a second would take minutes for the megabyte that FFmpeg probes.
            "formatprobesize": "65536",
        }
        try:
            container = self._open(None, options)
        except (av.error.InvalidDataError, av.error.ArgumentError):
            return None
        except OSError as error:
            if error.errno == errno.EIO:  # the end of an answer without a length, which may be a web page
                return None
            raise
        # Every JPEG has a size: without one, FFmpeg has not found a JPEG.
        contexts = [stream.codec_context for stream in container.streams.video]
        if not any(context and context.name == "mjpeg" and not context.width for context in contexts):
            return container
        container.close()
        return None

    def _open_jpegs(self) -> InputContainer:
        config = self._config
        answer = self._open("data", demuxer_options(config) | {"raw_packet_size": "65536"})
        self._beneath = JpegStream(config.shown_url, answer, 2 * config.read_timeout_s)
        try:
            return av.open(
                self._beneath, "r", format="mpjpeg", options=config.pixel_options(), hwaccel=self._hardware.decoder()
            )
        except BaseException:
            self._beneath.close()
            self._beneath = None
            raise

    def _open_playlist(self, format_name: str) -> InputContainer:
        web, config = self._web, self._config
        if web is None:
            return self._open_files(config.address.target, format_name, Folder(config).open_named)
        return web.open(lambda url: self._open_files(url, format_name, web.open_named))

    def _open_files(self, url: str, format_name: str, opening: Opening) -> InputContainer:
        config, web = self._config, self._web
        self._beneath = PlaylistFiles(opening)
        try:
            return av.open(
                url,
                format=format_name,
                # Connections are the callback's, and cannot be used again by the demuxer.
                options=demuxer_options(config)
                | {"http_persistent": "0", "format_whitelist": formats(format_name)}
                | (config.options if web is None else web.options(url)),
                timeout=(config.open_timeout_s, config.read_timeout_s),
                io_open=self._beneath,
                hwaccel=self._hardware.decoder(),
            )
        except BaseException:
            self._beneath.close()
            self._beneath = None
            raise

    def _open(self, format_name: str | None, options: dict[str, str]) -> InputContainer:
        web, address = self._web, self._config.address
        if web is not None:
            return web.open(lambda url: self._open_url(web.with_login(url), format_name, options | web.options(url)))
        if address.scheme in ("rtsp", "rtsps") and not _connects_itself(self._config.options):
            return self._open_relayed(format_name, options)
        try:
            target = address.target
            url = with_credentials(target, *self._credentials) if address.kind == "stream" else target
            return self._open_url(url, format_name, options | self._config.options)
        except OSError as error:
            # What FFmpeg reports for a certificate that it does not accept, among much else.
            refusal = self._config.tls.refusal(address.target) if error.errno == errno.EIO else None
            if refusal is None:
                raise
        raise certificate_refused(self._config, refusal)

    def _open_relayed(self, format_name: str | None, options: dict[str, str]) -> InputContainer:
        relay = self._beneath = Relay(self._config, self._credentials)
        try:
            url = relay.open()
            self._on_connected(relay.connect_s)
            return self._open_url(url, format_name, options | self._config.options)
        except BaseException as error:
            is_silent = relay.is_silent  # FFmpeg reports that as invalid data
            relay.close()
            self._beneath = None
            if relay.failure is not None:
                raise relay.failure from None
            if is_silent and isinstance(error, av.error.InvalidDataError):
                raise SourceError("timeout", f"{self._config.shown_url} did not answer in time") from None
            raise

    def _open_url(self, url: str, format_name: str | None, options: dict[str, str]) -> InputContainer:
        config = self._config
        return av.open(
            url,
            format=format_name,
            options=options,
            timeout=(config.open_timeout_s, config.read_timeout_s),
            hwaccel=self._hardware.decoder(),
        )


# Options by which FFmpeg may listen for the camera.
_OWN_CONNECTIONS = frozenset({"rtsp_flags", "listen_timeout"})
_RELAYED_TRANSPORTS = frozenset({"tcp", "udp"})
_BARE_JPEGS = frozenset({"jpeg_pipe", "mjpeg", "image2"})
# Formats that are playlists of segments.
_SEGMENTED = frozenset({"hls", "dash"})
# Formats of many pictures in one answer: live, whatever length the answer claims.
_ENDLESS = frozenset({"mpjpeg"})
# FFmpeg's AVFMT_TS_DISCONT: time stamps may have steps.
_MAY_HAVE_CUTS = 0x200
# Lengths that servers claim for endless answers.
_MOST_BYTES = 1 << 40
_NO_LENGTHS = frozenset({(1 << 31) - 1, (1 << 32) - 1})


def _connects_itself(options: Mapping[str, str]) -> bool:
    """Return whether FFmpeg connects in another way than to the camera by TCP, such as RTSP in HTTP."""
    transports = options.get("rtsp_transport", "tcp").split("+")
    return bool(_OWN_CONNECTIONS & options.keys()) or not _RELAYED_TRANSPORTS.issuperset(transports)


def has_end(config: SourceConfig, container: InputContainer, stream: VideoStream) -> bool:
    """Return whether an open source is a recording: a file, here or behind HTTP, or a playlist that is complete.

    If that cannot be known, it counts as live: a recording taken for a camera is played again, but a camera taken for a
    recording would be lost when its connection breaks.
    """
    if config.is_file:
        return True
    if config.address.scheme not in ("http", "https"):
        return False
    has_duration = (container.duration or 0) > 0
    if container.format.name in _SEGMENTED:
        return has_duration
    if container.format.name in _ENDLESS or container.format.name.endswith("_pipe"):
        return False
    # A table of all frames, as in MP4, cannot be written before the last frame.
    return (has_duration and stream.frames > 0) or _has_length(container)


def _has_length(container: InputContainer) -> bool:
    size = container.size
    return 0 < size < _MOST_BYTES and size not in _NO_LENGTHS


def pace_of(config: SourceConfig, container: InputContainer, is_recording: bool) -> Pace:
    """Return the pace at which the frames of an open source are delivered."""
    if is_recording:
        may_have_cuts = bool(container.format.flags & _MAY_HAVE_CUTS)
        return FilePace(may_have_cuts, is_camera=config.loop) if config.pace == "realtime" else Unpaced()
    if container.format.name in _SEGMENTED:
        return SegmentPace()
    return LeadPace() if config.address.scheme in ("http", "https", "rtmp", "rtmps", "tcp") else Unpaced()
