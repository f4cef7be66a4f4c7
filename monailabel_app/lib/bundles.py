"""Running a bundle's configuration as its command line does, with what it prints kept for the client."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any, TextIO

from monai.bundle import ConfigWorkflow

from monai_diffens.messages import InputRejected

__all__ = ["config_of", "find_bundles", "metadata_of", "offered_parameters", "run_bundle"]

OFFERED = "displayable_configs"


def find_bundles(folder: Path, names: str | None = None) -> dict[str, Path]:
    """Bundles in a folder: name -> path of each that has ``configs/inference.json`` and weights.

    Args:
        folder: of bundles.
        names: comma-separated, to take only these; all when None.
    """
    found = {
        path.parents[1].name: path.parents[1]
        for path in sorted(folder.glob("*/configs/inference.json"))
        if (path.parents[1] / "models" / "model.pt").is_file()
    }
    if names is None:
        return found
    wanted = [name.strip() for name in names.split(",")]
    missing = [name for name in wanted if name not in found]
    if missing:
        raise SystemExit(f"no bundle {', '.join(missing)} in {folder}; it holds {', '.join(found) or 'none'}")
    return {name: found[name] for name in wanted}


def metadata_of(bundle: Path) -> dict[str, Any]:
    """Content of a bundle's ``metadata.json``."""
    return config_of(bundle / "configs" / "metadata.json")


def config_of(config_file: Path) -> dict[str, Any]:
    """Content of a configuration, as it stands."""
    return dict(json.loads(config_file.read_text(encoding="utf-8")))


def offered_parameters(config_file: Path) -> dict[str, Any]:
    """What a bundle lets clients turn: name -> default, from ``displayable_configs`` of its configuration.

    Each is the name of a value at the top of the configuration, which a request then replaces. Empty where
    the configuration offers nothing.
    """
    config = config_of(config_file)
    offered = dict(config.get(OFFERED) or {})
    for name, value in offered.items():
        same = value == f"@{name}" or (isinstance(value, list) and value[:1] == [config.get(name)])
        if name not in config or not same:
            raise SystemExit(f"{config_file}: {OFFERED}: {name} is not a value of the configuration")
    return {name: config[name] if value == f"@{name}" else value for name, value in offered.items()}


def run_bundle(config_file: Path, workflow_type: str, values: Mapping[str, Any]) -> list[str]:
    """Run a configuration from ``initialize`` to ``finalize`` in this process.

    Args:
        config_file: ``<bundle>/configs/<name>.json``.
        workflow_type: "inference" or "train".
        values: top-level ids to replace. None of them may be text from a client: MONAI runs a text that
            starts with ``$``.

    Returns:
        The lines that this project logged.

    Raises:
        InputRejected: the bundle stopped with a line for its user.
    """
    with _overheard() as (lines, errors), _search_path_kept(), _signals_kept():
        try:
            workflow = ConfigWorkflow(
                str(config_file),
                logging_file=False,  # the server's logging stays as it is
                workflow_type=workflow_type,
                bundle_root=str(config_file.parents[1]),
                **values,
            )
            workflow.initialize()
            workflow.run()
            workflow.finalize()
        except SystemExit as stopped:
            if isinstance(stopped.code, str):
                raise InputRejected(stopped.code) from stopped
            _pass_on(stopped.code)
            if stopped.code:  # the line is on stderr, maybe before a last progress bar
                told = [line for line in errors.getvalue().splitlines() if line.strip() and "%|" not in line]
                raise InputRejected((told or lines or ["stopped"])[-1]) from stopped
    return lines


@contextmanager
def _signals_kept() -> Iterator[None]:
    """A bundle ends its process on signals: from then on the server's own handlers are to do that again."""
    if threading.current_thread() is not threading.main_thread():
        yield  # where signals cannot be set, the bundle has not set them
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _pass_on(status: int | None) -> None:
    """Give the signal that ended a run to the server too, which was the one meant; see ``_signals_kept``."""
    number = (status or 0) - 128
    if number in (signal.SIGINT, signal.SIGTERM):
        threading.Timer(0.5, os.kill, (os.getpid(), number)).start()


class _Tee(io.StringIO):
    """Keeps what is written, and passes it on: a progress bar is still seen on the server's console."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(text)
        return super().write(text)

    def flush(self) -> None:
        self.stream.flush()


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def _overheard() -> Iterator[tuple[list[str], io.StringIO]]:
    """What this project logs, and what is written to stderr."""
    logger, handler, tee = logging.getLogger("monai_diffens"), _Lines(), _Tee(sys.stderr)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with redirect_stderr(tee):
            yield handler.lines, tee
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


@contextmanager
def _search_path_kept() -> Iterator[None]:
    """MONAI leaves a bundle's folder on the search path, where the next bundle would find its modules."""
    before = sys.path[:]
    try:
        yield
    finally:
        sys.path[:] = before
