"""The one place that imports onnxruntime, with its telemetry off. Everyone else imports it from here.

onnxruntime 1.31 starts an uploader and writes a device id to the user's cache when it is first imported, unless
``ORT_DISABLE_TELEMETRY`` is set by then (https://github.com/microsoft/onnxruntime/pull/27379); the runtime switch
alone comes too late. A test imports this module in an empty home and looks for what was written.
"""

from __future__ import annotations

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime

onnxruntime.disable_telemetry_events()

__all__ = ["onnxruntime"]
