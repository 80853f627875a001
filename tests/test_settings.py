from __future__ import annotations

import pytest
from pydantic import ValidationError

from service.settings import ServerSettings, split_address


@pytest.mark.parametrize("address", ["127.0.0.1:0", "localhost:50051", "[::1]:9090", "0.0.0.0:65535"])
def test_addresses(address: str) -> None:
    host, port = split_address(ServerSettings(address=address).address)
    assert host.strip("[]") in address
    assert address.endswith(str(port))


@pytest.mark.parametrize("address", ["", "localhost", ":50051", "localhost:", "localhost:x", "localhost:70000"])
def test_no_addresses(address: str) -> None:
    with pytest.raises(ValidationError, match="HOST:PORT"):
        ServerSettings(address=address)


@pytest.mark.parametrize(
    "wrong",
    [
        {"workers": -1},
        {"rows_per_worker": 0},
        {"provider": "tpu"},
        {"grace_seconds": -1},
        {"queue_tokens": 0},
        {"x": 1},
    ],
)
def test_values_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ServerSettings.model_validate(wrong)
