#!/usr/bin/python3
"""A test camera: serves one H.264 clip in a loop over RTSP, and misbehaves on command.

Runs under the *system* Python (3.9+), because GStreamer's bindings are a Debian package; tests drive it through
`tests.support.rtsp.RtspServer`. By hand:

    /usr/bin/python3 tests/support/rtsp_server.py clip.mp4

It prints one JSON line, `{"port": N}`, then answers each JSON line on stdin with one on stdout. It ends when stdin
closes, so a killed test run leaves nothing behind.

The clip is read once into memory as access units (one coded picture each), and a thread per connected client pushes
them at their due times. Nothing is encoded again, except on `/resize` and `/mjpeg`, so a client costs about one per
cent of a core, and every fault is a decision of that thread about the next access unit. Each client has a pipeline of
its own and sees the clip from its first key frame; time stamps go on rising when the clip starts over.

Mounts:
    /normal      plain
    /auth        user "user", password "password"
    /stall       like /normal; a mount of its own for `stall`, so that other clients are left alone
    /drop        like /normal; a mount of its own for `drop`
    /resize      encoded again at 640x360, or at the size that `resize` asked for
    /audio-only  G.711 sound and no video
    /corrupt     random bytes of about a third of the pictures are damaged (never those of the first)
    /burst       pictures are withheld for 400-500 ms, then sent at once, with their true time stamps
    /mjpeg       JPEG pictures, 640x360

Commands (`mount` is optional everywhere):
    {"cmd": "stall", "mount": "/stall"}       pictures stop, the connection and RTCP stay. A client that connects
                                              meanwhile gets the first picture and no more.
    {"cmd": "resume", "mount": "/stall"}      pictures go on, from the clip's first key frame
    {"cmd": "drop", "mount": null}            closes the connections of one mount, or all
    {"cmd": "resize", "width": 1280, "height": 720}   changes /resize, for its present clients too
    {"cmd": "auth", "method": "digest"}       what /auth asks for: "basic" (default) or "digest"
    {"cmd": "stats"}                          {"clients": {mount: playing}, "pictures": {mount: sent}}
    {"cmd": "reset"}                          all faults off, all connections closed
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from typing import Any

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402
from rtsp_feed import SMALL, Clip, Feeder, Mount, load_clip  # noqa: E402 - beside this file, which runs as a script

USER, PASSWORD = "user", "password"
LARGE = (1280, 720)
FEED = "appsrc name=feed is-live=true format=time max-bytes=0"
# No config-interval here: it puts parameter sets before every IDR *slice*, and FFmpeg then cuts a picture of two slices
# into two. The parser in rtsp_feed.py puts them before every IDR picture.
PAYLOAD = "rtph264pay name=pay0 pt=96"
DECODE = "h264parse ! avdec_h264 max-threads=1 ! videoconvert ! videoscale"
ENCODE = (
    "x264enc tune=zerolatency speed-preset=ultrafast threads=1 key-int-max=25 bitrate=1500"
    " ! video/x-h264,stream-format=byte-stream"
)
RAW_CAPS = "video/x-raw,format=I420,width={},height={},pixel-aspect-ratio=1/1"
PLAIN = f"( {FEED} ! {PAYLOAD} )"
LAUNCH = {
    "/normal": PLAIN,
    "/auth": PLAIN,
    "/stall": PLAIN,
    "/drop": PLAIN,
    "/resize": f"( {FEED} ! {DECODE} ! capsfilter name=size ! {ENCODE} ! {PAYLOAD} )",
    "/audio-only": "( audiotestsrc is-live=true wave=ticks ! audio/x-raw,rate=8000,channels=1 ! alawenc"
    " ! rtppcmapay name=pay0 pt=8 )",
    "/corrupt": PLAIN,
    "/burst": PLAIN,
    "/mjpeg": f"( {FEED} ! {DECODE} ! {RAW_CAPS.format(*SMALL)} ! jpegenc ! rtpjpegpay name=pay0 pt=26 )",
}


class Server:
    """The RTSP server and its commands. All methods but the media callbacks run in the main loop."""

    def __init__(self, clip: Clip, port: int) -> None:
        self._clip = clip
        self._mounts = {path: Mount(path) for path in LAUNCH}
        self._clients: dict[Any, str] = {}
        self._server = GstRtspServer.RTSPServer()
        self._server.set_address("127.0.0.1")
        self._server.set_service(str(port))
        self._server.get_thread_pool().set_max_threads(8)  # a client that is being prepared must not block others
        self._auth = GstRtspServer.RTSPAuth()
        self._set_up_auth()
        self._server.set_auth(self._auth)
        for mount in self._mounts.values():
            mount.reset()
            self._server.get_mount_points().add_factory(mount.path, self._factory(mount))
        self._server.connect("client-connected", self._on_client)
        if self._server.attach(None) == 0:
            raise SystemExit(f"cannot listen on 127.0.0.1:{port}")

    @property
    def port(self) -> int:
        return self._server.get_bound_port()

    def answer(self, command: dict[str, Any]) -> dict[str, Any]:
        """Carries out one command."""
        name = command.get("cmd")
        handler = getattr(self, f"_cmd_{name}", None)
        if handler is None:
            return {"ok": False, "error": f"unknown command {name!r}"}
        try:
            return {"ok": True, **handler(command)}
        except (KeyError, ValueError, TypeError) as error:
            return {"ok": False, "error": f"{name}: {error!r}"}

    def _cmd_stall(self, command: dict[str, Any]) -> dict[str, Any]:
        self._mounts[command.get("mount") or "/stall"].is_stalled = True
        return {}

    def _cmd_resume(self, command: dict[str, Any]) -> dict[str, Any]:
        self._mounts[command.get("mount") or "/stall"].is_stalled = False
        return {}

    def _cmd_drop(self, command: dict[str, Any]) -> dict[str, Any]:
        path = command.get("mount")
        if path is not None and path not in self._mounts:
            raise KeyError(path)
        removed = [client for client, played in self._clients.items() if path in (None, played)]

        def choose(_server: Any, client: Any) -> Any:
            return GstRtspServer.RTSPFilterResult.REMOVE if client in removed else GstRtspServer.RTSPFilterResult.KEEP

        self._server.client_filter(choose)
        for client in removed:
            self._clients.pop(client)  # not gone yet, but settled: the next `stats` must not count it
        return {"dropped": len(removed)}

    def _cmd_resize(self, command: dict[str, Any]) -> dict[str, Any]:
        mount = self._mounts["/resize"]
        mount.size = (int(command.get("width", LARGE[0])), int(command.get("height", LARGE[1])))
        for capsfilter in mount.resized:
            capsfilter.set_property("caps", Gst.Caps.from_string(RAW_CAPS.format(*mount.size)))
        return {"size": mount.size}

    def _cmd_auth(self, command: dict[str, Any]) -> dict[str, Any]:
        known = {"basic": GstRtsp.RTSPAuthMethod.BASIC, "digest": GstRtsp.RTSPAuthMethod.DIGEST}
        self._auth.set_supported_methods(known[command.get("method", "basic")])
        return {}

    def _cmd_stats(self, _command: dict[str, Any]) -> dict[str, Any]:
        playing = list(self._clients.values())
        return {
            "clients": {path: playing.count(path) for path in self._mounts},
            "pictures": {path: mount.pictures for path, mount in self._mounts.items()},
        }

    def _cmd_reset(self, command: dict[str, Any]) -> dict[str, Any]:
        for mount in self._mounts.values():
            mount.reset()
        self._cmd_auth({})
        return self._cmd_drop({})

    def _set_up_auth(self) -> None:
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "user")
        self._auth.add_basic(GstRtspServer.RTSPAuth.make_basic(USER, PASSWORD), token)
        self._auth.add_digest(USER, PASSWORD, token)
        self._cmd_auth({})
        anonymous = GstRtspServer.RTSPToken()
        anonymous.set_string("media.factory.role", "anonymous")
        self._auth.set_default_token(anonymous)

    def _factory(self, mount: Mount) -> Any:
        factory = GstRtspServer.RTSPMediaFactory()
        factory.set_launch(LAUNCH[mount.path])
        factory.set_shared(False)
        factory.set_latency(0)
        permissions = GstRtspServer.RTSPPermissions()
        for role in ("user", "anonymous"):
            # "access" without "construct" is what makes the server ask for a password; without either it says 404.
            is_allowed = role == "user" or mount.path != "/auth"
            permissions.add_permission_for_role(role, "media.factory.access", True)
            permissions.add_permission_for_role(role, "media.factory.construct", is_allowed)
        factory.set_permissions(permissions)
        factory.connect("media-configure", self._on_media, mount)
        return factory

    def _on_media(self, _factory: Any, media: Any, mount: Mount) -> None:
        """Runs in the client's thread, before its pipeline plays."""
        media.connect("prepared", self._on_prepared)
        element = media.get_element()
        capsfilter = element.get_by_name("size")
        if capsfilter is not None:
            capsfilter.set_property("caps", Gst.Caps.from_string(RAW_CAPS.format(*mount.size)))
            mount.resized.append(capsfilter)
            media.connect("unprepared", lambda _media: mount.resized.remove(capsfilter))
        source = element.get_by_name("feed")
        if source is not None:
            feeder = Feeder(source, self._clip, mount)
            media.connect("unprepared", lambda _media: feeder.stop())
            feeder.start()

    @staticmethod
    def _on_prepared(media: Any) -> None:
        """Asks for RTCP sender reports every half second; by default the first may take 5 s."""
        for index in range(media.n_streams()):
            session = media.get_stream(index).get_rtpsession()
            if session is not None:
                session.set_property("rtcp-min-interval", 500 * Gst.MSECOND)

    def _on_client(self, _server: Any, client: Any) -> None:
        # The signals come from the client's thread, the commands read in the main loop: hand them over.
        client.connect("play-request", lambda c, context: GLib.idle_add(self._played, c, context.uri.abspath))
        client.connect("closed", lambda c: GLib.idle_add(self._closed, c))
        GLib.idle_add(self._connected, client)

    def _connected(self, client: Any) -> bool:
        self._clients[client] = ""
        return False

    def _played(self, client: Any, path: str) -> bool:
        if client in self._clients:
            self._clients[client] = path
        return False

    def _closed(self, client: Any) -> bool:
        self._clients.pop(client, None)
        # A client that went without TEARDOWN leaves its session behind, for a minute by default.
        client.session_filter(lambda *_: GstRtspServer.RTSPFilterResult.REMOVE)
        return False


