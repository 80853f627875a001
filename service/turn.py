"""Lets others use the event loop whenever a call has used it for a while."""

from __future__ import annotations

import asyncio
import time

_SECONDS = 0.001


class Turn:
    """One for each call that works on the event loop."""

    def __init__(self) -> None:
        self._begun = time.perf_counter()

    async def over(self) -> None:
        if time.perf_counter() - self._begun > _SECONDS:
            await asyncio.sleep(0)
            self._begun = time.perf_counter()
