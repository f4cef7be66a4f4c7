"""What a bundle's configurations may run, checked lexically: nothing of them is imported or evaluated.

MONAI calls whatever callable a ``_target_`` names, evaluates every string that starts with ``$``, copies
other files in for ``%``, and some of its classes look up a name that they are given as text, and call it.
Here a target, and every name that an expression reaches, must be on ``allow_list.json``; texts that are
looked up have a closed list of their own; and what can be read in two ways is refused. The classes of this
package are on the list one by one: that a class is ours does not make it harmless.

A configuration that passes runs listed code only. It still chooses what that code reads and where it writes,
and how much time and memory that takes.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from monai.bundle import ReferenceResolver

from monai_diffens.bundle.expressions import (
    ALLOWED,
    GLOBALS,
    IMPORTS,
    RELATIVE,
    SEPARATOR,
    import_in,
    is_allowed_expression,
    is_allowed_reference,
    tree_of,
)
from monai_diffens.bundle.logging_file import findings_in_logging
from monai_diffens.bundle.manifest import PACKAGE, BundleRejected, bundle_files
from monai_diffens.messages import say

__all__ = ["check_configs", "findings_in_config", "findings_in_logging", "is_allowed_target"]

ENDINGS = (".json", ".yaml", ".yml", ".conf")
LARGEST = 4 << 20  # bytes of a file
MOST = 100_000  # values of a file; aliases of YAML can stand for any number
SPECIAL = ("_target_", "_mode_", "_requires_", "_disabled_", "_desc_", "_meta_")
# Arguments that are looked up and called, or that switch a protection off: the only values they may have.
GUARDED: dict[str, tuple[Any, ...]] = {
    "_mode_": ("default",),  # "callable" hands out the callable, to be called with anything
    "reader": (None, *ALLOWED["readers"]),
    "writer": (None, *ALLOWED["writers"]),
    "allow_pickle": (False,),
    "weights_only": (True,),
    "pickle_module": (),
    "compile_kwargs": (None,),
}

# Names that MONAI finds by their last part alone; a test shows that it finds these and no others.
SHORT = frozenset(name.rsplit(".", 1)[1] for name in ALLOWED["targets"] if name.startswith("monai."))
_SIZE = re.compile(r"\*|\d{1,4}( ?\*\*? ?[np])?( ?\*\*? ?[np])?|[np]( ?\* ?\d{1,4})?")


def check_configs(root: Path, listed: Iterable[str] | None = None) -> None:
    """Check the configurations of an unpacked bundle, and what could serve as one elsewhere in it.

    Args:
        root: folder of the bundle.
        listed: files to look at beside those in ``configs``, by name; all of the bundle when None.

    Raises:
        BundleRejected: a file cannot be read, or holds something that is not on the allow-list.
    """
    if listed is None:
        files = list(bundle_files(root))
    else:
        paths = (path for path in (root / "configs").rglob("*") if path.is_symlink() or not path.is_dir())
        files = sorted({*listed, *(path.relative_to(root).as_posix() for path in paths)})
    configs, findings = _contents(root, files)
    # overlays use what the file below them imports, so a name means the same in all files
    names = dict(GLOBALS)
    for name, config in configs.items():
        findings += [f"{name}, {line}" for line in _findings_in_imports(config, names)]
    for name, config in configs.items():
        findings += [f"{name}, {line}" for line in _findings_in_values(config, names)]
    if findings:
        line = say("not_allowed", name=root.name, count=len(findings), first=_one_line(findings[0]))
        raise BundleRejected(line)


def findings_in_config(config: Any) -> list[str]:
    """What in a configuration is not on the allow-list, each as "<id>: <what>"."""
    names = dict(GLOBALS)
    return _findings_in_imports(config, names) + _findings_in_values(config, names)


def _contents(root: Path, names: Iterable[str]) -> tuple[dict[str, Any], list[str]]:
    """Content of every configuration by name, and what is wrong with the other files."""
    configs: dict[str, Any] = {}
    findings: list[str] = []
    for name in names:
        here, ending = name.startswith("configs/"), PurePosixPath(name).suffix
        if here and ending not in ENDINGS:
            findings.append(f"{name}, a file that is neither .json, .yaml nor .conf")
        if ending.lower() not in ENDINGS or name.startswith(f"{PACKAGE}/"):
            continue
        try:
            content = _content(root / name)
        except (OSError, ValueError, RecursionError) as error:
            why = type(error).__name__ if type(error) is not ValueError else str(error)
            raise BundleRejected(say("bad_config", name=root.name, file=name, why=why)) from error
        if ending.lower() == ".conf":
            findings += [f"{name}, {line}" for line in content]
        elif here or isinstance(content, dict):  # a list may be one of cases; MONAI takes no list
            configs[name] = content
    return configs, findings


def is_allowed_target(target: Any) -> bool:
    """Whether ``_target_`` names something on the list: by its full name or, of MONAI, by its last part."""
    return isinstance(target, str) and target in ALLOWED["targets"] | SHORT


def _content(path: Path) -> Any:
    """Content of a configuration; of one for logging, what is wrong with it."""
    if path.is_symlink() or not path.is_file():
        raise ValueError("a link or a special file")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"more than {LARGEST >> 20} MB")
    # MONAI reads by the system's encoding; what lies beyond ASCII may be another text there
    text = path.read_text(encoding="ascii")
    ending = path.suffix.lower()
    return findings_in_logging(text) if ending == ".conf" else _read(text, is_json=ending == ".json")


def _read(text: str, is_json: bool) -> Any:
    """Content of a configuration, read as MONAI does; a key that is there twice is an error here."""
    if is_json:
        config = json.loads(text, object_pairs_hook=_without_twins)
    else:
        try:
            from monai.utils.misc import CheckKeyDuplicatesYamlLoader
            from yaml import YAMLError, load
        except ImportError:
            raise ValueError("YAML needs the package pyyaml") from None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)  # MONAI's, of a key that is there twice
                config = load(text, CheckKeyDuplicatesYamlLoader)
        except (YAMLError, UserWarning, TypeError) as error:
            raise ValueError(type(error).__name__) from error
    for count, _ in enumerate(_walk(config, ())):  # here its nesting may be too deep
        if count > MOST:
            raise ValueError(f"more than {MOST} values")
    return config


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key that is there twice")
    return content


def _findings_in_imports(config: Any, names: dict[str, str]) -> list[str]:
    """Imports that are not allowed; the others are added to ``names``."""
    findings = []
    for place, value in _walk(config, ()):
        if not (isinstance(value, str) and value.startswith("$") and (tree := tree_of(value))):
            continue
        if (found := import_in(tree)) is None:
            continue
        alias, dotted = found
        here = len(place) == 2 and place[0] == IMPORTS
        if dotted is None or not here or names.setdefault(alias, dotted) != dotted:
            findings.append(f"{'#'.join(place)}: {value}")
    return findings


def _findings_in_values(config: Any, names: dict[str, str]) -> list[str]:
    if not isinstance(config, dict):
        return ["a configuration that is not a dictionary"]
    return [
        f"{'#'.join(place)}: {value}"
        for place, value in _walk(config, ())
        if not _is_allowed_key(place) or not _is_allowed_value(place, value, names)
    ]


def _is_allowed_key(place: tuple[str, ...]) -> bool:
    """Whether the last key of a place is one that MONAI takes as it stands."""
    key = place[-1] if place else ""
    special = re.fullmatch(r"\s*_.*_\s*", key) is not None
    return not SEPARATOR.search(key) and (not special or key in SPECIAL)


def _is_allowed_value(place: tuple[str, ...], value: Any, names: dict[str, str]) -> bool:
    keys = [key for key in place if not _is_index(key)]
    key = keys[-1].strip() if keys else ""
    if isinstance(value, dict):
        # not what a component gives, nor the keys of a dictionary: both can be looked up like a text
        return key != "_target_" and key not in GUARDED
    if isinstance(value, list):
        return key != "_target_"
    if not (value is None or isinstance(value, str | int | float)):
        return False  # YAML has more kinds
    if key == "_target_":
        return is_allowed_target(value)
    if key in GUARDED:
        return any(value is other or (isinstance(value, str) and value == other) for other in GUARDED[key])
    return not isinstance(value, str) or _is_allowed_text(key, value, names)


def _is_allowed_text(key: str, value: str, names: dict[str, str]) -> bool:
    if value.startswith("$"):
        tree = tree_of(value)
        if tree is None:
            return False
        # imports have been looked at
        return import_in(tree) is not None or is_allowed_expression(tree, names)
    if key == "spatial_shape":  # MONAI evaluates these sizes
        return _SIZE.fullmatch(value) is not None
    if value.startswith("%") or RELATIVE.search(value):  # other files, other ids
        return False
    normal = ReferenceResolver.normalize_id(value)
    whole = ReferenceResolver.id_matcher.fullmatch(normal)
    return whole is None or is_allowed_reference(normal[1:])


def _is_index(key: str) -> bool:
    try:
        int(key)
    except ValueError:
        return False
    return True


def _walk(config: Any, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value with the keys that lead to it, containers before what they hold.

    Keys at the top are ids: ``+a::b#c`` is ``a``, ``b``, ``c``, as MONAI takes them. Further down a key is
    one part, whatever is in it.
    """
    yield place, config
    if isinstance(config, dict | list):
        for key, value in config.items() if isinstance(config, dict) else enumerate(config):
            name = str(key)
            parts = (name,) if place else tuple(SEPARATOR.split(name.removeprefix("+")))
            yield from _walk(value, (*place, *parts))


def _one_line(text: str) -> str:
    """Text for a message: unprintable signs told as such, and not without end."""
    plain = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)
    return plain if len(plain) <= 300 else plain[:300] + "..."
