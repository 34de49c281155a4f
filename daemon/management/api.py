"""The HTTP API that changes a running daemon: reloads, and cameras that are added, changed and removed."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from http import HTTPStatus
from typing import Any, Protocol, TypeVar

import orjson
from fastapi import FastAPI, Request, Response

from visaged.daemon.config.document import SettingsError
from visaged.daemon.http.json_bodies import check_type, read_object
from visaged.daemon.http.problems import Problem, responses, unknown_camera
from visaged.daemon.http.settings import HttpSettings
from visaged.daemon.management.manager import (
    CameraExists,
    EditedByHand,
    Manager,
    NoSuchCamera,
    NotKept,
)
from visaged.daemon.management.permission import check_may_change, check_may_name
from visaged.daemon.management.schemas import ADD, CAMERA, CHANGE, RELOADED
from visaged.daemon.settings import CameraSettings
from visaged.pipelines.runtime.redact import redact

_JSON = "application/json"
_MERGE_PATCH = "application/merge-patch+json"
_HIDDEN = "***"

_PATIENCE_S = 20.0
"""Longest time that a request waits for its change. A change takes about a second, and may wait for others."""

_Result = TypeVar("_Result")

_REFUSALS = (HTTPStatus.FORBIDDEN, HTTPStatus.SERVICE_UNAVAILABLE)
_BODY_REFUSALS = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)
_WRITING = (HTTPStatus.CONFLICT, HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.INSUFFICIENT_STORAGE)


class View(Protocol):
    """Source of the cameras' states."""

    def cameras(self) -> list[dict[str, Any]]:
        """Return every camera's state."""
        ...


def install_management(app: FastAPI, view: View, manager: Manager, settings: HttpSettings) -> None:
    """Add the paths `/v1/reload` and `/v1/cameras` to an application.

    Args:
        app: The application; it must answer errors with problem details.
        view: The cameras' states.
        manager: Makes the changes.
        settings: Keys and listening address, which decide who may make changes.
    """

    def document(name: str) -> dict[str, Any]:
        camera = manager.camera(name)
        state = next((one for one in view.cameras() if one["camera"] == name), None)
        if camera is None or state is None:
            raise unknown_camera(name)
        return state | {"settings": _public(camera), "kept": manager.is_kept(name)}

    @app.post(
        "/v1/reload",
        tags=["cameras"],
        summary="Read the configuration again, and run with it as far as that can change at run time",
        description="Cameras that are the same as before go on undisturbed. A configuration with a problem changes "
        "nothing. The same as SIGHUP. Takes a key with the role admin, or, without keys, a program of this machine.",
        response_class=Response,
        responses={
            200: {"description": "What changed.", "content": {_JSON: {"schema": RELOADED}}},
            **responses(
                *_REFUSALS, HTTPStatus.CONFLICT, HTTPStatus.UNSUPPORTED_MEDIA_TYPE, HTTPStatus.UNPROCESSABLE_ENTITY
            ),
        },
    )
    async def reload(request: Request) -> Response:
        _check(request, settings)
        _check_is_single(manager)
        done = await _result(manager.reload())
        changes = done.changes
        cameras = {
            "added": changes.added,
            "replaced": changes.replaced,
            "removed": changes.removed,
            "kept": changes.kept,
        }
        return _json({"cameras": cameras, "needs_restart": done.needs_restart})

    @app.post(
        "/v1/cameras",
        tags=["cameras"],
        status_code=201,
        summary="Add a camera",
        description="It is kept in `cameras.yaml` of the state folder, and so survives a restart, where there is one "
        "(`kept`). Any URL, file and device that the configuration can name is possible. Takes a key with the role "
        "admin, or, without keys, a program of this machine.",
        response_class=Response,
        responses={
            201: {
                "description": "The camera, which now runs.",
                "content": {_JSON: {"schema": CAMERA}},
                "headers": {"Location": {"description": "Path of the camera.", "schema": {"type": "string"}}},
            },
            **responses(*_REFUSALS, *_BODY_REFUSALS, *_WRITING),
        },
        openapi_extra={"requestBody": {"required": True, "content": {_JSON: ADD}}},
    )
    async def add(request: Request) -> Response:
        check_may_change(request, settings)
        _check_is_single(manager)
        camera = await read_object(request, (_JSON,))
        check_may_name(request, camera)
        _refuse_hidden(camera)
        name = await _result(manager.add(camera))
        return _json(document(name), HTTPStatus.CREATED, {"Location": f"/v1/cameras/{name}"})

    @app.get(
        "/v1/cameras/{name}",
        tags=["cameras"],
        summary="A camera: its state, and its configuration without secrets",
        response_class=Response,
        responses={
            200: {"description": "The camera.", "content": {_JSON: {"schema": CAMERA}}},
            **responses(HTTPStatus.NOT_FOUND),
        },
    )
    async def camera(name: str) -> Response:
        return _json(document(name))

    @app.patch(
        "/v1/cameras/{name}",
        tags=["cameras"],
        summary="Change a camera",
        description="By a JSON merge patch (RFC 7386): keys that are left out stay as they are, null gives a key its "
        "default back. The camera is opened anew; the other cameras go on undisturbed. Takes a key with the role "
        "admin, or, without keys, a program of this machine.",
        response_class=Response,
        responses={
            200: {"description": "The camera as it is now.", "content": {_JSON: {"schema": CAMERA}}},
            **responses(*_REFUSALS, HTTPStatus.NOT_FOUND, *_BODY_REFUSALS, *_WRITING),
        },
        openapi_extra={"requestBody": {"required": True, "content": {_MERGE_PATCH: CHANGE, _JSON: CHANGE}}},
    )
    async def change(request: Request, name: str) -> Response:
        check_may_change(request, settings)
        _check_is_single(manager)
        patch = await read_object(request, (_MERGE_PATCH, _JSON))
        check_may_name(request, patch)
        _refuse_hidden(patch)
        await _result(manager.change(name, patch))
        return _json(document(name))

    @app.delete(
        "/v1/cameras/{name}",
        tags=["cameras"],
        status_code=204,
        summary="Remove a camera",
        description="Its faces end, and its retained status leaves the broker. A camera of the configuration stays "
        "removed after a restart where there is a state folder. Takes a key with the role admin, or, without keys, a "
        "program of this machine.",
        response_class=Response,
        responses={
            204: {"description": "The camera was removed."},
            **responses(
                *_REFUSALS, HTTPStatus.NOT_FOUND, HTTPStatus.UNSUPPORTED_MEDIA_TYPE, HTTPStatus.UNPROCESSABLE_ENTITY,
                *_WRITING,
            ),
        },
    )  # fmt: skip
    async def remove(request: Request, name: str) -> Response:
        _check(request, settings)
        _check_is_single(manager)
        await _result(manager.remove(name))
        return Response(status_code=HTTPStatus.NO_CONTENT)


