"""Command-line options made from the table of :mod:`monai_diffens.options`, and their values checked."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from monai_diffens.bundle.location import bundle_path, read_config
from monai_diffens.bundle.manifest import BundleRejected
from monai_diffens.messages import InputRejected, say
from monai_diffens.options import KINDS, QUALITIES, Option, OptionError, checked_option, nearest, options_of

__all__ = ["checked", "plain", "steps_of", "with_options"]

GIVEN = ("input", "output_dir")  # these are arguments of their own
EXPRESSIONS = ("$", "@", "%")  # MONAI runs a text that begins so


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
    default = config[option.name]
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
        words = [word for word in option.choices_for(config) if "/" not in word]
        metavar = "|".join(words) if words and len(words) < 4 else KINDS[option.kind].metavar
        if option.kind == "choice" and len(words) >= 4:
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
        if name == "target":
            typed[name] = value
            continue
        if name not in table:
            raise InputRejected(say("unknown_option", name=name, hint=nearest(name, list(table), "--")))
        typed[name] = checked_option(table[name], value, config)
        if table[name].kind == "path" and typed[name] is not None:
            typed[name] = plain(Path(typed[name]))
    return typed


def plain(path: Path) -> str:
    """A path as text that MONAI does not take for an expression."""
    text = str(path)
    return f"./{text}" if text.startswith(EXPRESSIONS) else text
