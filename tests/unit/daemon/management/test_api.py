"""Waiting for a change over HTTP: the event loop goes on, and nobody waits for ever."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from typer.testing import CliRunner

from visaged.daemon.cli.main import app as command
from visaged.daemon.http import problems
from visaged.daemon.http.settings import HttpSettings
from visaged.daemon.management import api
from visaged.daemon.management.manager import Reloaded
from visaged.daemon.settings import CameraSettings
from visaged.pipelines.cameras import Changes


class Manager:
    """Makes no change before the test says so."""

    fleet = ""

    def __init__(self) -> None:
        self.future: Future[Reloaded] = Future()
        self.asked = asyncio.Event()

    def reload(self) -> Future[Reloaded]:
        self.asked.set()
        return self.future

    def camera(self, name: str) -> CameraSettings | None:
        return None


class View:
    def cameras(self) -> list[dict[str, Any]]:
        return []


def client(manager: Manager) -> httpx.AsyncClient:
    app = FastAPI()
    problems.install(app)
    api.install_management(app, View(), manager, HttpSettings())  # type: ignore[arg-type]
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8080")


def test_other_requests_are_answered_while_a_change_is_made() -> None:
    async def talk() -> None:
        manager = Manager()
        async with client(manager) as session:
            waiting = asyncio.create_task(session.post("/v1/reload"))
            async with asyncio.timeout(30):
                await manager.asked.wait()
            assert (await session.get("/v1/cameras/door")).status_code == 404
            assert not waiting.done()
            manager.future.set_result(Reloaded(Changes(added=("door",)), ("http.port",)))
            assert (await waiting).json() == {
                "cameras": {"added": ["door"], "replaced": [], "removed": [], "kept": []},
                "needs_restart": ["http.port"],
            }

    asyncio.run(talk())


@pytest.mark.parametrize(("has_begun", "outcome"), [(False, "nothing was changed"), (True, "may still be made")])
def test_a_change_that_takes_too_long_is_answered(
    monkeypatch: pytest.MonkeyPatch, has_begun: bool, outcome: str
) -> None:
    monkeypatch.setattr(api, "_PATIENCE_S", 0.0)

    async def talk() -> None:
        manager = Manager()
        if has_begun:
            manager.future.set_running_or_notify_cancel()
        async with client(manager) as session:
            answer = await session.post("/v1/reload")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
        assert outcome in answer.json()["detail"]
        assert manager.future.cancelled() is not has_begun
        if has_begun:
            manager.future.set_result(Reloaded(Changes(), ()))  # and nobody minds

    asyncio.run(talk())


def test_a_key_is_made_with_a_role() -> None:
    done = CliRunner().invoke(command, ["key", "boss", "--role", "admin"])
    assert done.exit_code == 0
    assert "      role: admin\n" in done.stderr
    assert "role" not in CliRunner().invoke(command, ["key", "shop"]).stderr
    assert CliRunner().invoke(command, ["key", "shop", "--role", "boss"]).exit_code == 2
