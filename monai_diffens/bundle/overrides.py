"""What a bundle was told on its command line is checked before it does anything.

MONAI adds a misspelt id to the config in silence, and python-fire, which reads its command line, takes
``2024.10`` for a number and ``no`` for text that counts as true. So here ids are compared with those of the
config files, the options of ``inference.json`` with the table of :mod:`monai_diffens.options`, and texts are
taken as they were typed.

Every config of a bundle calls :func:`check_overrides` first thing in its ``initialize``; inference.json in
its ``run``: only then does MONAI find the package that an unpacked release brings.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from fire.parser import DefaultParseValue
from monai.bundle import ConfigItem, ConfigParser, ConfigWorkflow
from monai.bundle import run as bundle_run
from monai.bundle.scripts import create_workflow
from monai.bundle.utils import DEFAULT_MLFLOW_SETTINGS, ID_SEP_KEY, MERGE_KEY
from monai.utils import ensure_tuple

from monai_diffens.messages import say, tell
from monai_diffens.options import OptionError, checked_option, nearest, options_of

GROUPS = ("train", "validate")  # plain groups of ids; in a component, Python checks the arguments
METADATA = "metadata.json"
CONSTANTS = {"true": "True", "false": "False", "null": "None"}
EXPRESSIONS = ("$", "@")
PATH_IDS = ("input", "mask")
PATH_ENDINGS = ("_dir", "_file", "_root")
WRONG_USE = 2  # exit status
RUN_OPTIONS = tuple(
    name
    for name, parameter in inspect.signature(bundle_run).parameters.items()
    if parameter.kind is not inspect.Parameter.VAR_KEYWORD
)


class _Caller(NamedTuple):
    """The running workflow, the config files it was given (None: not known), and the words of its command."""

    workflow: ConfigWorkflow
    files: list[Path] | None
    words: list[str]


def check_overrides() -> None:
    """Stop when the running bundle was given an id that it does not have, or a value that an id cannot have.

    MONAI hands an expression nothing of the workflow it belongs to, so the workflow is looked up among the
    callers. Run from MONAI's command line or ``monai.bundle.run``, the files given there count; for a
    workflow made in Python, all files of its folder do. Called outside of a workflow there is nothing to
    check: overrides come through one.

    Values of ``inference.json``'s options become typed: ``no`` becomes False. Paths become what was typed.

    Raises:
        SystemExit: status 2, after one line on stderr: the id, what was given and what is allowed, or the
            nearest id.
    """
    caller = _caller()
    if caller is None:
        return
    workflow, files, words = caller
    if files is None:
        folder = sorted(workflow.config_root_path.iterdir())
        files = [
            path for path in folder if path.suffix[1:] in ConfigParser.suffixes and path.name != METADATA
        ]
    known = {id for path in files for id in ids_of(ConfigParser.load_config_file(path))}
    config = dict(workflow.parser.get())
    config.pop("_meta_", None)
    tracked = "is_not_rank0" in config  # MONAI's experiment tracking brings ids of its own
    settings: dict[str, Any] = DEFAULT_MLFLOW_SETTINGS
    added = set(settings["configs"]) if tracked else set()
    for name in unknown_ids(config, known | added):
        _stop(say("unknown_option", name=name, hint=nearest(name, [*sorted(known), *RUN_OPTIONS], "--")))
    options = options_of(config) if "inference" in config else {}
    typed = as_typed(words)
    for name in config:
        if name not in options and (name in PATH_IDS or name.endswith(PATH_ENDINGS)):
            _replace(workflow, name, path_as_typed(config[name], typed.get(name)))
    if options:
        _check_root(workflow)
    for name, option in options.items():
        value = config[name]
        if name in typed and option.optional and typed[name] == "None":
            value = None  # MONAI takes an override of None for none
        elif option.kind == "path":
            value = path_as_typed(value, typed.get(name))
        try:
            if isinstance(value, str) and value.startswith(EXPRESSIONS):
                checked_option(option, _evaluated(workflow, name, value), config)
            else:
                _replace(workflow, name, checked_option(option, value, config))
        except OptionError as error:
            _stop(f"--{error}")
    for name, value in json_constants({name: config[name] for name in config if name not in options}):
        _stop(say("json_constant", name=name, value=value, constant=CONSTANTS[value]))


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


def as_typed(words: Sequence[str]) -> dict[str, str]:
    """What follows each ``--name`` or comes after its ``=``, before python-fire has read it."""
    typed = {}
    for place, word in enumerate(words):
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            if not equals and place + 1 < len(words):
                value = words[place + 1]
            typed[name.replace("-", "_")] = value
    return typed


def path_as_typed(value: Any, typed: str | None) -> Any:
    """The text of a path that python-fire read as something else; ``value`` where it did not.

    ``2024.10`` would be a number, ``20180217_064501`` another one, ``Smith,John`` a pair, and ``scan#1.nii``
    ends at what Python takes for a comment. Text in quotes of its own is meant to be unquoted.
    """
    if typed is None or typed == value or not typed or typed.startswith(EXPRESSIONS):
        return value
    if typed[0] in "'\"" and typed[-1] == typed[0]:
        return value
    return typed if value == DefaultParseValue(typed) and value is not None else value


def _check_root(workflow: ConfigWorkflow) -> None:
    """Stop where --bundle_root was forgotten, so that weights would be sought in the working folder."""
    root, bundle = (
        Path(str(workflow.parser.get_parsed_content("bundle_root"))),
        workflow.config_root_path.parent,
    )
    if not (root / "configs" / METADATA).is_file() and (bundle / "configs" / METADATA).is_file():
        _stop(say("wrong_bundle_root", name=root, bundle=bundle))


def _evaluated(workflow: ConfigWorkflow, name: str, value: str) -> Any:
    try:
        return workflow.parser.get_parsed_content(name)
    except Exception:
        return f"{value} (cannot be evaluated)"


def _replace(workflow: ConfigWorkflow, name: str, value: Any) -> None:
    """Give an id another value while the workflow runs: setting it would begin the resolving anew."""
    resolver, config = workflow.parser.ref_resolver, workflow.parser.get()
    if type(config[name]) is type(value) and config[name] == value:
        return
    config[name] = value
    resolver.remove_resolved_content(name)
    resolver.items[name] = ConfigItem(value, id=name)


def _stop(line: str) -> NoReturn:
    tell(line, sys.stderr)
    raise SystemExit(WRONG_USE)


def _caller() -> _Caller | None:
    workflow, files, words = None, None, []
    for info in inspect.stack(context=0):
        caller = info.frame.f_locals.get("self")
        if workflow is None and isinstance(caller, ConfigWorkflow):
            workflow = caller
        if workflow is not None and info.frame.f_code in (create_workflow.__code__, bundle_run.__code__):
            given = info.frame.f_locals["config_file"]  # None where it comes from args_file
            files = [Path(str(path)) for path in ensure_tuple(given)] if given else None
            if Path(sys.argv[0]).parts[-3:] == ("monai", "bundle", "__main__.py"):
                words = sys.argv[1:]
            break
    return None if workflow is None else _Caller(workflow, files, words)
