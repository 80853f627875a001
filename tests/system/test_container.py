"""The image and the compose file, built and run for real with podman (`make test-container`).

``HEED_CONTAINER_BUILD`` may name a program that builds in place of ``podman build``, where a build needs more than this
file knows, such as a package index: it is called as ``PROGRAM TAG -f deploy/Dockerfile . [flags of podman build]``.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.client import Client
from service.settings import ServerSettings

pytestmark = [
    pytest.mark.container,
    pytest.mark.timeout(900),  # building the image is part of the first test
    pytest.mark.skipif(shutil.which("podman") is None, reason="NO CONTAINER WAS TESTED: podman is not installed"),
]
_ROOT = Path(__file__).parents[2]
_PROMETHEUS = _ROOT / "deploy" / "prometheus"
_PROMETHEUS_IMAGE = "docker.io/prom/prometheus:latest"
_RUN = f"heed-test-{os.getpid()}"
_PYTHON = "/opt/heed/bin/python"
_START_SECONDS = 90.0
_SETTINGS = ServerSettings()
_STOP_SECONDS = _SETTINGS.pause_seconds + _SETTINGS.grace_seconds


@dataclass(frozen=True)
class Container:
    """A running server; ``host`` is its address on podman's network, so that nothing needs a port of this machine."""

    name: str
    host: str

    @property
    def address(self) -> str:
        return f"{self.host}:50051"

    def metrics(self) -> str:
        return fetch(f"http://{self.host}:9090/metrics")


# --- the tests of one server ------------------------------------------------------------------------------------------


def test_it_translates(server: Container) -> None:
    assert translate(server.address, "9 May 2018") == "2018-05-09"


def test_it_is_not_root(server: Container) -> None:
    # Kubernetes' runAsNonRoot takes a number only: it cannot look a name up.
    user = podman("inspect", "--type=container", "--format={{.Config.User}}", server.name).strip()
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert podman("exec", server.name, "id", "-u").strip() == user.partition(":")[0]
    capabilities = podman("exec", server.name, "grep", "CapEff", "/proc/1/status")
    assert int(capabilities.split()[1], 16) == 0


@pytest.mark.parametrize("package", ["torch", "onnx", "babel", "pip"])
def test_it_holds_only_what_serving_needs(server: Container, package: str) -> None:
    search = f"import importlib.util; print(importlib.util.find_spec({package!r}))"
    assert podman("exec", server.name, _PYTHON, "-c", search).strip() == "None"


def test_its_bytecode_was_compiled_with_it(server: Container) -> None:
    search = "import service.cli; print(service.cli.__cached__)"
    compiled = podman("exec", server.name, _PYTHON, "-c", search).strip()
    assert run(["podman", "exec", server.name, "test", "-f", compiled]).returncode == 0


@pytest.mark.parametrize("folder", ["/", "/models", "/opt/heed"])
def test_its_root_file_system_cannot_be_written(server: Container, folder: str) -> None:
    # As root too: that it is read-only is more than that the service's user may not.
    for user in ("10001", "0"):
        result = run(["podman", "exec", f"--user={user}", server.name, "touch", f"{folder}/written"])
        assert result.returncode == 1
        assert "Read-only file system" in result.stderr


def test_onnxruntime_leaves_nothing_behind(server: Container) -> None:
    # The fixture makes /tmp its home: with telemetry on, onnxruntime writes a device id and a database below it.
    translate(server.address, "9 May 2018")
    assert podman("exec", server.name, "printenv", "HOME", "ORT_DISABLE_TELEMETRY").split() == ["/tmp", "1"]
    assert podman("exec", server.name, "find", "/tmp", "/var/tmp", "/dev/shm", "-mindepth", "1") == ""


def test_prometheus_can_read_its_metrics(server: Container) -> None:
    page = server.metrics()
    assert re.search(r'^heed_model_ready\{model="dates",version="\d+"\} 1\.0$', page, re.MULTILINE)
    promtool("check", "metrics", stdin=page)


def test_every_alert_is_about_a_metric_that_exists(server: Container) -> None:
    page = server.metrics()
    named = set(re.findall(r"\b(?:heed|grpc)_\w+", (_PROMETHEUS / "alerts.yml").read_text(encoding="utf-8")))
    assert named
    assert {name for name in named if f"# TYPE {name} " not in page} == set()


def test_sigterm_ends_it_with_status_0_within_its_grace(image: str) -> None:
    with started(image, f"{_RUN}-stop") as container:
        assert translate(container.address, "9 May 2018") == "2018-05-09"
        begun = time.monotonic()
        podman("stop", f"--time={_STOP_SECONDS + 10:.0f}", container.name, timeout=_STOP_SECONDS + 30)
        assert time.monotonic() - begun < _STOP_SECONDS
        state = podman("inspect", "--type=container", "--format={{.State.Status}} {{.State.ExitCode}}", container.name)
        assert state.strip() == "exited 0"


