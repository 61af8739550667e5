"""How many may do something at once, for when hardly anybody ever has to wait."""

from __future__ import annotations

import asyncio
from collections import deque


class Slots:
    """A semaphore that costs nothing while there are slots, of one event loop."""

    def __init__(self, number: int) -> None:
        self._free = number
        self._waiting: deque[asyncio.Future[None]] = deque()

    def take(self) -> bool:
        """Take a slot if there is one."""
        if not self._free:
            return False
        self._free -= 1
        return True

    async def wait(self, seconds: float) -> None:
        """Take a slot that is given back, first come first served. Raises `TimeoutError`."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(seconds):
                await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                self.give_back()  # it came in the very moment in which we gave up
            raise

    def give_back(self) -> None:
        """Leave a slot to whoever waits for it longest."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
