"""A misspelt override stops a bundle before it does anything; MONAI adds it to the config in silence.

So does one whose value is JSON's true, false or null: the command line reads Python, and hands them over as
text, which counts as true.

Every config of a bundle calls :func:`check_overrides` first thing in its ``initialize``; inference.json in
its ``run``: only then does MONAI find the package that an unpacked release brings.
"""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow
from monai.bundle import run as bundle_run
from monai.bundle.scripts import create_workflow
from monai.bundle.utils import DEFAULT_MLFLOW_SETTINGS, ID_SEP_KEY, MERGE_KEY
from monai.utils import ensure_tuple

from monai_diffens.messages import say

GROUPS = ("train", "validate")  # plain groups of ids; in a component, Python checks the arguments
METADATA = "metadata.json"
CONSTANTS = {"true": "True", "false": "False", "null": "None"}
RUN_OPTIONS = tuple(
    name
    for name, parameter in inspect.signature(bundle_run).parameters.items()
    if parameter.kind is not inspect.Parameter.VAR_KEYWORD
)


def check_overrides() -> None:
    """Stop when the running bundle was given an id that none of its config files has, or a constant as text.

    MONAI hands an expression nothing of the workflow it belongs to, so the workflow is looked up among the
    callers. Run from MONAI's command line or ``monai.bundle.run``, the files given there count; for a
    workflow made in Python, all files of its folder do. Called outside of a workflow there is nothing to
    check: overrides come through one.

    Raises:
        SystemExit: with one line that names the nearest id, or the constant (exit status 1).
    """
    workflow, files = _caller()
    if workflow is None:
        return
    if files is None:
        files = sorted(path for path in workflow.config_root_path.glob("*.json") if path.name != METADATA)
    known = {id for path in files for id in ids_of(json.loads(path.read_text(encoding="utf-8")))}
    config = dict(workflow.parser.get())
    config.pop("_meta_", None)
    tracked = "is_not_rank0" in config  # MONAI's experiment tracking brings ids of its own
    settings: dict[str, Any] = DEFAULT_MLFLOW_SETTINGS
    added = set(settings["configs"]) if tracked else set()
    for name in unknown_ids(config, known | added):
        raise SystemExit(say("unknown_option", name=name, hint=_hint(name, [*sorted(known), *RUN_OPTIONS])))
    for name, value in json_constants(config):
        raise SystemExit(say("json_constant", name=name, value=value, constant=CONSTANTS[value]))


def ids_of(config: Mapping[str, Any]) -> set[str]:
    """Ids that a config file defines: its top level, and ``train#...`` and ``validate#...``.

    Ids of the form ``train::trainer::amp``, as overlays use them, count as far as the second part.
    """
    ids = set()
    for key, value in config.items():
        parts = key.removeprefix(MERGE_KEY).replace("#", ID_SEP_KEY).split(ID_SEP_KEY)
        ids.add(parts[0])
        if parts[0] in GROUPS:
            if len(parts) > 1:
                ids.add("#".join(parts[:2]))
            elif isinstance(value, Mapping):
                ids.update(f"{parts[0]}#{name}" for name in value)
    return ids


def unknown_ids(config: Mapping[str, Any], known: Iterable[str]) -> list[str]:
    """Ids of ``config`` that are not among the known ones, in its order."""
    known = set(known)
    return [name for name in sorted(ids_of(config), key=lambda name: name.count("#")) if name not in known]


def json_constants(config: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Ids whose value is the text of a constant of JSON, with that text; ``#`` between levels."""
    if isinstance(config, str) and config in CONSTANTS:
        yield name, config
    elif isinstance(config, Mapping | list | tuple):
        parts = config.items() if isinstance(config, Mapping) else enumerate(config)
        for key, value in parts:
            yield from json_constants(value, f"{name}#{key}" if name else str(key))


def _hint(name: str, choices: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    return f"did you mean --{near[0]}?" if near else f"its options: {', '.join(choices)}"


def _caller() -> tuple[ConfigWorkflow | None, list[Path] | None]:
    workflow, files = None, None
    for info in inspect.stack(context=0):
        caller = info.frame.f_locals.get("self")
        if workflow is None and isinstance(caller, ConfigWorkflow):
            workflow = caller
        if workflow is not None and info.frame.f_code in (create_workflow.__code__, bundle_run.__code__):
            given = info.frame.f_locals["config_file"]  # None where it comes from args_file
            files = [Path(path) for path in ensure_tuple(given)] if given else None
            break
    return workflow, files
