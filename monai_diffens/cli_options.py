"""The options of the command ``diffens``, made from the table of :mod:`monai_diffens.options`.

A mistake in them ends in one line on stderr and the right exit status.
"""

from __future__ import annotations

import inspect
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from monai_diffens.bundle.folder import bundle_path, read_config
from monai_diffens.messages import BundleRejected, InputRejected, OutOfStep, say, tell
from monai_diffens.options import (
    KINDS,
    QUALITIES,
    Option,
    OptionError,
    checked_option,
    options_of,
    unknown_option,
    values_of,
)

SOME_FAILED, WRONG_USE, NOT_USABLE, INTERRUPTED = 1, 2, 3, 130
STATUSES = (
    "Exit status: 0 all done; 1 a scan was rejected or failed; 2 wrong use; 3 a bundle that cannot be used; "
    "130, 143 interrupted."
)
GIVEN = ("input", "output_dir")  # these are arguments of their own
EXPRESSIONS = ("$", "@", "%")  # MONAI runs a text that begins so


class OneLine(TyperGroup):
    """Turns what its commands raise into a line and a status, listed in :data:`STATUSES`."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line; always ends in SystemExit."""
        kwargs["standalone_mode"] = False
        line: str | None = None
        try:
            with _unwound_by_term():
                status = super().main(*args, **kwargs) or 0
        except (typer.Abort, KeyboardInterrupt):
            status = INTERRUPTED
        except OutOfStep as stopped:
            status, line = SOME_FAILED, str(stopped)
        except Exception as error:
            status, line = _status_and_line(error)
        if line is not None:
            tell(line, sys.stderr)
        sys.exit(status)


@contextmanager
def _unwound_by_term() -> Iterator[None]:
    """SIGTERM ends a command as Ctrl-C does: temporary files go. A run has an answer of its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _status_and_line(error: Exception) -> tuple[int, str | None]:
    """How a command ends that raised something; what is not known is raised again."""
    match error:
        case typer.Exit():
            return error.exit_code, None
        case OptionError():
            return WRONG_USE, f"--{error}"
        case InputRejected():
            return WRONG_USE, str(error)
        case BundleRejected():
            return NOT_USABLE, str(error)
        case OSError():
            told = {"name": str(error.filename or "disk"), "why": error.strerror or type(error).__name__}
            return SOME_FAILED, say("of_system", **told)
    if not hasattr(error, "format_message"):  # not one of typer's own
        raise error
    return WRONG_USE, _usage_line(error)


def _usage_line(error: Any) -> str:
    """What typer found wrong, on one line."""
    command = getattr(getattr(error, "ctx", None), "command", None)
    name = getattr(error, "option_name", None)
    if name is not None and command is not None:
        known = [word.lstrip("-") for each in command.params for word in each.opts if word.startswith("--")]
        plain = name.lstrip("-").replace("-", "_")
        return f"--{unknown_option(plain, known)}"
    return " ".join(str(error.format_message()).split())


def with_options(task: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the options of a task's bundle to a command, which gets those that were given as ``options``."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        try:
            config = read_config(bundle_path(task))
        except BundleRejected:  # told when the command is run
            config = {}
        table = {name: option for name, option in options_of(config).items() if name not in GIVEN}

        def run(**given: Any) -> None:
            options = {name: value for name in table if (value := given.pop(name)) is not None}
            command(**given, options=options)

        own = [p for p in inspect.signature(command).parameters.values() if p.name != "options"]
        hints = inspect.get_annotations(command, eval_str=True)
        parameters = [p.replace(annotation=hints[p.name], kind=p.KEYWORD_ONLY) for p in own]
        parameters += [_parameter(option, config) for option in table.values()]
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate


def _parameter(option: Option, config: Mapping[str, Any]) -> inspect.Parameter:
    default = values_of(config)[option.name]
    unit = f"{option.unit}; " if option.unit else ""
    if isinstance(default, str) and default.startswith("$"):
        shown = {"weights_file": "the bundle's", "device": "cuda where there is one"}[option.name]
    elif isinstance(default, Mapping):
        shown = ",".join(f"{name}={value}" for name, value in default.items())
    else:
        shown = "none" if default is None else str(default)
    help_ = option.help
    if isinstance(default, bool):
        shown = "yes" if default else "no"
        named = typer.Option(f"--{option.name}/--no_{option.name}", help=f"{help_} [{unit}default: {shown}]")
        kind: Any = bool | None
    else:
        words = option.choices_for(config)
        metavar = "|".join(words) if words and len(words) < 4 else KINDS[option.kind].metavar
        if len(words) >= 4:
            help_ += f": {', '.join(words)}"
        named = typer.Option(f"--{option.name}", metavar=metavar, help=f"{help_} [{unit}default: {shown}]")
        kind = str | None
    return inspect.Parameter(
        option.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, named]
    )


def steps_of(quality: str | None, given: Mapping[str, Any]) -> dict[str, int]:
    """Number of steps that a quality stands for; nothing where none was given."""
    if quality is None:
        return {}
    if quality not in QUALITIES:
        raise OptionError("quality", quality, f"one of {', '.join(QUALITIES)}")
    if "num_steps" in given:
        raise InputRejected(say("two_qualities", quality=quality, steps=QUALITIES[quality]))
    return {"num_steps": QUALITIES[quality]}


def checked(config: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Typed options; a bundle of one's own may lack some."""
    table, typed = options_of(config), {}
    for name, value in given.items():
        if name not in table:
            raise unknown_option(name, list(table))
        typed[name] = checked_option(table[name], value, config)
        if table[name].kind == "path" and typed[name] is not None:
            typed[name] = plain(Path(typed[name]))
    return typed


def a_path(text: str) -> Path:
    """A path of the command line, which of no text (a variable that is not set) would be this folder.

    Raises:
        ValueError: there is no text, or it cannot be a path.
    """
    if not text.strip() or "\0" in text:
        raise ValueError("a path is needed")
    return Path(text)


def plain(path: Path) -> str:
    """A path as text that MONAI does not take for an expression."""
    text = str(path)
    return f"./{text}" if text.startswith(EXPRESSIONS) else text
