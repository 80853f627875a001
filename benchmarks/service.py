"""The whole service over loopback: calls of one sentence, calls of 64, and how fast a full queue says no.

    python -m benchmarks.service

Client and server are two processes on one machine, so figures are of both. They tell how the parts compare, not what a
server can do.
"""

from __future__ import annotations

import asyncio
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
from heed.v1.attention_pb2 import ATTENTION_VIEW_ALIGNMENT, ATTENTION_VIEW_WORD, AttentionView
from heed.v1.translation_service_pb2 import TranslateRequest
from heed.v1.translation_service_pb2_grpc import TranslationServiceStub

from benchmarks.measuring import ROOT, shipped

SECONDS = 5.0
_VIEW_NAMES = {ATTENTION_VIEW_ALIGNMENT: "links", ATTENTION_VIEW_WORD: "word matrix"}


@contextmanager
def server(*options: str, models: Path = ROOT / "exported") -> Iterator[str]:
    """A server process on a free port; yields its address."""
    addresses = ("--address", "127.0.0.1:0", "--metrics-address", "127.0.0.1:0", "--pause-seconds", "0")
    command = [
        sys.executable,
        "-c",
        "from service.cli import main; main()",
        "serve",
        "--models",
        str(models),
    ]
    process = subprocess.Popen([*command, *addresses, *options], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.search(r"serving on (\S+),", line):
                yield found[1]
                break
    finally:
        process.terminate()
        process.communicate(timeout=30)


async def _load(
    stub: TranslationServiceStub, texts: list[str], callers: int, per_call: int, view: AttentionView | None
) -> str:
    """``callers`` callers, each with one call under way, for a few seconds."""
    latencies: list[float] = []
    ends = time.perf_counter() + SECONDS

    async def caller(place: int) -> None:
        while (started := time.perf_counter()) < ends:
            chosen = [texts[(place + i) % len(texts)] for i in range(per_call)]
            request = TranslateRequest(contents=chosen)
            if view is not None:
                request.attention.view = view
            await stub.Translate(request)
            latencies.append(time.perf_counter() - started)
            place += per_call * callers

    await asyncio.gather(*(caller(i * per_call) for i in range(callers)))
    cuts = statistics.quantiles(latencies, n=100)
    return (
        f"{len(latencies) * per_call / SECONDS:7.0f} sentences/s, a call takes p50 {cuts[49] * 1e3:6.1f} ms, "
        f"p95 {cuts[94] * 1e3:6.1f} ms, p99 {cuts[98] * 1e3:6.1f} ms"
    )


async def _refusals(texts: list[str]) -> str:
    """Fill a small queue and ask on: how long a refusal takes."""
    seconds: list[float] = []
    with server("--queue-tokens", "8000", "--rows-per-worker", "8") as address:
        await _ask_a_full_queue(address, texts, seconds)
    cuts = statistics.quantiles(seconds, n=100)
    p50, p95, p99 = (cuts[place] * 1e3 for place in (49, 94, 98))
    return f"{len(seconds)} refusals: p50 {p50:.1f} ms, p95 {p95:.1f} ms, p99 {p99:.1f} ms"


async def _ask_a_full_queue(address: str, texts: list[str], seconds: list[float]) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = TranslationServiceStub(channel)
        busy = True

        async def fill() -> None:
            while busy:
                try:
                    await stub.Translate(TranslateRequest(contents=texts[:256]))
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(0.002)

        fillers = [asyncio.create_task(fill()) for _ in range(3)]
        ends = time.perf_counter() + SECONDS
        while time.perf_counter() < ends:
            started = time.perf_counter()
            try:
                await stub.Translate(TranslateRequest(contents=texts[:128]))
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                seconds.append(time.perf_counter() - started)
            await asyncio.sleep(0.005)
        busy = False
        await asyncio.gather(*fillers)


async def main() -> None:
    _, examples = shipped("dates", 2000)
    texts = [example.source for example in examples]
    with server() as address:
        await _loads(address, texts)
    print(await _refusals(texts))


async def _loads(address: str, texts: list[str]) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = TranslationServiceStub(channel)
        plans: tuple[tuple[int, int, AttentionView | None], ...] = (
            (1, 1, None),
            (1, 1, ATTENTION_VIEW_WORD),
            (32, 1, None),
            (8, 64, None),
            (8, 64, ATTENTION_VIEW_ALIGNMENT),
            (8, 64, ATTENTION_VIEW_WORD),
        )
        for callers, per_call, view in plans:
            name = "no attention" if view is None else _VIEW_NAMES[view]
            found = await _load(stub, texts, callers, per_call, view)
            print(f"{callers:3} callers x {per_call:2} dates, {name:12}: {found}", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
