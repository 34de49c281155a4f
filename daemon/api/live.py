"""Live pictures over HTTP: a camera as a moving picture or as a single one, and many cameras in one answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import FastAPI, Path, Query, Response

from visaged.daemon.api.looking import Looking
from visaged.daemon.api.v1 import DaemonView
from visaged.daemon.api.viewers import Endless, Viewers
from visaged.daemon.http.problems import Problem, responses, unknown_camera
from visaged.pipelines.live.picture import WIDTHS, Picture, View, wide_enough
from visaged.pipelines.live.pictures import LivePictures

_BOUNDARY = b"\r\n--frame\r\n"
_PATIENCE_S = 3.0
_RETRY_S = 5

_STEPS = ", ".join(map(str, WIDTHS))
_WIDTH_TEXT = (
    f"Most pixels across. Pictures are made in steps of {_STEPS}, the next larger one counts, and none is larger than "
    "the camera's own."
)

Fps = Annotated[float, Query(ge=0.1, le=30, allow_inf_nan=False, description="Most pictures a second, of each camera.")]
Boxes = Annotated[bool, Query(description="Whether faces are marked, with the number of their track and a few words.")]
Name = Annotated[str, Path(description="Name of the camera.")]


def _width(default: int) -> Any:
    return Query(default, ge=64, le=WIDTHS[-1], description=_WIDTH_TEXT)


def install_live(app: FastAPI, view: DaemonView, pictures: LivePictures, viewers: Viewers) -> None:
    """Add `/v1/live`, and `live.mjpeg` and `snapshot.jpg` below a camera, to an application.

    Args:
        app: The application; it must answer errors with problem details.
        view: Which cameras there are.
        pictures: Makes the pictures.
        viewers: The seats of those who look at moving pictures.
    """

    def names() -> set[str]:
        return {camera["camera"] for camera in view.cameras()}

    def parts(
        cameras: frozenset[str] | None, look: View, fps: float, form: Callable[[Picture], bytes]
    ) -> Callable[[], AsyncGenerator[bytes]]:
        """Return what begins to make the parts of an answer."""
        for name in sorted(cameras or ()):
            if name not in names():
                raise unknown_camera(name)

        async def begin() -> AsyncGenerator[bytes]:
            with Looking(pictures, cameras, look, 1 / fps) as looking:
                if cameras is not None:  # one may have gone since the look above, and nobody would say so again
                    looking.keep(names())
                # A browser shows a part once it sees the next boundary, so that is sent with the part.
                yield _BOUNDARY[2:]
                async for picture in looking:
                    yield form(picture)

        return begin

    @app.get(
        "/v1/cameras/{name}/live.mjpeg",
        tags=["live"],
        summary="A camera as a moving picture (Motion JPEG)",
        description="For `<img src>`, players and recorders. It shows the frames that are analysed, and goes on while "
        "the camera is away; it ends when the camera is removed. Who takes the pictures slowly gets fewer.",
        response_class=Response,
        responses={
            200: {"description": "JPEG pictures, without an end.", "content": {_MJPEG: {"schema": _BINARY}}},
            **responses(HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE),
        },
    )
    async def live_of(name: Name, fps: Fps = 5.0, width: int = _width(1280), boxes: Boxes = True) -> Response:
        look = View(wide_enough(width), boxes)
        begin = parts(frozenset({name}), look, fps, _mjpeg_part)
        return Endless(viewers, "mjpeg", begin, f"{_MJPEG}; boundary=frame")

    @app.get(
        "/v1/live",
        tags=["live"],
        summary="Cameras as moving pictures with what is found in them, in one answer",
        description="For pages: browsers open six connections to a server at most. For every picture there are two "
        "parts: JSON as on the topic `faces`, with the camera's name and the size of the picture, and the JPEG, in "
        "which nothing is drawn. Cameras that give none have no parts. Who takes the pictures slowly gets fewer.",
        response_class=Response,
        responses={
            200: {"description": "Pairs of parts, without an end.", "content": {_MIXED: {"schema": _BINARY}}},
            **responses(HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE),
        },
    )
    async def live_of_many(
        cameras: Annotated[
            str | None,
            Query(description="Names, separated by commas. Left out: all, also those that are added later."),
        ] = None,
        fps: Fps = 5.0,
        width: int = _width(640),
    ) -> Response:
        chosen = None if cameras is None else frozenset(name.strip() for name in cameras.split(",")) - {""}
        if chosen is not None and not chosen:
            detail = "cameras: names no camera; leave it out for all of them"
            raise Problem(HTTPStatus.BAD_REQUEST, "invalid-parameter", detail)
        begin = parts(chosen, View(wide_enough(width), False), fps, _mixed_parts)
        return Endless(viewers, "live", begin, f"{_MIXED}; boundary=frame")

    @app.get(
        "/v1/cameras/{name}/snapshot.jpg",
        tags=["live"],
        summary="A camera's next analysed frame",
        response_class=Response,
        responses={
            200: {"description": "The picture.", "content": {"image/jpeg": {"schema": _BINARY}}},
            **responses(HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE),
        },
    )
    async def snapshot(name: Name, width: int = _width(WIDTHS[-1]), boxes: Boxes = True) -> Response:
        if name not in names():
            raise unknown_camera(name)
        look = View(wide_enough(width), boxes)
        with Looking(pictures, frozenset({name}), look, 0.0, once=True) as looking:
            camera = next((one for one in view.cameras() if one["camera"] == name), None)
            if camera is None:
                raise unknown_camera(name)
            slow_s = 0.0 if camera["fps"] is None else 1 / camera["fps"]
            try:
                async with asyncio.timeout(_PATIENCE_S + min(slow_s, _PATIENCE_S)):
                    picture = await anext(aiter(looking), None)
            except TimeoutError:
                raise _no_picture(view, name) from None
        if picture is None:
            raise unknown_camera(name)
        return Response(picture.jpeg, media_type="image/jpeg", headers={"Cache-Control": "no-store"})


_MJPEG = "multipart/x-mixed-replace"
_MIXED = "multipart/mixed"
_BINARY = {"type": "string", "format": "binary"}


def _mjpeg_part(picture: Picture) -> bytes:
    return _part(b"image/jpeg", picture.jpeg)


def _mixed_parts(picture: Picture) -> bytes:
    return _part(b"application/json", picture.document) + _part(b"image/jpeg", picture.jpeg)


def _part(media_type: bytes, content: bytes) -> bytes:
    return b"Content-Type: %s\r\nContent-Length: %d\r\n\r\n%s%s" % (media_type, len(content), content, _BOUNDARY)


def _no_picture(view: DaemonView, name: str) -> Problem:
    """Return the problem that a camera gives no picture, with what it does instead."""
    camera = next((one for one in view.cameras() if one["camera"] == name), None)
    if camera is None:
        return unknown_camera(name)
    why = f"it is {camera['state']}" + (f" ({camera['error']})" if camera["error"] else "")
    detail = f"camera {name} gives no picture now: {why}; GET /v1/cameras says how it goes on"
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "no-picture", detail, {"Retry-After": str(_RETRY_S)})
