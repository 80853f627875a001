"""Fixtures on the tiny bundles: nothing here needs a GPU, the network or trained weights."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from heed.v1.translation_service_pb2_grpc import TranslationServiceStub

from service.bundle.manifest import MANIFEST_FILE, MANIFEST_HASH_FILE
from service.bundle.repository import Bundle, Repository
from service.engine.engine import Engine, EngineSettings
from service.engine.onnx_model import OnnxModel
from service.rpc.server import Server
from service.settings import ServerSettings

BUNDLES = Path(__file__).parent / "bundles"
FAMILIES = Path(__file__).parent / "families"
EXPORTED = Path(__file__).parents[1] / "exported"


def edit_manifest(directory: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a bundle's manifest and sign it again, as somebody who knows the format could."""
    values = json.loads((directory / MANIFEST_FILE).read_bytes())
    change(values)
    content = json.dumps(values).encode()
    (directory / MANIFEST_FILE).write_bytes(content)
    (directory / MANIFEST_HASH_FILE).write_text(hashlib.sha256(content).hexdigest())


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    """A copy of the tiny bundles that a test may damage."""
    return Path(shutil.copytree(BUNDLES, tmp_path / "bundles"))


@pytest.fixture(scope="session")
def numbers() -> Bundle:
    return Repository(BUNDLES).load("numbers", 1)


@pytest.fixture(scope="session")
def sandglass() -> Bundle:
    """The shipped one-shot model: under a megabyte, and trained, so that its maps mean something."""
    return Repository(EXPORTED).load("sandglass-reverse", 1)


@pytest.fixture(scope="session")
def letters() -> Bundle:
    return Repository(BUNDLES).load("letters", 1)


@pytest.fixture(scope="session")
def numbers_model(numbers: Bundle) -> OnnxModel:
    return OnnxModel(numbers, "cpu")


@pytest.fixture
def engine(numbers_model: OnnxModel) -> Iterator[Engine]:
    running = Engine(numbers_model, EngineSettings(workers=2, rows_per_worker=4))
    yield running
    running.stop()


def tiny_settings(**changes: object) -> ServerSettings:
    """A server on free loopback ports that stops at once."""
    values: dict[str, object] = {
        "models": BUNDLES,
        "address": "127.0.0.1:0",
        "metrics_address": "127.0.0.1:0",
        "provider": "cpu",
        "workers": 1,
        "pause_seconds": 0.0,
        "grace_seconds": 5.0,
    }
    return ServerSettings.model_validate(values | changes)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    running = Server(tiny_settings())
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
async def channel(server: Server) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as opened:
        yield opened


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> TranslationServiceStub:
    return TranslationServiceStub(channel)