def write_line(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def serve_stdin(server: Server, loop: Any) -> None:
    """Reads commands until stdin closes, then ends the process."""

    def carry_out(line: str) -> bool:
        try:
            command = json.loads(line)
        except ValueError as error:
            write_line({"ok": False, "error": str(error)})
        else:
            write_line(server.answer(command))
        return False

    for line in sys.stdin:
        GLib.idle_add(carry_out, line)
    GLib.idle_add(loop.quit)


def main() -> None:
    parser = argparse.ArgumentParser(description="A test camera; see the head of this file.")
    parser.add_argument("clip", help="H.264 in an mp4, or raw .h264 without B-pictures")
    parser.add_argument("--fps", type=float, default=25.0, help="rate of a raw .h264 (default 25)")
    parser.add_argument("--port", type=int, default=0, help="default: chosen by the system")
    arguments = parser.parse_args()
    Gst.init(None)
    server = Server(load_clip(os.path.abspath(arguments.clip), arguments.fps), arguments.port)
    loop = GLib.MainLoop()
    write_line({"port": server.port})
    threading.Thread(target=serve_stdin, args=(server, loop), daemon=True).start()
    loop.run()
    sys.stdout.flush()
    os._exit(0)  # pipelines of clients that still play must not hold up the end


if __name__ == "__main__":
    main()
