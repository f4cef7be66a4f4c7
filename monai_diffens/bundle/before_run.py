"""What every config of a bundle calls first: nothing runs that was tampered with, is too old or was mistyped.

MONAI adds a misspelt id to the config in silence, and python-fire, which reads its command line, takes
``2024.10`` for a number and ``false`` for text, which counts as true. So ids are compared with those of the
config files, the options of ``inference.json`` with the table of :mod:`monai_diffens.options`, and texts are
taken as they were typed.

Trainings call it in ``initialize``; inference.json in its ``run``: only then does MONAI find the package that
an unpacked release brings.
"""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from fire.parser import DefaultParseValue
from monai.bundle import ConfigExpression, ConfigItem, ConfigParser, ConfigWorkflow
from monai.bundle import run as bundle_run
from monai.bundle.scripts import create_workflow
from monai.bundle.utils import DEFAULT_MLFLOW_SETTINGS, ID_SEP_KEY, MERGE_KEY
from monai.utils import ensure_tuple

import monai_diffens
from monai_diffens.bundle.allow_list import check_configs
from monai_diffens.bundle.folder import (
    MANIFEST,
    METADATA,
    PACKAGE,
    PACKAGE_DIR,
    check_manifest,
    check_versions,
    foreign_code,
)
from monai_diffens.messages import BundleRejected, InputRejected, OutOfStep, TrainingFailed, say, tell
from monai_diffens.options import (
    MORE,
    OPTIONS,
    Option,
    OptionError,
    checked_option,
    id_of,
    options_of,
    unknown_option,
    values_of,
)

GROUPS = ("train", "validate", MORE)  # plain groups of ids; in a component, Python checks the arguments
CONSTANTS = {"true": "True", "false": "False", "null": "None"}
EXPRESSIONS = ("$", "@")
ALMOST = 0.85  # likeness of a new id to an option's from which it is a mistake
MARKS = "#@%$"  # what MONAI reads within a text
PATH_IDS = ("input", "mask")
PATH_ENDINGS = ("_dir", "_file", "_root")
FAILED, WRONG_USE = 1, 2  # exit statuses
RUN_OPTIONS = tuple(
    name
    for name, parameter in inspect.signature(bundle_run).parameters.items()
    if parameter.kind is not inspect.Parameter.VAR_KEYWORD
)


class _Caller(NamedTuple):
    """The running workflow, the config files it was given (None: not known), and option -> text as typed."""

    workflow: ConfigWorkflow
    files: list[Path] | None
    typed: Mapping[str, str]


@contextmanager
def own_errors() -> Iterator[None]:
    """Raise what this package raised within a config as it was: MONAI wraps what its expressions raise.

    Raises:
        OptionError: a wrong option.
        BundleRejected: a bundle, or its weights, that cannot be used.
        InputRejected: an input that cannot be worked on.
        TrainingFailed: a training that cannot begin or go on.
    """
    ours = OptionError | BundleRejected | InputRejected | TrainingFailed
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, ours):
            cause = cause.__cause__
        if cause is None or cause is error:
            raise
        raise cause from None


@contextmanager
def ended_in_a_line() -> Iterator[None]:
    """Turn what this package raises within a config into one line on stderr and an exit status.

    Raises:
        SystemExit: 2 for a wrong option, 1 for an input or a training, the line itself, which is 1 too, for a
            bundle or a process that others wait for.
    """
    try:
        with own_errors():
            yield
    except (BundleRejected, OutOfStep) as error:
        raise SystemExit(str(error)) from None
    except OptionError as error:
        tell(f"--{error}", sys.stderr)
        raise SystemExit(WRONG_USE) from None
    except (InputRejected, TrainingFailed) as error:
        tell(str(error), sys.stderr)
        raise SystemExit(FAILED) from None


def check_before_run(bundle_root: str | Path | None = None) -> ConfigWorkflow | None:
    """Stop a workflow whose bundle is not as released, or that was given a wrong id or value.

    Run from MONAI's command line or ``monai.bundle.run``, the config files given there count; for a workflow
    made in Python, all files of its folder do. Outside of a workflow the bundle alone is checked.

    Values of ``inference.json``'s options become typed: ``false`` becomes False. Paths become what was typed.

    Args:
        bundle_root: folder of the bundle; None where configs do not belong to one.

    Returns:
        The workflow whose config calls this, found among the callers: MONAI hands none to expressions.

    Raises:
        SystemExit: see :func:`ended_in_a_line`.
    """
    caller = _caller()
    typed = caller.typed if caller else {}
    with ended_in_a_line():
        if bundle_root is not None:
            root = path_as_typed(bundle_root, typed.get("bundle_root"))
            check_bundle(Path(str(root)).resolve())
        if caller is not None:
            check_overrides(caller.workflow, caller.files, typed)
            _end_in_a_line(caller.workflow)
    return caller.workflow if caller else None


