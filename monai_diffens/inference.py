"""A bundle's inference: the one step of its config's ``run``, and the same called from this process.

What a run changes of its process it puts back: the answer to signals, the states of random numbers.
"""

from __future__ import annotations

import _thread
import io
import logging
import random
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from monai_diffens.bundle.before_run import (
    check_before_run,
    check_bundle,
    check_overrides,
    ended_in_a_line,
    own_errors,
    verbatim,
)
from monai_diffens.bundle.folder import CONFIG, read_config
from monai_diffens.data.case_list import CaseList
from monai_diffens.data.results import write_derivatives, write_table
from monai_diffens.data.writer import output_path
from monai_diffens.engines import processes
from monai_diffens.engines.case_evaluator import CaseEnd, CaseProgress
from monai_diffens.messages import InputRejected, is_command, say, survive_consoles, tell
from monai_diffens.networks.weights import load_weights
from monai_diffens.options import id_of
from monai_diffens.report.index import write_index

__all__ = ["find_cases", "open_inference", "restore_cases", "restore_items", "run", "run_inference"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)
RETRY_S = 0.01

_alone = threading.Lock()  # a run holds the process's stderr, and a network that a caller may use again


class Interrupted(BaseException):
    """A signal ended the run; nothing that handles errors takes it for one.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def interruptible(always: bool = False) -> Iterator[None]:
    """SIGINT (Ctrl-C) and SIGTERM (schedulers) raise :class:`Interrupted` here, so that unfinished files go.

    In a command alone, see :func:`~monai_diffens.messages.is_command`: in a program of the user's the signals
    are the user's. Python hands signals to the main thread only; elsewhere this does nothing, since a server
    has its own way to end.

    Args:
        always: whatever the process is.
    """
    if not (always or is_command()) or threading.current_thread() is not threading.main_thread():
        yield
        return
    others, stopping, telling = sys.unraisablehook, False, False

    def again(number: int) -> None:
        time.sleep(RETRY_S)
        _thread.interrupt_main(signal.Signals(number))

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        if telling:  # what is raised now would be dropped too
            _thread.start_new_thread(again, (number,))
            return
        raise Interrupted(number)

    def raise_again(dropped: Any) -> None:
        """Python drops what a finaliser or a callback raises: an interruption comes again a moment later."""
        nonlocal telling
        telling = True
        try:
            if isinstance(dropped.exc_value, Interrupted):
                _thread.start_new_thread(again, (dropped.exc_value.number,))
            elif not stopping:  # what an interruption left half made may fail to be finalised
                others(dropped)
        finally:
            telling = False

    before = {number: signal.signal(number, stop) for number in SIGNALS}
    sys.unraisablehook = raise_again
    try:
        yield
    except Interrupted as stopped:
        traceback.clear_frames(stopped.__traceback__)  # finalises what is half made while that is not told
        raise
    finally:
        sys.unraisablehook = others
        for number, handler in before.items():
            signal.signal(number, handler)


def told_status(stopped: Interrupted) -> int:
    """Tell that a signal ended the run, and return the exit status that is usual then: 130, 143."""
    tell(say("interrupted", signal=signal.Signals(stopped.number).name), sys.stderr)
    return 128 + stopped.number


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Put back the states of torch (CPU), NumPy and Python: building a network draws from them."""
    of_numpy, of_python = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        np.random.set_state(of_numpy)
        random.setstate(of_python)


def run(bundle_root: str | Path) -> None:
    """Check the bundle and what it was told, restore the running workflow's cases, and end with a status.

    ``inference.json`` calls it in ``run`` and has no ``initialize``: only in ``run`` does MONAI find the
    package that an unpacked release brings.

    Args:
        bundle_root: folder of the bundle.

    Raises:
        RuntimeError: no workflow's config calls it.
        SystemExit: 1 where a case has no result, 128 and the number of a signal; else as
            :func:`~monai_diffens.bundle.before_run.ended_in_a_line`.
    """
    workflow = check_before_run(bundle_root)
    if workflow is None:
        raise RuntimeError("called outside of a workflow of MONAI's")
    try:
        with ended_in_a_line():
            status = _run(workflow.parser)
    except Interrupted as stopped:
        raise SystemExit(told_status(stopped)) from None
    if status:
        raise SystemExit(status)


def _run(parser: ConfigParser) -> int:
    """Restore the cases; 1 where one was rejected or has no result, else 0."""
    get = parser.get_parsed_content
    survive_consoles()
    with interruptible(), random_state_kept():
        share, network = get(id_of(parser.get(), "share")), get("network_def")
        processes.start(share)
        cases: CaseList = get("cases")
        items = cases.items  # found and checked before anything is loaded
        load_weights(network, get(id_of(parser.get(), "weights_file")))
        processes.join(network, share)
        if items:
            get("evaluator").run()
        processes.leave()
        if processes.place().rank == 0:
            cases.settle()
            if get("report"):
                write_index(cases, get("scale"))
                write_table(cases)
            write_derivatives(cases)
        return cases.finish() if processes.writes(share) else 0