def _check(request: Request, settings: HttpSettings) -> None:
    """Check a request that needs no body; if it has a body, that must be of a type that HTML forms cannot send."""
    check_may_change(request, settings)
    if "content-type" in request.headers:
        check_type(request, (_JSON, _MERGE_PATCH))


def _check_is_single(manager: Manager) -> None:
    """Raise `Problem` if the configuration is a fleet's, and would have another one at each heartbeat."""
    if manager.fleet:
        detail = (
            f"the fleet {manager.fleet} holds the cameras and their configuration; change them with `visaged fleet "
            "add` and `visaged fleet remove`, or change its file and run `visaged fleet run` again"
        )
        raise Problem(HTTPStatus.CONFLICT, "held-by-fleet", detail)


async def _result(future: Future[_Result]) -> _Result:
    """Wait for a change, and return its result; raises `Problem` if it was refused or not made in time."""
    try:
        async with asyncio.timeout(_PATIENCE_S):
            return await asyncio.wrap_future(future)
    except SettingsError as error:
        errors = [(problem.path, problem.text) for problem in error.problems]
        texts = [f"{path}: {text}" if path else text for path, text in errors]
        detail = f"nothing was changed, because of {'; '.join(texts)}"
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-configuration", detail, errors=errors) from None
    except CameraExists as error:
        detail = f"there is a camera {error} already; change it with PATCH /v1/cameras/{error}, or choose another name"
        raise Problem(HTTPStatus.CONFLICT, "camera-exists", detail) from None
    except NoSuchCamera as error:
        raise unknown_camera(str(error)) from None
    except EditedByHand as error:
        raise Problem(HTTPStatus.CONFLICT, "edited-by-hand", f"nothing was changed, because {error}") from None
    except NotKept as error:
        status = HTTPStatus.INSUFFICIENT_STORAGE if error.is_full else HTTPStatus.INTERNAL_SERVER_ERROR
        raise Problem(status, "not-kept", str(error)) from None
    except (TimeoutError, asyncio.CancelledError):
        outcome = "nothing was changed" if future.cancelled() else "it may still be made"
        detail = f"the change was not made in time, or the daemon is stopping: {outcome}"
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "not-in-time", detail, {"Retry-After": "10"}) from None


def _public(camera: CameraSettings) -> dict[str, Any]:
    """Return the configuration of a camera without what is, or may be, secret."""
    document = camera.model_dump(mode="json", exclude_none=False)
    document["url"] = camera.shown_url
    for key in ("username", "password"):
        if document[key] is not None:
            document[key] = _HIDDEN
    document["options"] = dict.fromkeys(document["options"], _HIDDEN)
    return document


def _refuse_hidden(document: dict[str, Any]) -> None:
    """Raise `Problem` if a document has the placeholder that answers show for secrets: it would replace the secret."""
    options = document.get("options")
    values = {key: document.get(key) for key in ("url", "username", "password")}
    values |= {f"options.{key}": value for key, value in options.items()} if isinstance(options, dict) else {}
    text = f"has {_HIDDEN} as answers have it in place of a secret; leave the key out of a PATCH, or give the secret"
    errors = [(redact(key), text) for key, value in values.items() if isinstance(value, str) and _HIDDEN in value]
    if errors:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-configuration", text, errors=errors)


def _json(document: Any, status: HTTPStatus = HTTPStatus.OK, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(document), status, headers, media_type=_JSON)