def _end_in_a_line(workflow: ConfigWorkflow) -> None:
    """From now on what this package raises in the workflow's ``run`` ends in one line and a status."""
    run = workflow.run

    def ended() -> list[Any]:
        with ended_in_a_line():
            return run()

    workflow.run = ended  # type: ignore[method-assign]


def check_bundle(root: Path) -> None:
    """Check versions, and where the bundle has a manifest, its files, its configs and its package.

    A bundle without a manifest is one under development: only versions are checked.

    Raises:
        BundleRejected: with one line that says what is wrong and what to do.
    """
    check_versions(root)
    if (root / MANIFEST).exists():
        entries = check_manifest(root)
        check_configs(root, entries)
        if root / PACKAGE != PACKAGE_DIR and foreign_code(entries):
            raise BundleRejected(say("other_copy", name=root.name, version=monai_diffens.__version__))


def check_overrides(
    workflow: ConfigWorkflow, files: Sequence[Path] | None = None, typed: Mapping[str, str] | None = None
) -> None:
    """Check the ids of a workflow and the values of its options, which become typed.

    Args:
        workflow: read, not run.
        files: its config files; all of its folder when None.
        typed: option -> its text as it was typed.

    Raises:
        OptionError: an id that no file has, or a value that an option cannot have.
    """
    typed, overlays = typed or {}, (files or [])[1:]
    if files is None:
        folder = sorted(workflow.config_root_path.iterdir())
        files = [
            path
            for path in folder
            if path.suffix[1:] in ConfigParser.suffixes and path.name != Path(METADATA).name
        ]
    if MORE in typed:  # its options are given by their names
        raise unknown_option(MORE, [option.name for option in OPTIONS])
    _place_options(workflow)
    config = dict(workflow.parser.get())
    config.pop("_meta_", None)
    _check_ids(config, {id for path in files for id in ids_of(ConfigParser.load_config_file(path))})
    options = options_of(config) if "inference" in config else {}
    others = {name: value for name, value in config.items() if name not in options and name != MORE}
    for name, value in others.items():
        if name in PATH_IDS or name.endswith(PATH_ENDINGS):
            path = path_as_typed(value, typed.get(name))
            _replace(workflow, name, path if _is_expression(path) else verbatim(path))
    if options:
        _check_root(workflow)
    for name, option in options.items():
        _check_value(workflow, config, option, typed.get(name))
    _check_overlays(overlays, ids_of(ConfigParser.load_config_file(files[0])), options)
    for name, value in json_constants(others):
        line = say("json_constant", name=name, value=value, constant=CONSTANTS[value])
        raise OptionError(name, value, line=line)


def _check_overlays(files: Sequence[Path], own: set[str], options: Mapping[str, Option]) -> None:
    """Refuse an id of a further config file that is new and nearly an option: it would change nothing."""
    for path in files:
        for name in ids_of(ConfigParser.load_config_file(path)) - own:
            if difflib.get_close_matches(name, options, n=1, cutoff=ALMOST):
                raise unknown_option(name, list(options))


def _place_options(workflow: ConfigWorkflow) -> None:
    """Options that were given by their names alone go where the config has them."""
    config, resolver = workflow.parser.get(), workflow.parser.ref_resolver
    for name in config.keys() & config.get(MORE, {}).keys():
        _replace(workflow, id_of(config, name), config.pop(name))
        resolver.items.pop(name, None)


def _check_ids(config: Mapping[str, Any], known: set[str]) -> None:
    settings: dict[str, Any] = DEFAULT_MLFLOW_SETTINGS
    tracked = "is_not_rank0" in config  # MONAI's experiment tracking brings ids of its own
    for name in unknown_ids(config, known | set(settings["configs"] if tracked else ())):
        raise unknown_option(name, [*sorted(known), *RUN_OPTIONS])


