"""The options of a run, in one table: type, range or choices, unit and one line of help each.

The table is ``options.json``; its columns are the attributes of :class:`Option`. The command ``diffens``,
``python -m monai.bundle run``, the Python functions and the MONAI Label app check what they are given against
it. Defaults are not repeated there: they stand in the bundles' ``inference.json``, at its top or, what few
turn, under ``more``. Standard library only, so that help and checks are quick.
"""

from __future__ import annotations

import ast
import difflib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from monai_diffens.messages import say

__all__ = [
    "MORE",
    "OPTIONS",
    "QUALITIES",
    "Option",
    "OptionError",
    "checked_option",
    "id_of",
    "nearest",
    "options_of",
    "unknown_option",
    "values_of",
]

PLANES = ("axial", "coronal", "sagittal")
QUALITIES = {"fast": 1, "balanced": 4, "detail": 20}  # name -> num_steps
SWITCH = {"true": True, "false": False}
MORE = "more"  # heading in inference.json of the options that few turn
NOTHING = ("none", "null", "")
LONGEST_TOLD = 60  # characters of a wrong value that are shown


class OptionError(ValueError):
    """An option with a value it cannot have, or that does not exist; the message is one line.

    Attributes:
        name: of the option.
        value: what was given, as shown.
        wanted: what is allowed.
    """

    def __init__(self, name: str, value: Any, wanted: str = "", line: str = "") -> None:
        """Make the line of its three parts, unless another one says it better."""
        text = value if isinstance(value, str) else repr(value)
        self.name, self.wanted = name, wanted
        self.value = text if 0 < len(text) <= LONGEST_TOLD else f"'{text[:LONGEST_TOLD]}'"
        super().__init__(line or say("bad_option", name=name, value=self.value, wanted=wanted))


def unknown_option(name: str, known: Sequence[str], prefix: str = "--") -> OptionError:
    """The error for an option that does not exist, with the nearest of those that do."""
    hint = nearest(name, known, prefix)
    return OptionError(name, None, line=say("unknown_option", name=name, hint=hint))


@dataclass(frozen=True, kw_only=True)
class Option:
    """One option."""

    name: str  # id in inference.json, and name on every command line and in Python
    kind: str  # a key of KINDS
    help: str  # what it does, one line
    unit: str = ""  # of the value, for help and messages
    least: float | None = None  # smallest value
    most: float | None = None  # largest value
    above: float | None = None  # values must be greater
    below: float | None = None  # values must be smaller
    choices: tuple[str, ...] = ()  # words that are allowed, beside what the kind allows
    optional: bool = False  # None, or the text none, leaves it out

    def choices_for(self, config: Mapping[str, Any]) -> tuple[str, ...]:
        """Words that are allowed with a bundle's configuration."""
        return self.choices + (tuple(config["contrasts"]) if self.kind == "contrast" else ())

    def wanted(self, config: Mapping[str, Any]) -> str:
        """What is allowed, in words."""
        limits = (("from", self.least), ("above", self.above), ("to", self.most), ("below", self.below))
        range_ = [f"{word} {limit:.15g}" for word, limit in limits if limit is not None]
        unit = [f"({self.unit})"] if self.unit else []
        parts = [" ".join([KINDS[self.kind].words, *range_, *unit])] if KINDS[self.kind].words else []
        choices = self.choices_for(config)
        if choices:
            parts.append(("one of " if not parts else "") + ", ".join(choices))
        return " or ".join([*parts, *(["none"] if self.optional else [])])


@dataclass(frozen=True)
class Kind:
    """How values of a kind are read."""

    words: str  # what is allowed, in words
    # function of (value, option, configuration) to the typed value; ValueError for a wrong one
    read: Callable[[Any, Option, Mapping[str, Any]], Any]
    metavar: str  # what help calls the value


def checked_option(option: Option, value: Any, config: Mapping[str, Any]) -> Any:
    """Return the typed value of an option.

    Args:
        option: of :data:`OPTIONS`.
        value: typed, or text as it was typed. A switch is ``true`` or ``false``: ``yes`` and 1 are wrong.
        config: the bundle's ``inference.json``; its contrasts are choices of some options.

    Raises:
        OptionError: with one line: the option, what was given, what is allowed.
    """
    if hasattr(value, "tolist"):  # a number or an array of numpy, a tensor
        value = value.tolist()
    if option.optional and (value is None or (isinstance(value, str) and value.strip().lower() in NOTHING)):
        return None
    try:
        if isinstance(value, str) and value in option.choices_for(config):
            return value
        typed = KINDS[option.kind].read(value, option, config)
    except (ValueError, TypeError, OverflowError, SyntaxError, RecursionError, MemoryError):
        raise OptionError(option.name, value, option.wanted(config)) from None
    return typed


def options_of(config: Mapping[str, Any]) -> dict[str, Option]:
    """The options that a bundle's ``inference.json`` has, by name, in the table's order."""
    values = values_of(config)
    return {option.name: option for option in OPTIONS if option.name in values}


