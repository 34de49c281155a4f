"""`/v1/statistics`: how many faces there were, and what they were like."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import Annotated

import orjson
from fastapi import FastAPI, Query, Response

from visaged.daemon.events.asking import Asking
from visaged.daemon.events.filters import filter_of, time_of, wrong
from visaged.daemon.events.schemas import STATISTICS
from visaged.daemon.http.problems import responses
from visaged.pipelines.history.history import History
from visaged.pipelines.history.query import AGES, Filter
from visaged.pipelines.outputs.documents import timestamp

_DAY_MS = 86_400_000
_MOST_STEPS = 10_000


def install_statistics(app: FastAPI, history: History, ask: Asking) -> None:
    """Add the path `/v1/statistics` to an application.

    Args:
        app: The application; it must answer errors with problem details.
        history: The events.
        ask: Asks the history.
    """

    @app.get(
        "/v1/statistics",
        tags=["events"],
        summary="How many faces there were, and what they were like",
        description="Counts tracks: a person who leaves and comes back is two. Each counts with what was known last. "
        "Attributes that were not sure enough are left out.",
        response_class=Response,
        responses={
            200: {"description": "Numbers of tracks.", "content": {"application/json": {"schema": STATISTICS}}},
            **responses(HTTPStatus.BAD_REQUEST, HTTPStatus.CONFLICT, HTTPStatus.SERVICE_UNAVAILABLE),
        },
    )
    async def statistics(
        camera: Annotated[str | None, Query(description="Names of cameras, separated by commas.")] = None,
        since: Annotated[
            str | None,
            Query(description="When the first tracks began, RFC 3339 with a zone. Left out: a day before until."),
        ] = None,
        until: Annotated[
            str | None, Query(description="Before which time they began, RFC 3339 with a zone. Left out: now.")
        ] = None,
        step_s: Annotated[int, Query(ge=1, le=10_000_000, description="Length of a step of the time.")] = 3600,
    ) -> Response:
        since_ms, until_ms = time_of("since", since), time_of("until", until)
        until_ms = int(time.time() * 1000) if until_ms is None else until_ms
        since_ms = until_ms - _DAY_MS if since_ms is None else since_ms
        if since_ms >= until_ms:
            raise wrong("since", "must be before until, which is now where it is left out")
        step_ms = step_s * 1000
        steps = -(-(until_ms - since_ms) // step_ms)
        if steps > _MOST_STEPS:
            raise wrong("step_s", f"makes {steps} steps of the time; {_MOST_STEPS} are the most")
        cameras = filter_of(camera).cameras
        found = await ask(history.statistics, Filter(cameras, since_ms=since_ms, until_ms=until_ms), step_ms)
        return Response(
            orjson.dumps(
                {
                    "since": timestamp(since_ms / 1000),
                    "until": timestamp(until_ms / 1000),
                    "step_s": step_s,
                    "tracks": [
                        {"from": timestamp((since_ms + step * step_ms) / 1000), "tracks": found.steps.get(step, 0)}
                        for step in range(steps)
                    ],
                    "ages": [
                        {"from": group * AGES, "to": (group + 1) * AGES, "tracks": tracks}
                        for group, tracks in sorted(found.ages.items())
                    ],
                    "emotions": found.emotions,
                    "genders": found.genders,
                }
            ),
            media_type="application/json",
        )
