"""The HTTP API of events: `/v1/events` and `/v1/statistics`."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any

import orjson
from fastapi import FastAPI, Header, Query, Request, Response

from visaged.daemon.api.viewers import Viewers
from visaged.daemon.events.asking import Asking, not_kept
from visaged.daemon.events.feed import CameraFeed, View
from visaged.daemon.events.filters import cursor_of, cursor_text, filter_of, id_number, missing, wrong
from visaged.daemon.events.schemas import DELETED, EVENT, EVENTS, STREAM_TEXT
from visaged.daemon.events.statistics import install_statistics
from visaged.daemon.events.stream import MEDIA_TYPE, EventStreams
from visaged.daemon.http.json_bodies import check_type
from visaged.daemon.http.problems import Problem, responses
from visaged.daemon.http.settings import HttpSettings
from visaged.daemon.management.permission import check_may_change
from visaged.models.manifest import Head
from visaged.pipelines.history.history import History
from visaged.pipelines.history.kept import number_of

_JSON = "application/json"
_MOST = 500
# A picture never changes, but it may be deleted.
_PICTURE_AGE_S = 300
_DELETE_KEYS = frozenset({"camera", "since", "until"})

_ASKING = (HTTPStatus.BAD_REQUEST, HTTPStatus.CONFLICT, HTTPStatus.SERVICE_UNAVAILABLE)
_FINDING = (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.SERVICE_UNAVAILABLE)

Camera = Annotated[str | None, Query(description="Names of cameras, separated by commas. Left out: all.")]
_Kind = Annotated[str | None, Query(description="begin, update, end; several with commas between. Left out: all.")]
_Since = Annotated[str | None, Query(description="First capture time, RFC 3339 with a zone (a + is %2B in a URL).")]
_Until = Annotated[str | None, Query(description="Time before which they were captured, RFC 3339 with a zone.")]
_Attributes = Annotated[
    list[str] | None,
    Query(
        description="NAME:VALUE, as emotion:happy, gender:female or age:30..40 (both included; one may be left out). "
        "Of several, all must hold."
    ),
]


def install_events(
    app: FastAPI,
    view: View,
    history: History,
    viewers: Viewers,
    settings: HttpSettings,
    heads: Mapping[str, Head],
) -> Asking:
    """Add the paths `/v1/events` and `/v1/statistics` to an application.

    Args:
        app: The application; it must answer errors with problem details.
        view: The cameras' states.
        history: The events.
        viewers: The seats of those who look.
        settings: Keys and listening address, which decide who may delete.
        heads: The attributes that there are.

    Returns:
        What asks the history, to be closed at the end.
    """
    ask = Asking()
    streams = EventStreams(history, CameraFeed(view, history.hub), viewers, ask)

    @app.get(
        "/v1/events",
        tags=["events"],
        summary="What happened",
        response_class=Response,
        responses={
            200: {"description": "Events, newest first.", "content": {_JSON: {"schema": EVENTS}}},
            **responses(*_ASKING),
        },
    )
    async def events(
        camera: Camera = None,
        kind: _Kind = None,
        since: _Since = None,
        until: _Until = None,
        attribute: _Attributes = None,
        latest: Annotated[bool, Query(description="Only the newest event of each track.")] = False,
        limit: Annotated[int, Query(ge=1, le=_MOST, description="Most events of the answer.")] = 100,
        cursor: Annotated[str | None, Query(description="`next` of the answer before.")] = None,
    ) -> Response:
        wanted = filter_of(camera, kind, since, until, attribute or (), latest, heads)
        found, more = await ask(history.page, wanted, cursor_of(cursor), limit)
        # Put together from what is JSON already.
        return Response(
            b'{"events":[%s],"next":%s}' % (b",".join(found), orjson.dumps(cursor_text(more))), media_type=_JSON
        )

    @app.get(
        "/v1/events/stream",
        tags=["events"],
        summary="Events and the cameras' states as they come",
        description=STREAM_TEXT,
        response_class=Response,
        responses={
            200: {"description": "Events without end.", "content": {MEDIA_TYPE: {"schema": {"type": "string"}}}},
            **responses(HTTPStatus.BAD_REQUEST, HTTPStatus.SERVICE_UNAVAILABLE),
        },
    )
    async def stream(
        camera: Camera = None,
        kind: _Kind = None,
        last_event_id: Annotated[str | None, Header(description="Id of the last event that the client has.")] = None,
    ) -> Response:
        wanted = filter_of(camera, kind)
        after = None if not last_event_id else number_of(last_event_id)
        if last_event_id and after is None:
            raise wrong("Last-Event-ID", "is no id of an event, which is EPOCH-NUMBER")
        return streams.answer(wanted, after)

    @app.get(
        "/v1/events/{id}",
        tags=["events"],
        summary="An event",
        response_class=Response,
        responses={
            200: {"description": "The event.", "content": {_JSON: {"schema": EVENT}}},
            **responses(*_FINDING),
        },
    )
    async def event(id: str) -> Response:
        found = await ask(history.one, id_number(id))
        if found is None:
            raise missing()
        return Response(found, media_type=_JSON)

    @app.get(
        "/v1/events/{id}/best.jpg",
        tags=["events"],
        summary="The picture of an event's best look",
        description="The face with a margin, as it is in the camera's picture. There is one if `picture` of the event "
        "says so: with history.pictures.",
        response_class=Response,
        responses={
            200: {"description": "The picture.", "content": {"image/jpeg": {}}},
            304: {"description": "The picture is as the client has it."},
            **responses(*_FINDING),
        },
    )
    async def best(request: Request, id: str) -> Response:
        picture = await ask(history.picture, number := id_number(id))
        if picture is None:
            raise missing() if await ask(history.one, number) is None else _no_picture(history)
        headers = {"ETag": f'"{id}"', "Cache-Control": f"private, max-age={_PICTURE_AGE_S}"}
        if headers["ETag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        return Response(picture, headers=headers, media_type="image/jpeg")

    @app.delete(
        "/v1/events/{id}",
        tags=["events"],
        summary="Delete an event, and its picture if no other event of the track has it",
        description="Takes a key with the role admin, or, without keys, a program of this machine.",
        response_class=Response,
        responses={
            200: {"description": "It is gone from the disk.", "content": {_JSON: {"schema": DELETED}}},
            **responses(HTTPStatus.FORBIDDEN, HTTPStatus.UNSUPPORTED_MEDIA_TYPE, *_FINDING),
        },
    )
    async def delete(request: Request, id: str) -> Response:
        _check(request, settings)
        if history.store is None:
            raise not_kept()
        deleted = await ask.result(history.remove(id_number(id)))
        if not deleted:
            raise missing()
        return _json({"deleted": deleted})

    @app.delete(
        "/v1/events",
        tags=["events"],
        summary="Delete events: of cameras, of a time, or all",
        description="Takes a key with the role admin, or, without keys, a program of this machine.",
        response_class=Response,
        responses={
            200: {"description": "They are gone from the disk.", "content": {_JSON: {"schema": DELETED}}},
            **responses(HTTPStatus.FORBIDDEN, HTTPStatus.UNSUPPORTED_MEDIA_TYPE, *_ASKING),
        },
    )
    async def delete_all(
        request: Request, camera: Camera = None, since: _Since = None, until: _Until = None
    ) -> Response:
        _check(request, settings)
        others = sorted(request.query_params.keys() - _DELETE_KEYS)
        if others:  # a filter that is not heeded would delete more than was meant
            raise wrong(
                repr(others[0][:40]), "is nothing to delete by, and nothing was deleted: camera, since and until are"
            )
        wanted = filter_of(camera, None, since, until)
        if history.store is None:
            raise not_kept()
        return _json({"deleted": await ask.result(history.remove(wanted))})

    install_statistics(app, history, ask)
    return ask


def _check(request: Request, settings: HttpSettings) -> None:
    """Check a request that deletes; a body, which it needs none of, must be of a type that HTML forms cannot send."""
    check_may_change(request, settings)
    if "content-type" in request.headers:
        check_type(request, (_JSON,))


def _no_picture(history: History) -> Problem:
    why = (
        "its face was never seen well enough, or pictures were not kept then"
        if history.keeps_pictures
        else "no pictures are kept: set history.pictures to true, and restart visaged"
    )
    return Problem(HTTPStatus.NOT_FOUND, "no-picture", f"there is no picture of this event: {why}")


def _json(document: Any) -> Response:
    return Response(orjson.dumps(document), media_type=_JSON)
