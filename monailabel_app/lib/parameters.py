"""What a client may ask for: names, types and choices, checked before anything runs.

A bundle's configuration takes expressions (a text that starts with ``$`` is Python), so nothing that a
client sends reaches it unchecked: numbers stay numbers, and a text is one of the bundle's own choices.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Any

from monai_diffens.messages import InputRejected, say
from monai_diffens.options import OptionError, checked_option, options_of

__all__ = ["VIEWER_KEYS", "checked_parameters"]

# What MONAI Label's endpoints, clients and viewers send beside parameters. A result keeps its own grid, type
# and format, so that what they ask for there is not looked at.
VIEWER_KEYS = frozenset(
    "model image device description client_id user session label label_tag save_label label_names logging "
    "result_extension result_dtype result_compress result_write_to_file gpus multi_gpu local_rank "
    "bundle_path".split()
)


def checked_parameters(given: Mapping[str, Any], offered: Mapping[str, Any]) -> dict[str, Any]:
    """Take the parameters out of a request.

    Args:
        given: the request, with whatever a viewer adds (``VIEWER_KEYS`` are left out).
        offered: name -> default; its type is the type to give, and a list holds the choices, default first.

    Returns:
        Name -> value for every parameter offered.

    Raises:
        InputRejected: a name that is not offered, or a value that is not of the type or the choices.
    """
    values = {name: default[0] if isinstance(default, list) else default for name, default in offered.items()}
    for name, value in given.items():
        if name in offered:
            values[name] = _in_range(name, _checked(name, value, offered[name]), offered)
        elif name not in VIEWER_KEYS:
            near = difflib.get_close_matches(name, offered, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"its parameters: {', '.join(offered)}"
            raise InputRejected(say("unknown_parameter", name=repr(name), hint=hint))
    return values


def _in_range(name: str, value: Any, offered: Mapping[str, Any]) -> Any:
    """A number within the range that every way to run a bundle has for it; choices are the server's own.

    One of a training, which has no range of its own, is above 0 where its default is, and from 0 else.
    """
    option, default = options_of(offered).get(name), offered[name]
    if isinstance(default, list):
        return value
    if option is None:
        if value < 0 or value == 0 < default:
            raise _rejected(name, value, "a number above 0" if default > 0 else "a number from 0")
        return value
    try:
        return checked_option(option, value, offered)
    except OptionError as error:
        raise _rejected(name, value, error.wanted) from None


def _checked(name: str, value: Any, default: Any) -> Any:
    if isinstance(default, list):
        if value == default:  # a client that sends back the choices as it got them
            return default[0]
        if isinstance(value, str | int | float) and value in default:
            return value
        raise _rejected(name, value, f"one of {', '.join(map(str, default))}")
    if isinstance(default, bool):
        if isinstance(value, bool):
            return value
        if str(value).lower() in ("true", "false"):
            return str(value).lower() == "true"
        raise _rejected(name, value, "true or false")
    number = _number(value)
    if isinstance(default, int):
        if number is None or not number.is_integer():
            raise _rejected(name, value, "a whole number")
        return int(number)
    if isinstance(default, float):
        if number is None:
            raise _rejected(name, value, "a number")
        return number
    raise TypeError(f"{name}: a number, true or false, or a list of choices can be offered, not {default!r}")


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (OverflowError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _rejected(name: str, value: Any, wanted: str) -> InputRejected:
    return InputRejected(say("bad_parameter", name=name, value=repr(value)[:40], wanted=wanted))