def _check_value(
    workflow: ConfigWorkflow, config: Mapping[str, Any], option: Option, typed: str | None
) -> None:
    value, id = values_of(config)[option.name], id_of(config, option.name)
    if typed == "None":  # MONAI takes an override of None for none
        value = None if option.optional else typed
    elif option.kind == "path":
        value = path_as_typed(value, typed)
    if _is_expression(value):
        try:
            value = workflow.parser.get_parsed_content(id)
        except Exception as error:
            raise OptionError(option.name, value, option.wanted(config)) from error
        checked_option(option, value, config)
    else:
        value = checked_option(option, value, config)
        _replace(workflow, id, verbatim(value) if option.kind == "path" else value)


def _is_expression(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(EXPRESSIONS)


def ids_of(config: Mapping[str, Any]) -> set[str]:
    """Ids that a config file defines: its top level, and ``train#...`` and ``validate#...``.

    Ids of the form ``train::trainer::amp``, as overlays use them, count as far as the second part.
    """
    ids = set()
    for key, value in config.items():
        parts = key.removeprefix(MERGE_KEY).replace("#", ID_SEP_KEY).split(ID_SEP_KEY)
        ids.add(parts[0])
        below = parts[1:2] or (list(value) if isinstance(value, Mapping) else [])
        if parts[0] in GROUPS:
            ids.update(f"{parts[0]}#{name}" for name in below)
        if parts[0] == MORE:
            ids.update(below)
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
    """The text of a path that was altered on its way; ``value`` where it was not.

    To python-fire ``2024.10`` is a number, ``20180217_064501`` another one, ``Smith,John`` a pair, and
    ``scan#1.nii`` ends at a comment. Text in quotes of its own is meant to be unquoted. MONAI takes ``#`` for
    ``::``, and ``@#`` for a way up in its configuration.
    """
    if typed is None or typed == value or not typed or typed.startswith(EXPRESSIONS):
        return value
    read = DefaultParseValue(typed)
    known = [read, _resolved(typed), _resolved(read)]
    if typed[0] in "'\"" and typed[-1] == typed[0]:
        return read if value == known[2] else value
    return typed if value is not None and value in known else value


def verbatim(value: Any) -> Any:
    """A value that MONAI hands on unaltered: text that it would read becomes an expression for that text."""
    if not isinstance(value, str) or not set(value) & set(MARKS):
        return value
    text = repr(value)
    for mark in MARKS:
        text = text.replace(mark, f"\\x{ord(mark):02x}")
    return f"${text}"


def _resolved(value: Any) -> Any:
    """A text at the top of a configuration as MONAI takes it in."""
    try:
        return ConfigParser.resolve_relative_ids("", value) if isinstance(value, str) else value
    except ValueError:  # further up than there is
        return value


def _check_root(workflow: ConfigWorkflow) -> None:
    """Stop where --bundle_root was forgotten, so that weights would be sought in the working folder."""
    root = Path(str(workflow.parser.get_parsed_content("bundle_root")))
    bundle = workflow.config_root_path.parent
    if not (root / METADATA).is_file() and (bundle / METADATA).is_file():
        raise OptionError("bundle_root", str(root), line=say("wrong_bundle_root", name=root, bundle=bundle))


def _replace(workflow: ConfigWorkflow, id: str, value: Any) -> None:
    """Give an id another value while the workflow runs: setting it would begin the resolving anew."""
    resolver, config = workflow.parser.ref_resolver, workflow.parser.get()
    *groups, name = id.split(ID_SEP_KEY)
    for group in groups:
        config = config[group]
    if type(config[name]) is type(value) and config[name] == value:
        return
    config[name] = value
    resolver.remove_resolved_content(id)
    if ConfigExpression.is_expression(value):
        resolver.items[id] = ConfigExpression(value, id=id, globals=workflow.parser.globals)
    else:
        resolver.items[id] = ConfigItem(value, id=id)


def _caller() -> _Caller | None:
    workflow, files, typed = None, None, dict[str, str]()
    for info in inspect.stack(context=0):
        caller = info.frame.f_locals.get("self")
        if workflow is None and isinstance(caller, ConfigWorkflow):
            workflow = caller
        if workflow is not None and info.frame.f_code in (create_workflow.__code__, bundle_run.__code__):
            given = info.frame.f_locals["config_file"]  # None where it comes from args_file
            files = [Path(str(path)) for path in ensure_tuple(given)] if given else None
            overrides = info.frame.f_locals.get("kwargs") or info.frame.f_locals.get("override") or {}
            typed = {name: value for name, value in overrides.items() if isinstance(value, str)}
            if Path(sys.argv[0]).parts[-3:] == ("monai", "bundle", "__main__.py"):
                typed |= as_typed(sys.argv[1:])
            break
    return None if workflow is None else _Caller(workflow, files, typed)
