"""The container's health check: status 0 only when the server says SERVING.

Asks grpc.health.v1 for the whole server (the empty service name) on the image's port, and gives up after 2 seconds.
Knows nothing of Heed, so that it starts fast: it runs every few seconds for as long as the container lives.
"""

from __future__ import annotations

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_ADDRESS = "127.0.0.1:50051"
_DEADLINE_SECONDS = 2.0
# Container tools hand the host's proxy variables in; a proxy would look for the server on its own 127.0.0.1.
_OPTIONS = (("grpc.enable_http_proxy", 0),)


def check() -> str:
    """The server's status by name, such as SERVING, or why there is none."""
    with grpc.insecure_channel(_ADDRESS, options=_OPTIONS) as channel:
        try:
            reply = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=""), timeout=_DEADLINE_SECONDS
            )
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status))


if __name__ == "__main__":
    status = check()
    if status != "SERVING":
        sys.exit(f"{_ADDRESS} is not serving: {' '.join(status.split())}")
