"""Questions to the history: asked in threads of their own, few at a time, with errors as problems."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from http import HTTPStatus
from typing import ParamSpec, TypeVar

from visaged.daemon.http.problems import Problem
from visaged.pipelines.history.history import NotKept
from visaged.pipelines.history.readers import TooSlow, Unavailable

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

_THREADS = 2
_MOST_WAITING = 32
_PATIENCE_S = 30.0


class Asking:
    """Asks the history, off the event loop. Only for the thread of that loop.

    To look for a thousand answers at once would hold up the cameras; so it is two at a time, and few wait.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, "history-reader")
        self._waiting = 0

    async def __call__(
        self, ask: Callable[_Arguments, _Result], *arguments: _Arguments.args, **more: _Arguments.kwargs
    ) -> _Result:
        """Return what a function returns, called in another thread.

        Raises:
            Problem: There is no answer; the text says why.
        """
        if self._waiting >= _MOST_WAITING:
            detail = "too many questions wait for the history; try again"
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "overloaded", detail, {"Retry-After": "1"})
        future = self._pool.submit(ask, *arguments, **more)
        self._waiting += 1
        try:
            return await self.result(future)
        finally:
            self._waiting -= 1

    async def result(self, future: Future[_Result]) -> _Result:
        """Wait for a result.

        Raises:
            Problem: There is none; the text says why.
        """
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return await asyncio.wrap_future(future)
        except NotKept:
            raise not_kept() from None
        except Unavailable as error:
            detail = f"the history cannot be used now: {error}; /readyz shows when it can"
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "history-unavailable", detail, {"Retry-After": "5"}) from None
        except TooSlow:
            detail = (
                "the answer took too long to find; ask for less time between since and until, or for fewer attributes"
            )
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "too-slow", detail, {"Retry-After": "5"}) from None
        except TimeoutError:
            detail = "the history did not answer in time; what was asked for may still be done"
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "not-in-time", detail, {"Retry-After": "10"}) from None

    def close(self) -> None:
        """Take no more questions."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def not_kept() -> Problem:
    """Return the problem of a history that is switched off."""
    detail = "no events are kept: set history.keep_hours to the hours for which they should be, and restart visaged"
    return Problem(HTTPStatus.CONFLICT, "no-history", detail)
