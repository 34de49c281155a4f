"""PixelBudget for the pixels of pictures: bounded, first come first served, and never lost."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from visaged.daemon.api.pictures import PixelBudget


class Guest:
    """Somebody who takes a place and stays until told to go."""

    def __init__(self, room: PixelBudget, pixels: int) -> None:
        self.is_in = False
        self._leave = asyncio.Event()
        self.task = asyncio.create_task(self._visit(room, pixels))

    async def _visit(self, room: PixelBudget, pixels: int) -> None:
        async with room.place(pixels):
            self.is_in = True
            await self._leave.wait()
        self.is_in = False

    def leave(self) -> None:
        self._leave.set()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def run(scene: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scene, 30))


def test_what_fits_comes_in_and_the_rest_waits_in_order() -> None:
    async def scene() -> None:
        room = PixelBudget(100)
        guests = [Guest(room, 40) for _ in range(4)]
        await settle()
        assert [guest.is_in for guest in guests] == [True, True, False, False]
        guests[1].leave()
        await settle()
        assert [guest.is_in for guest in guests] == [True, False, True, False]
        for guest in guests:
            guest.leave()
        await asyncio.gather(*(guest.task for guest in guests))

    run(scene())


def test_what_is_larger_than_the_room_comes_in_alone() -> None:
    async def scene() -> None:
        room = PixelBudget(100)
        small, large = Guest(room, 1), Guest(room, 500)
        await settle()
        assert (small.is_in, large.is_in) == (True, False)
        small.leave()
        await settle()
        assert large.is_in
        late = Guest(room, 1)
        await settle()
        assert not late.is_in
        large.leave()
        await settle()
        assert late.is_in
        late.leave()
        await late.task

    run(scene())


def test_who_gives_up_takes_no_place() -> None:
    async def scene() -> None:
        room = PixelBudget(100)
        inside, waiting, behind = Guest(room, 100), Guest(room, 100), Guest(room, 100)
        await settle()
        waiting.task.cancel()
        await settle()
        assert waiting.task.cancelled()
        inside.task.cancel()
        await settle()
        assert behind.is_in
        behind.leave()
        await behind.task

    run(scene())