@pytest.mark.parametrize(
    ("situation", "why"),
    [("", "UNAVAILABLE"), ("socket.create_server(('127.0.0.1', 50051))", "DEADLINE_EXCEEDED")],
    ids=["no server", "a server that hangs"],
)
def test_the_health_check_fails_in_one_line(image: str, situation: str, why: str) -> None:
    check = (
        f"import socket, subprocess; kept = {situation or None}; "
        f"raise SystemExit(subprocess.run([{_PYTHON!r}, '/opt/heed/healthcheck.py'], timeout=10).returncode)"
    )
    options = ["--rm", "--timeout=50", f"--name={_RUN}-check", f"--entrypoint={_PYTHON}"]
    result = run(["podman", "run", *options, image, "-c", check])
    # podman itself complains on the same stream where there is no systemd to run health checks by the clock.
    said = [line for line in result.stderr.splitlines() if not line.startswith("time=")]
    assert result.returncode == 1
    assert len(said) == 1
    assert said[0].startswith(f"127.0.0.1:50051 is not serving: {why}")


# --- the tests of the compose file ------------------------------------------------------------------------------------


def test_compose_waits_longer_than_the_server_may_need_to_stop() -> None:
    services = yaml.safe_load((_ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    assert float(services["heed"]["stop_grace_period"].removesuffix("s")) > _STOP_SECONDS


def test_promtool_accepts_the_configuration() -> None:
    promtool("check", "config", "/etc/prometheus/prometheus.yml", mounts={_PROMETHEUS: "/etc/prometheus"})
    promtool("check", "rules", "/etc/prometheus/alerts.yml", mounts={_PROMETHEUS: "/etc/prometheus"})


def test_each_alert_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    labels = 'job="heed", instance="heed:9090", model="dates", version="1"'
    trouble = {
        'up{job="heed", instance="heed:9090"}': "0x20",
        f"heed_queue_tokens{{{labels}}}": "950x20",
        f"heed_queue_tokens_limit{{{labels}}}": "1000x20",
        'heed_failures_total{job="heed", instance="heed:9090", reason="INTERNAL"}': "_ _ 1x18",
        f"heed_model_load_failures_total{{{labels}}}": "1x20",
        'heed_shed_total{job="heed", instance="heed:9090", cause="queue_full"}': "0+3x20",
    }
    # A busy server whose last internal error is long past.
    peace = {
        'up{job="heed", instance="heed:9090"}': "1x100",
        f"heed_queue_tokens{{{labels}}}": "850x100",
        f"heed_queue_tokens_limit{{{labels}}}": "1000x100",
        'heed_failures_total{job="heed", instance="heed:9090", reason="INTERNAL"}': "1x10 2x90",
        'heed_shed_total{job="heed", instance="heed:9090", cause="queue_full"}': "7x100",
    }
    rules = yaml.safe_load((_PROMETHEUS / "alerts.yml").read_text(encoding="utf-8"))["groups"][0]["rules"]
    shutil.copy(_PROMETHEUS / "alerts.yml", tmp_path)
    cases = [
        _firing(trouble, "4m", {rule["alert"] for rule in rules}),
        _firing(peace, "3m", {"HeedInternalErrors"}),
        _firing(peace, "20m", set()),
    ]
    tests = {"rule_files": ["alerts.yml"], "evaluation_interval": "5s", "tests": cases}
    (tmp_path / "test.yml").write_text(json.dumps(tests), encoding="utf-8")  # JSON is YAML
    promtool("test", "rules", "/rules/test.yml", mounts={tmp_path: "/rules"})


@pytest.mark.skipif(shutil.which("podman-compose") is None, reason="COMPOSE WAS NOT TESTED: no podman-compose")
def test_prometheus_scrapes_the_server(composed: Callable[[str], str]) -> None:
    heed, prometheus = composed("heed"), composed("prometheus")
    wait_for("a healthy server", lambda: healthy(heed), _START_SECONDS)
    assert translate(published(heed, 50051), "9 May 2018") == "2018-05-09"
    api = f"http://{published(prometheus, 9090)}/api/v1"

    def scraped() -> bool:
        found = query(f"{api}/query?" + urllib.parse.urlencode({"query": 'up{job="heed"} == 1'}))
        return found is not None and len(found["result"]) == 1

    wait_for("Prometheus to scrape the server", scraped, 60.0)

    def judged() -> bool:
        groups = (query(f"{api}/rules") or {"groups": []})["groups"]
        return bool(groups) and all(rule["health"] == "ok" for rule in groups[0]["rules"])

    wait_for("Prometheus to evaluate the alert rules", judged, 60.0)
    compose("down", "-t", f"{_STOP_SECONDS + 10:.0f}")
    assert podman("ps", "--all", "--quiet", f"--filter=label=com.docker.compose.project={_RUN}") == ""


# --- what starts and stops things -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """The image, built now. Without kept layers: a build that changes nothing proves nothing, and leaves nothing."""
    tag = f"localhost/{_RUN}:cpu"
    program = os.environ.get("HEED_CONTAINER_BUILD")
    begin = [program, tag] if program else ["podman", "build", "-t", tag]
    # The format that has a HEALTHCHECK.
    flags = ["--target", "cpu", "--format", "docker", "--layers=false"]
    try:
        result = run([*begin, "-f", "deploy/Dockerfile", ".", *flags], timeout=800)
        if result.returncode:
            pytest.fail(f"the image does not build:\n{(result.stdout + result.stderr)[-6000:]}")
        yield tag
    finally:
        run(["podman", "rmi", "--force", tag])


@pytest.fixture(scope="module")
def server(image: str) -> Iterator[Container]:
    """One healthy server that the tests share; none of them changes it."""
    with started(image, f"{_RUN}-server") as container:
        yield container


@contextmanager
def started(image: str, name: str) -> Iterator[Container]:
    """A healthy server, as locked up as it is meant to run."""
    locks = ["--read-only", "--tmpfs=/tmp", "--cap-drop=all", "--security-opt=no-new-privileges"]
    try:
        podman("run", "--detach", f"--name={name}", *locks, "--env=HOME=/tmp", image)
        wait_for("a healthy server", lambda: healthy(name), _START_SECONDS)
        host = podman("inspect", "--type=container", "--format={{.NetworkSettings.IPAddress}}", name).strip()
        yield Container(name, host)
    finally:
        run(["podman", "rm", "--force", "--time=0", "--ignore", "--volumes", name])


@pytest.fixture
def composed(image: str) -> Iterator[Callable[[str], str]]:
    """docker-compose.yml, up; gives a service's container."""

    def container(service: str) -> str:
        labels = {"project": _RUN, "service": service}
        filters = [f"--filter=label=com.docker.compose.{key}={value}" for key, value in labels.items()]
        names = podman("ps", "--all", "--format={{.Names}}", *filters).split()
        assert len(names) == 1, f"{service}: {names}"
        return names[0]

    try:
        compose("up", "-d", "--no-build", image=image)
        yield container
    finally:
        left = run(["podman", "ps", "--all", "--quiet", f"--filter=label=com.docker.compose.project={_RUN}"])
        run(["podman", "rm", "--force", "--time=0", "--ignore", "--volumes", *left.stdout.split()])
        run(["podman", "network", "rm", "--force", f"{_RUN}_default"])


def compose(*arguments: str, image: str = "") -> None:
    # An empty port takes any free one: someone may be using Heed on this machine.
    free = dict.fromkeys(("HEED_PUBLISH", "HEED_METRICS_PUBLISH", "PROMETHEUS_PUBLISH"), "127.0.0.1:")
    result = run(
        ["podman-compose", "-p", _RUN, *arguments],
        timeout=120,
        environment={**os.environ, **free, "HEED_IMAGE": image},
    )
    assert result.returncode == 0, result.stdout + result.stderr


def run(
    command: list[str],
    *,
    timeout: float = 60.0,
    stdin: str | None = None,
    environment: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        cwd=_ROOT,
        env=environment,
    )


def podman(*arguments: str, timeout: float = 60.0, stdin: str | None = None) -> str:
    """What podman prints; a failure is the test's."""
    result = run(["podman", *arguments], timeout=timeout, stdin=stdin)
    if result.returncode:
        pytest.fail(f"podman {shlex.join(arguments)}: status {result.returncode}\n{result.stdout}{result.stderr}")
    return result.stdout


def promtool(*arguments: str, stdin: str | None = None, mounts: dict[Path, str] | None = None) -> None:
    # As root: pytest's folders are closed to everyone else.
    volumes = [f"--volume={source}:{target}:ro,z" for source, target in (mounts or {}).items()]
    options = ["--rm", "--timeout=50", "--interactive", "--network=none", "--user=0:0", *volumes]
    command = ["--entrypoint=/bin/promtool", _PROMETHEUS_IMAGE, *arguments]
    podman("run", f"--name={_RUN}-promtool", *options, *command, stdin=stdin)


def healthy(name: str) -> bool:
    if podman("inspect", "--type=container", "--format={{.State.Running}}", name).strip() != "true":
        logs = run(["podman", "logs", name])
        pytest.fail(f"{name} ended:\n{logs.stdout}{logs.stderr}")
    return run(["podman", "healthcheck", "run", name]).returncode == 0


def published(name: str, port: int) -> str:
    """Where this machine reaches the container's port, as HOST:PORT."""
    return podman("port", name, str(port)).strip()


def translate(address: str, text: str) -> str:
    with Client(address) as client:
        translation = client.translate([text], "dates").translations[0]
    assert translation.status.code == 0, translation.status.message
    return translation.hypotheses[0].text


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as reply:
        page: str = reply.read().decode()
    return page


def query(url: str) -> dict[str, Any] | None:
    """The data of Prometheus' answer; None while it starts."""
    try:
        data: dict[str, Any] = json.loads(fetch(url))["data"]
    except OSError:
        return None
    return data


def wait_for(what: str, ready: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.2)


def _firing(series: dict[str, str], at: str, alerts: set[str]) -> dict[str, Any]:
    """A case of ``promtool test rules``: of these series, one value every 15 s, exactly these alerts come."""
    expected = [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in sorted(alerts)]
    test = {
        "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
        "eval_time": at,
        "exp_samples": expected,
    }
    inputs = [{"series": name, "values": values} for name, values in series.items()]
    return {"interval": "15s", "input_series": inputs, "promql_expr_test": [test]}