def values_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Name -> value of what a config has at its top and under :data:`MORE`."""
    return {**config.get(MORE, {}), **config}


def id_of(config: Mapping[str, Any], name: str) -> str:
    """Where a config has an option: its name, or its place under :data:`MORE`."""
    return f"{MORE}::{name}" if name in config.get(MORE, {}) else name


def nearest(name: str, known: Sequence[str], prefix: str = "") -> str:
    """Hint for a name that is none of the known ones: the nearest, else all of them."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {prefix}{near[0]}?" if near else f"its options: {', '.join(known)}"


def _number(value: Any, option: Option) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError("not a number")
    number = float(value)
    if (
        not math.isfinite(number)
        or (option.least is not None and number < option.least)
        or (option.most is not None and number > option.most)
        or (option.above is not None and number <= option.above)
        or (option.below is not None and number >= option.below)
    ):
        raise ValueError("out of range")
    return number


def _read_number(value: Any, option: Option, config: Mapping[str, Any]) -> float:
    return _number(value, option)


def _read_integer(value: Any, option: Option, config: Mapping[str, Any]) -> int:
    number = _number(value, option)
    if not number.is_integer():
        raise ValueError("not a whole number")
    return int(value) if isinstance(value, int) else int(number)


def _read_switch(value: Any, option: Option, config: Mapping[str, Any]) -> bool:
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or value.strip().lower() not in SWITCH:
        raise ValueError("not a switch")
    return SWITCH[value.strip().lower()]


def _read_choice(value: Any, option: Option, config: Mapping[str, Any]) -> str:
    raise ValueError("none of the choices")  # these were looked at before


def _read_path(value: Any, option: Option, config: Mapping[str, Any]) -> str:
    if not isinstance(value, str | PathLike):
        raise TypeError("not text")
    text = str(value)
    if not text.strip() or "\0" in text:
        raise ValueError("no path")
    return text


def _read_spacing(value: Any, option: Option, config: Mapping[str, Any]) -> float | list[float]:
    if isinstance(value, str):
        value = value.strip("[]() ").replace("x", ",").split(",")
        value = value[0] if len(value) == 1 else value
    if not isinstance(value, list | tuple):
        return _number(value, option)
    numbers = [_number(part, option) for part in value]
    if len(numbers) != 3:
        raise ValueError("not one number or three")
    return numbers


def _read_weights(value: Any, option: Option, config: Mapping[str, Any]) -> dict[str, float]:
    if isinstance(value, str):
        text = value.strip()
        if text.startswith("{"):
            value = ast.literal_eval(text)
        else:
            pairs = [part.partition("=") for part in text.split(",")]
            value = {name.strip(): number for name, _, number in pairs}
    if not isinstance(value, Mapping) or not value:
        raise TypeError("not names and numbers")
    if not set(value) <= set(PLANES):
        raise ValueError("unknown name")
    weights = {name: _number(number, option) for name, number in value.items()}
    if not any(weights.get(name, 1) for name in PLANES):
        raise ValueError("nothing is left")
    return weights


def _read_contrasts(value: Any, option: Option, config: Mapping[str, Any]) -> list[str]:
    names = [name.strip(" '\"") for name in value.strip("[]").split(",")] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not set() < set(names) < set(config["contrasts"]):
        raise ValueError("unknown name, none, or nothing is left")
    return list(names)


def _read_device(value: Any, option: Option, config: Mapping[str, Any]) -> Any:
    import torch

    try:
        device = torch.device(value)
    except RuntimeError as error:
        raise ValueError("no device") from error
    if device.type == "cuda" and not 0 <= (device.index or 0) < torch.cuda.device_count():
        raise ValueError("not there")
    if device.type not in ("cpu", "cuda"):
        raise ValueError("not supported")
    return device


def _read_series(value: Any, option: Option, config: Mapping[str, Any]) -> str:
    parts = value.split(",") if isinstance(value, str) else value
    if isinstance(parts, int) and not isinstance(parts, bool):
        parts = [parts]
    if not isinstance(parts, list | tuple) or not all(isinstance(part, int | str) for part in parts):
        raise TypeError("not names or numbers")
    names = [str(part).strip() for part in parts]
    if not names or not all(re.fullmatch(r"[\w+][\w+ .-]*", name) for name in names):
        raise ValueError("no name")
    return ",".join(names)


KINDS = {
    "path": Kind("a path, as text", _read_path, "PATH"),
    "integer": Kind("a whole number", _read_integer, "INTEGER"),
    "number": Kind("a number", _read_number, "NUMBER"),
    "switch": Kind("true or false", _read_switch, "BOOLEAN"),
    "choice": Kind("", _read_choice, "WORD"),
    "contrast": Kind("", _read_choice, "CONTRAST"),
    "contrasts": Kind("names of contrasts, not all, as T1w,T2w", _read_contrasts, "CONTRAST,..."),
    "spacing": Kind("one number, or three as 1,1,2, each", _read_spacing, "NUMBER"),
    "weights": Kind("known names, not all 0, as NAME=1,NAME=0.5, each", _read_weights, "NAME=NUMBER,..."),
    "series": Kind("numbers or names of series, as 4,7", _read_series, "NUMBER,..."),
    "device": Kind("cpu, cuda or cuda:N of a GPU that is there", _read_device, "DEVICE"),
}


def _read_table() -> tuple[Option, ...]:
    rows = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
    return tuple(
        Option(name=name, **row | {"choices": tuple(row.get("choices", ()))}) for name, row in rows.items()
    )


OPTIONS = _read_table()
