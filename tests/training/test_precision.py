"""The dtype that autocast computes in."""

from __future__ import annotations

import torch

from training.models.precision import computing_dtype


def test_it_is_autocasts_where_that_is_on() -> None:
    tensor = torch.ones(2, dtype=torch.float64)
    assert computing_dtype(tensor) == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        assert computing_dtype(tensor) == torch.bfloat16
        with torch.autocast("cpu", enabled=False):
            assert computing_dtype(tensor) == torch.float64
