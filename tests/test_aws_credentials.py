"""Credentials from a function that blocks, fails, or does neither come nor fail."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from labelport.errors import AccessDenied, StoreTimeout
from labelport.stores.aws_credentials import AwsCredentials, BlockingCredentials

GOOD = AwsCredentials("AKIDEXAMPLE", "secret")


class Fetch:
    """Waits until it may go on, then fails or returns; counts how often it was called."""

    def __init__(self) -> None:
        self.calls = 0
        self.begun, self.may_end = threading.Event(), threading.Event()
        self.error: Exception | None = AccessDenied("the AWS credentials could not be renewed")

    def __call__(self) -> AwsCredentials:
        self.calls += 1
        self.begun.set()
        assert self.may_end.wait(30)
        if self.error:
            raise self.error
        return GOOD


@pytest.fixture
def fetch() -> Iterator[Fetch]:
    made = Fetch()
    yield made
    made.may_end.set()


async def asked(source: BlockingCredentials, times: int = 1) -> list[object]:
    """What *times* requests at once get: credentials, or the class of an error."""
    got = await asyncio.gather(*(source() for _ in range(times)), return_exceptions=True)
    return [type(each) if isinstance(each, Exception) else each for each in got]


def test_a_failure_is_everybodys_who_waits(fetch: Fetch) -> None:
    """And it is that of who comes soon after, too: they do not wait one behind another."""

    async def story() -> None:
        source = BlockingCredentials(fetch)
        waiting = asyncio.create_task(asked(source, 5))
        await asyncio.to_thread(fetch.begun.wait, 10)
        fetch.may_end.set()

        assert await waiting == [AccessDenied] * 5
        assert await asked(source, 5) == [AccessDenied] * 5
        assert fetch.calls == 1

    asyncio.run(story())


def test_what_failed_is_tried_again_after_a_pause(fetch: Fetch) -> None:
    fetch.may_end.set()

    async def story() -> None:
        source = BlockingCredentials(fetch, failed_seconds=0.05)
        assert await asked(source) == [AccessDenied]
        fetch.error = None
        await asyncio.sleep(0.06)

        assert await asked(source, 5) == [GOOD] * 5
        assert fetch.calls == 2

    asyncio.run(story())


def test_nobody_waits_for_ever(fetch: Fetch) -> None:
    """The first waits for so long, the next not at all, and what comes late is used."""
    fetch.error = None

    async def story() -> None:
        source = BlockingCredentials(fetch, patience_seconds=0.2)
        assert await asked(source, 5) == [StoreTimeout] * 5
        begun = time.monotonic()
        assert await asked(source, 5) == [StoreTimeout] * 5
        assert time.monotonic() - begun < 0.15
        fetch.may_end.set()

        async with asyncio.timeout(10):
            while await asked(source) != [GOOD]:
                pass
        assert fetch.calls == 1

    asyncio.run(story())


def test_what_never_comes_does_not_keep_the_loop_from_its_end(fetch: Fetch) -> None:
    async def story() -> list[object]:
        return await asked(BlockingCredentials(fetch, patience_seconds=0.05))

    begun = time.monotonic()
    assert asyncio.run(story()) == [StoreTimeout]
    assert time.monotonic() - begun < 5


def test_a_failure_is_that_of_who_comes_soon_after_in_another_loop(fetch: Fetch) -> None:
    fetch.may_end.set()
    source = BlockingCredentials(fetch)

    assert [asyncio.run(asked(source)) for _ in range(2)] == [[AccessDenied]] * 2
    assert fetch.calls == 1


def test_what_hangs_in_a_loop_that_has_ended_keeps_no_other_from_asking(fetch: Fetch) -> None:
    source = BlockingCredentials(fetch, patience_seconds=0.05)

    assert [asyncio.run(asked(source)) for _ in range(2)] == [[StoreTimeout]] * 2
    assert fetch.calls == 2


def test_who_gives_up_waiting_spoils_it_for_nobody(fetch: Fetch) -> None:
    fetch.error = None

    async def story() -> None:
        source = BlockingCredentials(fetch)
        hasty, patient = (asyncio.create_task(source()) for _ in range(2))
        await asyncio.to_thread(fetch.begun.wait, 10)
        hasty.cancel()
        await asyncio.sleep(0)
        fetch.may_end.set()

        assert await patient == GOOD
        assert fetch.calls == 1

    asyncio.run(story())