def open_inference(root: Path, options: Mapping[str, Any]) -> ConfigWorkflow:
    """Read a bundle's ``inference.json`` with some ids replaced; nothing is made or loaded yet.

    Args:
        root: folder of the bundle.
        options: id -> value; text is handed on as it is, whatever signs of MONAI's own are in it.
    """
    talk = logging.getLogger("monai.bundle.workflows")  # tells that logging.conf is left alone
    disabled, talk.disabled = talk.disabled, True
    config = read_config(root)
    try:
        with warnings.catch_warnings():  # MONAI tells of every config that it parses
            warnings.filterwarnings("ignore", "parsing config_file", UserWarning)
            return ConfigWorkflow(
                str(root / CONFIG),
                workflow_type="inference",
                logging_file=False,
                bundle_root=verbatim(str(root)),
                **{id_of(config, name): verbatim(value) for name, value in options.items()},
            )
    finally:
        talk.disabled = disabled


def run_inference(
    workflow: ConfigWorkflow, on_end: Callable[[CaseEnd], None] = lambda _: None, bar: bool = False
) -> tuple[CaseList, int]:
    """Run a workflow of :func:`open_inference` to its end.

    Args:
        workflow: opened, not run.
        on_end: called with each case as it ends.
        bar: show bars over the cases and over the steps of each, with the time left, on stderr.

    Returns:
        The cases of the run, and 0, or 1 where one of them was rejected or has no result.

    Raises:
        OptionError: an option has a wrong name or value.
        BundleRejected: the bundle or its weights cannot be used.
        InputRejected: there is nothing to work on, or the only case was rejected.
        Interrupted: a signal ended the run.
    """
    _prepare(workflow, [CaseProgress(on_end, bar)], bar)
    with redirect_stdout(io.StringIO()), own_errors():  # the caller tells the summary in its own way
        check_bundle(workflow.config_root_path.parent.resolve())
        check_overrides(workflow)
        status = _run(workflow.parser)
        workflow.finalize()
    return cases_of(workflow), status


def restore_cases(workflow: ConfigWorkflow) -> Path:
    """Restore the one case of a workflow whose ``network_def`` is a network with its weights loaded.

    Threads that call it take turns.

    Returns:
        Path of the result.

    Raises:
        InputRejected: in one line, why there is none.
    """
    with _alone:
        return _restore_cases(workflow)


def _restore_cases(workflow: ConfigWorkflow) -> Path:
    _prepare(workflow, [], False)
    with own_errors():
        cases = cases_of(workflow)
        items = cases.items
    if cases.rejected or len(items) + len(cases.skipped) + len(cases.fine) != 1:
        told = [entry.reason for entry in cases.rejected]
        raise InputRejected(told[0] if told else say("one_case"))
    if cases.fine:
        raise InputRejected(say("already_fine", name=cases.fine[0].name))
    if cases.skipped:
        return cases.skipped[0]
    with torch.random.fork_rng(devices=[]):  # loaders draw from the process's generator
        workflow.parser.get_parsed_content("evaluator").run()
    if cases.failures:
        raise InputRejected(next(iter(cases.failures.values())))
    return output_path(cases.output_dir, items[0]["case"], cases.suffix)


def restore_items(workflow: ConfigWorkflow, cases: Any) -> bool:
    """Restore cases that were checked elsewhere, in a workflow whose ``network_def`` has its weights loaded.

    Args:
        workflow: opened, not run.
        cases: in place of those that it would find: with ``items``, ``fail`` and ``failures``.

    Returns:
        Whether the run ended early, since no result can be written any more.
    """
    workflow.parser["cases"] = cases
    _prepare(workflow, [], False)
    with own_errors(), torch.random.fork_rng(devices=[]):
        evaluator = workflow.parser.get_parsed_content("evaluator")
        evaluator.run()
    return bool(evaluator.should_terminate)


def find_cases(workflow: ConfigWorkflow) -> CaseList:
    """Check the options and the cases of a workflow without running it.

    Raises:
        InputRejected: as :func:`run_inference`.
    """
    with own_errors():
        workflow.initialize()
        cases = cases_of(workflow)
        _ = cases.items
    return cases


def cases_of(workflow: ConfigWorkflow) -> CaseList:
    """The cases of a workflow."""
    cases = workflow.parser.get_parsed_content("cases")
    assert isinstance(cases, CaseList)
    return cases


def _prepare(workflow: ConfigWorkflow, handlers: list[Any], progress: bool) -> None:
    workflow.parser["handlers"] = handlers
    workflow.parser["inferer::run_time::progress"] = progress
    workflow.initialize()
