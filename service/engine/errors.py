"""Why the engine gives a sentence back without a translation.

EngineError
├── QueueFullError        its bound of waiting and running tokens is reached
├── DeadlineError         the sentence's deadline has passed, queued or running
├── StoppedError          the engine is stopping or has stopped
├── RuntimeFailureError   onnxruntime failed on this sentence, even alone
└── ProviderError         the wanted execution provider cannot be had
"""


class EngineError(Exception):
    """Base of all of the engine's errors."""


class QueueFullError(EngineError):
    """``limit_tokens`` are waiting or running already."""

    def __init__(self, wanted_tokens: int, held_tokens: int, limit_tokens: int) -> None:
        super().__init__(f"{wanted_tokens} more tokens do not fit: {held_tokens} of {limit_tokens} are held")
        self.wanted_tokens = wanted_tokens
        self.held_tokens = held_tokens
        self.limit_tokens = limit_tokens


class DeadlineError(EngineError):
    """The deadline has passed."""


class StoppedError(EngineError):
    """The engine takes no more work."""


class RuntimeFailureError(EngineError):
    """onnxruntime failed. The message is for the log, never for a client."""


class ProviderError(EngineError):
    """The machine or the installed onnxruntime lacks the execution provider that was asked for."""
