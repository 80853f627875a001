"""What an engine tells of its work, for metrics. Methods are called by workers, from several threads."""

from __future__ import annotations

from typing import Protocol

from service.engine.hypothesis import FinishReason


class Observer(Protocol):
    """Counts are of one call; ``tokens`` without and ``padded_tokens`` with padding."""

    def encoded(self, rows: int, tokens: int, padded_tokens: int, seconds: float) -> None: ...

    def stepped(self, rows: int, seconds: float) -> None: ...

    def passed(self, rows: int, tokens: int, padded_tokens: int, seconds: float) -> None: ...

    def finished(self, reason: FinishReason, target_tokens: int) -> None: ...

    def dropped(self, reason: str, wasted_steps: int) -> None: ...


class SilentObserver:
    """For engines that nobody watches."""

    def encoded(self, rows: int, tokens: int, padded_tokens: int, seconds: float) -> None:
        pass

    def stepped(self, rows: int, seconds: float) -> None:
        pass

    def passed(self, rows: int, tokens: int, padded_tokens: int, seconds: float) -> None:
        pass

    def finished(self, reason: FinishReason, target_tokens: int) -> None:
        pass

    def dropped(self, reason: str, wasted_steps: int) -> None:
        pass
