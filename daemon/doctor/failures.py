"""The next thing to try when a camera cannot be opened, or breaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from visaged.daemon.doctor.report import Failure
from visaged.pipelines.source.config import SourceConfig
from visaged.pipelines.source.errors import SourceError


@dataclass(frozen=True, slots=True)
class Case:
    """What is known when a source fails.

    Attributes:
        error: The failure.
        config: The source.
        has_login: Whether there is a user for it.
        was_connected: Whether there was a connection to it, as far as that is known.
        was_open: Whether it had been opened.
    """

    error: SourceError
    config: SourceConfig
    has_login: bool
    was_connected: bool
    was_open: bool

    @property
    def kind(self) -> str:
        """Where the pictures come from: stream, device, file or sdp."""
        return self.config.address.kind

    def says(self, *words: str) -> bool:
        """Return whether the error's text has any of these."""
        return any(one in str(self.error) for one in words)


_PATHS = (
    "take the path from the camera's manual, or from an ONVIF tool; usual ones are /Streaming/Channels/101 (Hikvision; "
    "102 the smaller stream), /cam/realmonitor?channel=1&subtype=1 (Dahua), /axis-media/media.amp (Axis), "
    "/h264Preview_01_sub (Reolink)"
)
_LOGIN = (
    "give user and password as {scheme}://user:password@host/..., with / ? # @ in them percent-encoded; or username "
    "and password_file in a configuration, and visaged doctor --config FILE NAME"
)
_TABLE: tuple[tuple[Callable[[Case], bool], str], ...] = (
    # What the text alone tells, whatever its cause.
    (lambda c: c.says("is a web page"),
     "an address that a browser opens is the camera's settings; there, or in its manual, look for the URL of its RTSP "
     "stream, of MJPEG, or of a snapshot"),
    (lambda c: c.says("is a text"), "name a video; if the file holds a URL, it has to be its first line"),
    (lambda c: c.says("no decoder for"),
     "set the camera to H.264 or H.265; the FFmpeg in this PyAV has no decoder for what it sends"),
    (lambda c: c.says("is a playlist"), "write it into a configuration, with format: hls for this camera"),
    (lambda c: c.kind == "file" and c.says("has no video"), "name a file with video in it; this one has sound alone"),
    (lambda c: c.says("has no video", "camera without video"),
     f"the camera offers sound or metadata alone at this path, or none at all; {_PATHS}"),
    (lambda c: c.says("no key frame", "no picture in ", "no picture that can be decoded"),
     "set the camera's key-frame interval (GOP, I-frame interval) to one or two seconds; if it is, restart the camera, "
     "or try H.264 in place of what it sends"),
    (lambda c: c.says("does not speak RTSP"),
     "another service listens at this port: RTSP is usually at 554, cameras' web pages are at 80, 443 or 8080"),
    (lambda c: c.says("does not speak TLS"), "take rtsp:// in place of rtsps://, or the port at which it speaks TLS"),
    (lambda c: c.says("SDP"), "save the sender's SDP as a .sdp file, and name that"),
    # By cause.
    (lambda c: c.error.cause == "unauthorized" and not c.has_login, f"the camera asks for a login: {_LOGIN}"),
    (lambda c: c.error.cause == "unauthorized" and c.says("403"),
     "the login has no right to this stream: give the user the right to live video on the camera's page"),
    (lambda c: c.error.cause == "unauthorized",
     "check user and password on the camera's own page, and that / ? # @ in them are percent-encoded in the URL; some "
     "cameras have users of their own for ONVIF or RTSP, and lock a user out for minutes after some failures"),
    (lambda c: c.error.cause == "redirected",
     "if that host is meant, name its URL as the camera's, or list it in the camera's other_hosts (for http)"),
    (lambda c: c.error.cause == "certificate",
     "fetch the camera's certificate (openssl s_client -showcerts -connect HOST:PORT), check it, and name it in the "
     "camera's tls.ca_file in a configuration"),
    (lambda c: c.error.cause == "too_large",
     "take the camera's smaller stream, or raise max_megapixels in a configuration"),
    (lambda c: c.kind == "file" and c.error.cause == "not_found" and c.says("may not be read"),
     "let the user that runs visaged read the file (chmod, or the folder's rights)"),
    (lambda c: c.kind in ("file", "sdp") and c.error.cause == "not_found",
     "check the path; it counts from the folder in which the command runs"),
    (lambda c: c.kind == "file", "play the file in another player; if it plays there, encode it again (H.264 in MP4)"),
    (lambda c: c.kind == "device" and c.says("denied"),
     "let the user that runs visaged use it: usermod -aG video USER, and a new login"),
    (lambda c: c.kind == "device" and c.error.cause == "not_found",
     "plug it in, and look which devices there are: ls /dev/video* or v4l2-ctl --list-devices"),
    (lambda c: c.kind == "device",
     "end other programs that use it; some cameras have two devices of which only the first gives pictures"),
    (lambda c: c.error.cause == "not_found" and c.config.address.scheme in ("http", "https"),
     "take the path of the MJPEG stream or of the snapshot from the camera's manual, or its RTSP stream"),
    (lambda c: c.error.cause == "not_found", f"the camera has nothing at this path: {_PATHS}"),
    (lambda c: c.error.cause == "refused" and c.says("nothing listens"),
     "the machine is there, and nothing listens at this port: RTSP is usually at 554 (some cameras: 8554), and may "
     "have to be switched on on the camera's page"),
    (lambda c: c.error.cause == "refused",
     "restart the camera and try again; it may have no room for one more viewer, or the path may be wrong"),
    (lambda c: c.kind == "sdp", "check that the sender runs, that it sends to the port in the file, and no firewall is "
     "between; by UDP, nothing says that a packet was not let through"),
    (lambda c: c.error.cause == "ended" and not c.was_open,
     "what listens there sends no video: check port and path, and look whether the camera is just starting"),
    (lambda c: c.was_open and c.config.address.scheme in ("http", "https") and c.says("Input/output"),
     "if it is a recording, its server may not serve parts of files: put its index first (ffmpeg -i IN -c copy "
     "-movflags +faststart OUT), or take another server; if it is a camera, look at its power, network and log"),
    (lambda c: c.was_open, "the connection was lost in the middle: look at the camera's power, network and its log; "
     "the daemon would try again for ever"),
    (lambda c: c.error.cause == "timeout" and c.was_connected,
     "something takes the connection and then says nothing: check the port (RTSP is usually at 554), restart the "
     "camera; with transport udp, try tcp"),
    (lambda c: c.error.cause == "timeout",
     "check the address (ping), that the camera is on, and that no firewall or other network is between; a slow camera "
     "gets a longer open_timeout_s in a configuration"),
    (lambda c: c.error.cause == "unreachable",
     "check the host's name and address (ping), and that this machine is in a network from which the camera can be "
     "reached"),
    (lambda c: c.error.cause == "invalid" and c.config.address.scheme in ("rtsp", "rtsps") and not c.was_open,
     "another service may listen at this port: RTSP is usually at 554, cameras' web pages are at 80, 443 or 8080; if "
     "it is the camera, restart it, and try another path"),
    (lambda c: c.error.cause == "invalid",
     "open the URL in another player (ffplay, VLC); if it plays there, report this as a fault; else try another "
     "path of the camera"),
)  # fmt: skip
_OTHERWISE = "open it in another player (ffplay, VLC) from this machine; if it plays there, report this as a fault"


def failure_of(case: Case) -> Failure:
    """Return a source's failure with the next thing to try; the first row of the table that fits."""
    advice = next((text for fits, text in _TABLE if fits(case)), _OTHERWISE)
    advice = advice.replace("{scheme}", case.config.address.scheme or "rtsp")
    return Failure(cause=case.error.cause, text=str(case.error), advice=advice)
