"""Everything that can be set about a server: one place, each with a default and a check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _check_address(address: str) -> str:
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise ValueError("an address is HOST:PORT, such as 127.0.0.1:50051")
    return address


Address = Annotated[str, AfterValidator(_check_address)]


class ServerSettings(BaseModel):
    """Of ``heed serve``; each option there has the same name. Seconds, bytes and counts are in the names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: Path = Path("exported")
    address: Address = "127.0.0.1:50051"
    metrics_address: Address = "127.0.0.1:9090"
    default_model: str | None = None
    provider: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "int8"] = "fp32"
    workers: Annotated[int, Field(ge=0, le=256)] = 0
    threads_per_worker: Annotated[int, Field(ge=1, le=256)] = 1
    rows_per_worker: Annotated[int, Field(ge=1, le=4096)] = 64
    queue_tokens: Annotated[int, Field(ge=1)] = 200_000
    max_contents: Annotated[int, Field(ge=1)] = 1024
    max_characters: Annotated[int, Field(ge=1)] = 20_000
    pause_seconds: Annotated[float, Field(ge=0)] = 1.0
    grace_seconds: Annotated[float, Field(ge=0)] = 20.0


def split_address(address: str) -> tuple[str, int]:
    """HOST and PORT of a checked address; the brackets of an IPv6 host go."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
