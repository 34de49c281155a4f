"""Live pictures of a running daemon: what is seen, who gets how much, and what becomes of slow and many viewers."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.integration.test_source_display import write
from tests.support.access_server import bearer, is_problem
from tests.support.broker import free_port
from tests.support.live import PATIENCE_S, Viewer, decoded, silent_viewer
from tests.support.program import RunningDaemon
from tests.support.waiting import until
from tests.unit import fakes
from visaged.daemon.app import STOP_S
from visaged.daemon.http.keys import hash_key, make_key
from visaged.models.types import Image

KEY = make_key()
SIZE = (1280, 720)
ADDED = "added"


def scene(width: int, height: int) -> Image:
    """The picture that the cameras show."""
    return cv2.resize(fakes.demo_image(fakes.TWO_FACES_S), (width, height), interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("clips")
    return {
        "still": write(folder / "still.mp4", scene(*SIZE), count=50),
        "turned": write(folder / "turned.mp4", np.rot90(scene(640, 360)).copy(), turn=(-90, False, False), count=50),
        "squeezed": write(folder / "squeezed.mkv", scene(480, 360), aspect=Fraction(4, 3), count=50),
    }


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, clips: dict[str, Path]) -> Iterator[RunningDaemon]:
    cameras = [{"name": name, "url": str(path), "loop": True, "fps": 5} for name, path in clips.items()]
    cameras.append({"name": "never", "url": f"rtsp://127.0.0.1:{free_port()}/none"})
    document = {"mqtt": {"port": free_port()}, "cameras": cameras}
    with RunningDaemon(tmp_path_factory.mktemp("live"), document) as running:
        yield running
        until(lambda: running.metric("live_viewers") == 0, PATIENCE_S)
        running.end()
        assert " ERROR " not in running.text


@pytest.fixture
def guarded(tmp_path: Path, clips: dict[str, Path]) -> Iterator[RunningDaemon]:
    """A daemon that blurs faces, with two seats for viewers, and a key that takes one request at once."""
    document = {
        "mqtt": {"port": free_port()},
        "http": {"port": 0, "keys": [{"name": "shop", "sha256": hash_key(KEY.encode()), "max_at_once": 1}]},
        "cameras": [{"name": "still", "url": str(clips["still"]), "loop": True, "fps": 5}],
        "privacy": {"blur_faces": True},
        "live": {"max_viewers": 2},
    }
    with RunningDaemon(tmp_path, document) as running:
        yield running


def difference(one: Image, other: Image) -> np.ndarray:
    return np.abs(one.astype(int) - other).mean(axis=2)


def around(box: tuple[int, ...], scale: float, share: float) -> tuple[slice, slice]:
    """Return the rows and columns of a face and a share of its size around it."""
    left, top, right, bottom = (side * scale for side in box)
    x, y = share * (right - left), share * (bottom - top)
    return slice(round(top - y), round(bottom + y)), slice(round(left - x), round(right + x))


def test_a_moving_picture_has_boxes_at_the_faces(daemon: RunningDaemon) -> None:
    with Viewer(daemon.client, "/v1/cameras/still/live.mjpeg?width=600") as viewer:
        assert viewer.answer.getheader("content-type") == "multipart/x-mixed-replace; boundary=frame"
        assert viewer.answer.getheader("cache-control") == "no-store"
        pictures = [viewer.picture() for _ in range(4)]
    with Viewer(daemon.client, "/v1/cameras/still/live.mjpeg?width=600&boxes=false") as viewer:
        plain = viewer.picture()
    assert {picture.shape for picture in [*pictures, plain]} == {(360, 640, 3)}, "600 pixels are made as 640"
    assert difference(plain, scene(640, 360)).mean() < 4
    changed = difference(pictures[-1], plain) > 60
    for box in fakes.TWO_FACES:
        rows, columns = around(box, 0.5, 0.15)
        inner_rows, inner_columns = around(box, 0.5, -0.2)
        assert changed[rows, columns].sum() > (rows.stop - rows.start) * 2, "both sides of a box, a pixel wide"
        assert not changed[inner_rows, inner_columns].any(), "nothing is drawn over a face"
    near = np.zeros_like(changed)
    for box in fakes.TWO_FACES:
        rows, columns = around(box, 0.5, 0.15)
        near[rows.start - 20 : rows.stop, columns.start : columns.stop + 60] = True
    assert not changed[~near].any()


def test_many_cameras_in_one_answer_with_what_is_found(daemon: RunningDaemon) -> None:
    with Viewer(daemon.client, "/v1/live?width=640") as viewer:
        assert viewer.answer.getheader("content-type") == "multipart/mixed; boundary=frame"
        seen = {}
        while set(seen) != {"still", "turned", "squeezed"} or not all(d["faces"] for d, _ in seen.values()):
            document, picture = viewer.pair()
            seen[document["camera"]] = document, picture
    for document, picture in seen.values():
        assert (
            document["picture"]
            == {"width": 640, "height": 360}
            == dict(zip(("width", "height"), picture.shape[1::-1], strict=True))
        )
        assert difference(picture, scene(640, 360)).mean() < 5, "upright, in its true shape, with nothing drawn"
        frame = document["frame"]
        scale = np.array([SIZE[0] / frame["width"], SIZE[1] / frame["height"]] * 2)
        for face, box in zip(sorted(document["faces"], key=lambda one: one["box"]), fakes.TWO_FACES, strict=True):
            assert np.abs(face["box"] * scale - box).max() < 40
        assert 0 <= document["age_ms"] < 10_000
        assert set(document["timing_ms"]) == {"decode", "queue", "inference"}
        assert set(document) >= {"captured_at", "clock", "position_s"}
    assert seen["turned"][0]["frame"]["rotation"] == 90
    assert seen["squeezed"][0]["frame"]["pixel_aspect"] == pytest.approx(4 / 3, rel=0.001)
    with Viewer(daemon.client, "/v1/live?cameras=turned,%20squeezed&width=64") as viewer:
        pairs = [viewer.pair() for _ in range(6)]
    assert {document["camera"] for document, _ in pairs} == {"turned", "squeezed"}
    assert {picture.shape for _, picture in pairs} == {(90, 160, 3)}


def test_a_snapshot_is_as_large_as_the_camera_unless_asked_otherwise(daemon: RunningDaemon) -> None:
    whole = daemon.client.get("/v1/cameras/still/snapshot.jpg", params={"boxes": "false"})
    assert (whole.status_code, whole.headers["content-type"]) == (200, "image/jpeg")
    assert difference(decoded(whole.content), scene(*SIZE)).mean() < 4
    small = daemon.client.get("/v1/cameras/still/snapshot.jpg", params={"width": 160})
    assert decoded(small.content).shape == (90, 160, 3)


def test_who_wants_the_same_shares_it(daemon: RunningDaemon) -> None:
    path = "/v1/cameras/still/live.mjpeg?width=320"
    before = daemon.metric("live_pictures_total", camera="still")
    with Viewer(daemon.client, path) as one, Viewer(daemon.client, path) as other:
        for _ in range(8):
            one.picture()
            other.picture()
        assert daemon.metric("live_viewers", kind="mjpeg") == 2
    assert 8 <= daemon.metric("live_pictures_total", camera="still") - before <= 12


def test_nobody_gets_more_than_he_wants(daemon: RunningDaemon) -> None:
    with Viewer(daemon.client, "/v1/live?cameras=still&fps=1&width=160") as viewer:
        stamps = [viewer.pair()[0]["captured_at"] for _ in range(3)]
    seconds = [float(stamp[17:-1]) for stamp in stamps]
    assert (seconds[2] - seconds[0]) % 60 > 1.2


@pytest.mark.parametrize("path", ["/v1/live", "/v1/cameras/still/live.mjpeg"])
@pytest.mark.parametrize(
    "query", ["fps=1e9", "fps=0", "fps=nan", "fps=-1", "fps=inf", "fps=fast", "width=-1", "width=1e9", "width=63",
              "width=3841", "width="],
)  # fmt: skip
def test_odd_numbers(daemon: RunningDaemon, path: str, query: str) -> None:
    detail = is_problem(daemon.client.get(f"{path}?{query}"), 400, "invalid-parameter")
    assert detail.startswith(f"query.{query.partition('=')[0]}: ")


@pytest.mark.parametrize("query", ["cameras=", "cameras=,%20,"])
def test_no_camera_is_named(daemon: RunningDaemon, query: str) -> None:
    is_problem(daemon.client.get(f"/v1/live?{query}"), 400, "invalid-parameter")


@pytest.mark.parametrize(
    "name",
    ["none", "a%2Fb", "..%2F..%2Fetc%2Fpasswd", "T%C3%BCr", "%FF%FE", "%3Cscript%3Ealert(1)%3C%2Fscript%3E",
     "%3Cimg%20src=x%20onerror=alert(1)%3E", "%00", "%0D%0AX-Evil:%201", "still.", "rtsp:%2F%2Fu:secret@h%2F1",
     "x" * 5000],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/v1/cameras/{}/live.mjpeg", "/v1/cameras/{}/snapshot.jpg", "/v1/live?cameras={}"])
def test_names_that_no_camera_has(daemon: RunningDaemon, name: str, path: str) -> None:
    answer = daemon.client.get(path.format(name))
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert not set(answer.text) & set("<>")
    assert "x-evil" not in answer.headers
    assert len(answer.text) < 1000


def test_head_starts_nothing(daemon: RunningDaemon) -> None:
    before = daemon.metric("live_pictures_total")
    for path in ("/v1/live", "/v1/cameras/still/live.mjpeg"):
        answer = daemon.client.head(path)
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-type"].startswith("multipart/")
    assert daemon.metric("live_pictures_total") == before


def test_a_camera_that_never_connects(daemon: RunningDaemon) -> None:
    answer = daemon.client.get("/v1/cameras/never/snapshot.jpg")
    assert "refused the connection" in is_problem(answer, 503, "no-picture")
    assert int(answer.headers["retry-after"]) > 0
    with Viewer(daemon.client, "/v1/live?cameras=never,still&width=160") as viewer:
        assert {viewer.pair()[0]["camera"] for _ in range(3)} == {"still"}
    until(lambda: daemon.client.get("/v1/cameras/never").json()["next_try_at"] is not None, PATIENCE_S)
    once = daemon.client.get("/v1/cameras/never").json()
    until(lambda: daemon.client.get("/v1/cameras/never").json()["reconnects"] > once["reconnects"], PATIENCE_S)
    again = daemon.client.get("/v1/cameras/never").json()
    assert again["since"] > once["since"]
    assert again["trouble_since"] == once["trouble_since"] is not None


def test_cameras_tell_how_they_do(daemon: RunningDaemon) -> None:
    def settled() -> bool:
        document = daemon.client.get("/v1/cameras/still").json()
        return 3 < document["analysed_fps"] < 7 and document["last_face_at"] is not None

    until(settled, PATIENCE_S)
    still, never = (daemon.client.get(f"/v1/cameras/{name}").json() for name in ("still", "never"))
    assert (still["fps"], still["reduced"], still["next_try_at"], still["trouble_since"]) == (5, None, None, None)
    assert 0 < still["age_ms"] < 10_000
    assert (never["analysed_fps"], never["age_ms"], never["last_face_at"]) == (0, None, None)


def test_a_camera_is_replaced_and_removed_while_watched(daemon: RunningDaemon, clips: dict[str, Path]) -> None:
    camera = {"name": ADDED, "url": str(clips["turned"]), "loop": True, "fps": 5}
    with Viewer(daemon.client, "/v1/live?width=160") as everything:
        assert daemon.client.post("/v1/cameras", json=camera).status_code == 201
        while everything.pair()[0]["camera"] != ADDED:
            pass
    with Viewer(daemon.client, f"/v1/cameras/{ADDED}/live.mjpeg?width=320") as viewer:
        assert viewer.picture().shape == (180, 320, 3)
        assert daemon.client.patch(f"/v1/cameras/{ADDED}", json={"rotate": 0}).status_code == 200
        while viewer.picture().shape != (568, 320, 3):  # it goes on with the new camera
            pass
        assert daemon.client.delete(f"/v1/cameras/{ADDED}").status_code == 204
        assert viewer.ends()
    is_problem(daemon.client.get(f"/v1/cameras/{ADDED}/live.mjpeg"), 404, "unknown-camera")
    assert f'camera="{ADDED}"' not in daemon.client.get("/metrics").text


def test_a_viewer_that_never_reads_holds_nobody_and_no_memory(daemon: RunningDaemon) -> None:
    def resident_mb() -> float:
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{daemon.process.pid}/status").read_text())
        assert found is not None
        return int(found[1]) / 1024

    with contextlib.ExitStack() as stack:
        viewer = stack.enter_context(Viewer(daemon.client, "/v1/cameras/still/live.mjpeg?width=1280&fps=30"))
        viewer.picture()
        for _ in range(10):
            stack.enter_context(contextlib.closing(silent_viewer(daemon.client, "/v1/live?width=1280&fps=30")))
        for _ in range(5):  # by then, buffers that all viewers of this view have are in use
            viewer.picture()
        before = resident_mb()
        for _ in range(15):
            viewer.picture()
        assert daemon.client.get("/healthz").status_code == 200
        assert resident_mb() - before < 40
    until(lambda: daemon.metric("live_viewers") == 0, PATIENCE_S)


def test_five_hundred_viewers(daemon: RunningDaemon) -> None:
    host, port = daemon.client.base_url.host, daemon.client.base_url.port
    request = f"GET /v1/cameras/still/live.mjpeg?width=160 HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    with contextlib.ExitStack() as stack:
        for _ in range(500):
            opened = stack.enter_context(socket.create_connection((host, port), PATIENCE_S))
            with contextlib.suppress(OSError):  # it gave way to a later one
                opened.sendall(request)
        until(lambda: daemon.metric("live_viewers") == 32, PATIENCE_S)
        assert daemon.client.get("/healthz").status_code == 200
        until(lambda: daemon.client.get("/v1/live").status_code == 503, PATIENCE_S)
        answer = daemon.client.get("/v1/live")
        assert "live.max_viewers" in is_problem(answer, 503, "too-many-viewers")
        assert int(answer.headers["retry-after"]) > 0
        assert daemon.client.get("/v1/cameras/still/snapshot.jpg").status_code == 200
    until(lambda: daemon.metric("live_viewers") == 0, PATIENCE_S)
    with Viewer(daemon.client, "/v1/live?width=160") as viewer:
        assert viewer.pair()


@pytest.mark.timed
def test_blurred_faces_keys_and_the_end_of_the_daemon(guarded: RunningDaemon) -> None:
    path = "/v1/cameras/still/live.mjpeg"
    is_problem(guarded.client.get(path), 401, "key-missing")
    with Viewer(guarded.client, f"{path}?boxes=false", bearer(KEY)) as viewer:
        is_problem(guarded.client.get("/v1/live", headers=bearer(KEY)), 429, "too-many")
        pictures = [viewer.picture() for _ in range(5)]
        for picture in pictures:
            sharp = scene(*SIZE)
            for box in fakes.TWO_FACES:
                face = around(box, 1.0, 0.0)
                assert detail(picture[face]) < detail(sharp[face]) / 3
            background = slice(440, 720), slice(0, 900)
            assert difference(picture[background], sharp[background]).mean() < 4
        began_s = time.monotonic()
        guarded.end()
        assert viewer.ends()
    assert time.monotonic() - began_s < STOP_S
    line = next(line for line in guarded.process.lines if f"{path} 200" in line)
    assert "INFO" in line
    assert "key shop" in line


def detail(image: Image) -> float:
    """Return how much neighbouring pixels differ."""
    return float(np.abs(np.diff(image.astype(int), axis=1)).mean())
