"""The event loop is shared out: a few steps of all connections in each of its turns, in the order asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from visaged.daemon.http.wire.turns import Turns


async def turns_until(done: Callable[[], bool]) -> list[int]:
    """Let the loop turn until something is done; return the turns as the loop counts them for a bystander."""
    seen = []
    while not done():
        seen.append(len(seen))
        await asyncio.sleep(0)
        assert len(seen) < 10_000
    return seen


def test_few_steps_are_made_in_a_turn_however_many_ask() -> None:
    async def scene() -> None:
        turns, made = Turns(steps=3), []
        for number in range(30):
            turns.add(lambda number=number: made.append(number))  # type: ignore[misc]
        most = 0
        while len(made) < 30:
            before = len(made)
            await asyncio.sleep(0)
            most = max(most, len(made) - before)
        assert most == 3
        assert made == list(range(30))

    asyncio.run(scene())


def test_who_asks_again_goes_to_the_back() -> None:
    async def scene() -> None:
        turns, made = Turns(steps=1), []

        def endless() -> None:
            made.append("endless")
            turns.add(endless)

        for _ in range(5):
            turns.add(endless)
        turns.add(lambda: made.append("small"))
        await turns_until(lambda: "small" in made)
        assert len(made) <= 6

    asyncio.run(scene())


def test_urgent_steps_do_not_wait_for_others_and_keep_none_waiting() -> None:
    async def scene() -> None:
        turns, made = Turns(steps=4), []

        def endless(kind: str) -> None:
            made.append(kind)
            turns.add(lambda: endless(kind), kind == "urgent")

        for _ in range(500):
            turns.add(lambda: endless("usual"))
        for _ in range(32):
            turns.add(lambda: endless("urgent"), is_urgent=True)
        await turns_until(lambda: made.count("urgent") >= 32)
        assert made.count("urgent") == made.count("usual") == 32
        assert made[0] == "urgent"

    asyncio.run(scene())


def test_a_step_that_fails_keeps_nobody_waiting() -> None:
    async def scene() -> None:
        failures: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context["exception"]))
        turns, made = Turns(), []
        turns.add(lambda: [][0])
        turns.add(lambda: made.append("other"))
        await turns_until(lambda: bool(made))
        assert isinstance(failures[0], IndexError)

    asyncio.run(scene())
