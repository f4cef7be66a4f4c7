"""A bundle's inference, run in this process as ``python -m monai.bundle run inference`` runs it."""

from __future__ import annotations

import io
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigWorkflow

from monai_diffens.bundle.folder import CONFIG
from monai_diffens.data.case_list import CaseList
from monai_diffens.data.writer import output_path
from monai_diffens.engines.case_evaluator import CaseEnd, CaseProgress
from monai_diffens.messages import InputRejected, say

__all__ = ["find_cases", "heard", "open_inference", "restore_cases", "run_inference"]


def open_inference(root: Path, options: Mapping[str, Any]) -> ConfigWorkflow:
    """Read a bundle's ``inference.json`` with some ids replaced; nothing is made or loaded yet.

    Args:
        root: folder of the bundle.
        options: id -> value. Never text that somebody else wrote: MONAI runs what begins with ``$``.
    """
    talk = logging.getLogger("monai.bundle.workflows")  # tells that logging.conf is left alone
    disabled, talk.disabled = talk.disabled, True
    try:
        with warnings.catch_warnings():  # MONAI tells of every config that it parses
            warnings.filterwarnings("ignore", "parsing config_file", UserWarning)
            return ConfigWorkflow(
                str(root / CONFIG),
                workflow_type="inference",
                logging_file=False,
                bundle_root=str(root),
                **options,
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
        SystemExit: the run never came as far as its first case: a wrong option, no usable bundle, or an input
            that cannot be worked on. What is wrong was printed on stderr, or is the exception's text.
    """
    workflow.parser["handlers"] = [CaseProgress(on_end, bar)]
    workflow.parser["inferer::run_time::progress"] = bar
    path, status = sys.path[:], 0
    try:
        with redirect_stdout(io.StringIO()):  # the summary, which the caller tells in its own way
            workflow.initialize()
            workflow.run()
            workflow.finalize()
    except SystemExit as stopped:
        begun = workflow.parser.ref_resolver.resolved_content.get("evaluator")
        if stopped.code != 1 or begun is None:
            raise
        status = 1
    finally:
        sys.path[:] = path  # MONAI leaves the bundle's folder there
    return cases_of(workflow), status


def restore_cases(workflow: ConfigWorkflow) -> Path:
    """Restore the one case of a workflow whose ``network_def`` is a network with its weights loaded.

    Returns:
        Path of the result.

    Raises:
        InputRejected: in one line, why there is none.
    """
    workflow.parser["handlers"] = []
    workflow.parser["inferer::run_time::progress"] = False
    with heard():
        workflow.initialize()
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


def find_cases(workflow: ConfigWorkflow) -> CaseList:
    """Check the options and the cases of a workflow without running it.

    Raises:
        SystemExit: as :func:`run_inference`.
    """
    workflow.initialize()
    cases = cases_of(workflow)
    _ = cases.items
    return cases


def cases_of(workflow: ConfigWorkflow) -> CaseList:
    """The cases of a workflow."""
    cases = workflow.parser.get_parsed_content("cases")
    assert isinstance(cases, CaseList)
    return cases


@contextmanager
def heard() -> Iterator[None]:
    """Turn an end of the run into an exception with the line that was meant for the user.

    Raises:
        InputRejected: in place of SystemExit.
    """
    errors = io.StringIO()
    try:
        with redirect_stderr(errors):
            yield
    except SystemExit as stopped:
        if isinstance(stopped.code, int) and stopped.code >= 128:  # a signal
            raise
        told = [line for line in errors.getvalue().splitlines() if line.strip()]
        line = stopped.code if isinstance(stopped.code, str) else (told or ["stopped"])[-1]
        raise InputRejected(line.removeprefix("--")) from None
