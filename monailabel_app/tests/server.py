"""Starting `monailabel start_server` for a test, and stopping it whatever happens."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

APP = Path(__file__).parents[1]
START_SECONDS = 600  # imports, on a busy machine


def environment() -> dict[str, str]:
    """Of the server: this virtual environment's programs first, and its torchvision importable."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(Path(__file__).parent / "torchvision_ops"),
    }


def command(studies: Path, host: str, port: int, bundles: Path | None = None) -> list[str]:
    """As docs/monai_label.md has it."""
    start = ["monailabel", "start_server", "--app", str(APP), "--studies", str(studies)]
    conf = [] if bundles is None else ["--conf", "bundles", str(bundles)]
    return [*start, *conf, "--host", host, "--port", str(port)]


def free_port() -> int:
    """A port of the loopback interface that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_server(studies: Path, log: Path, bundles: Path) -> Iterator[str]:
    """The URL of a server of a folder of bundles that answers; it and its children are gone afterwards."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with log.open("w") as file:
        process = subprocess.Popen(
            command(studies, "127.0.0.1", port, bundles),
            env=environment(),
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_for(process, url, log)
        yield url
    finally:
        _stop(process)


def _wait_for(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            raise SystemExit(f"the server stopped:\n{log.read_text()}")
        try:
            if requests.get(f"{url}/info/", timeout=60).ok:
                return
        except requests.ConnectionError:
            time.sleep(1)
    raise SystemExit(f"no answer in {START_SECONDS} s:\n{log.read_text()}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    for number, seconds in ((signal.SIGTERM, 30), (signal.SIGKILL, 10)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
    process.wait()
    try:  # children of a server that ended by itself
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
