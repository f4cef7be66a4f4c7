"""What a bundle's logging.conf may say: formats and levels, to the screen.

MONAI applies the file before it reads anything else, and Python's ``fileConfig`` evaluates several of its
fields. The file is read here by the same parser, so that a key means the same to both however it is spelt.
"""

from __future__ import annotations

import configparser

HARMLESS = ("keys", "level", "handlers", "qualname", "propagate", "formatter", "format", "datefmt")
# evaluated fields of a handler, and the only texts that they may have
EVALUATED = {"class": ("StreamHandler",), "args": ("(sys.stdout,)", "(sys.stderr,)", "()")}


def findings_in_logging(text: str) -> list[str]:
    """What in a logging configuration may do more than write to the screen, as "[section] key=value".

    Raises:
        ValueError: the text cannot be read.
    """
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise ValueError(type(error).__name__) from error
    sections = {"DEFAULT": dict(parser.defaults())} | {
        name: dict(parser.items(name)) for name in parser.sections()
    }
    return [
        f"[{section}] {key}={value}"
        for section, fields in sections.items()
        for key, value in fields.items()
        if section == "DEFAULT"  # its values would reach every section
        or not (
            key in HARMLESS
            or (section.startswith("handler_") and (value or "").strip() in EVALUATED.get(key, ()))
        )
    ]
