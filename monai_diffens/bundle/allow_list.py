"""What a bundle's configurations may run, checked lexically: nothing of them is imported or evaluated.

MONAI calls whatever callable a ``_target_`` names, and evaluates every string that starts with ``$``. Here a
target, and every name that an expression reaches, must be on ``allow_list.json`` or be a function or class
that this package itself defines.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from monai.bundle import ReferenceResolver

from monai_diffens.bundle.manifest import PACKAGE, PACKAGE_DIR, BundleRejected
from monai_diffens.messages import say

ALLOWED: dict[str, frozenset[str]] = {
    kind: frozenset(names)
    for kind, names in json.loads(
        Path(__file__).with_name("allow_list.json").read_text(encoding="utf-8")
    ).items()
}
# Pre-imported by MONAI's ConfigParser.
GLOBALS = {"monai": "monai", "torch": "torch", "np": "numpy", "numpy": "numpy"}
REFERENCES = "__local_refs"  # what MONAI writes for "@id" before it evaluates

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_SIZE = re.compile(r"\*|[\dnp *+()-]+")
_LOGGING_FIELDS = {"class": ("StreamHandler",), "args": ("(sys.stdout,)", "(sys.stderr,)", "()")}
_UNLOCKING = {"allow_pickle": (False,), "weights_only": (True,), "_mode_": ("default", "callable")}
_PLAIN_NODES = (
    *(ast.Expression, ast.Constant, ast.Tuple, ast.List, ast.Dict, ast.Subscript, ast.Slice, ast.Load),
    *(ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.Compare, ast.cmpop, ast.IfExp),
    *(ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod),
    *(ast.Call, ast.keyword, ast.Starred, ast.ListComp, ast.GeneratorExp, ast.comprehension, ast.Store),
)


def check_configs(root: Path) -> None:
    """Check every file in the ``configs`` folder of an unpacked bundle.

    Raises:
        BundleRejected: a file cannot be read, or holds something that is not on the allow-list.
    """
    findings: list[str] = []
    configs: dict[str, Any] = {}
    for path in sorted((root / "configs").rglob("*")):
        if path.is_dir():
            continue
        name = path.relative_to(root).as_posix()
        try:
            text = path.read_text(encoding="utf-8")
            if path.suffix == ".json":
                configs[name] = json.loads(text)
                list(_walk(configs[name], ""))  # here its nesting may be too deep
            elif path.suffix == ".conf":
                findings += [f"{name}, {line}" for line in findings_in_logging(text)]
            else:
                findings.append(f"{name}, a file that is neither .json nor .conf")
        except (OSError, ValueError, RecursionError) as error:
            why = type(error).__name__
            raise BundleRejected(say("bad_config", name=root.name, file=name, why=why)) from error
    # overlays use what the file below them imports, so a name means the same in all files
    names = dict(GLOBALS)
    for name, config in configs.items():
        findings += [f"{name}, {line}" for line in _findings_in_imports(config, names)]
    for name, config in configs.items():
        findings += [f"{name}, {line}" for line in _findings_in_values(config, names)]
    if findings:
        raise BundleRejected(say("not_allowed", name=root.name, count=len(findings), first=findings[0]))


def findings_in_config(config: Any) -> list[str]:
    """What in a configuration is not on the allow-list, each as "<id>: <what>"."""
    names = dict(GLOBALS)
    return _findings_in_imports(config, names) + _findings_in_values(config, names)


def _findings_in_imports(config: Any, names: dict[str, str]) -> list[str]:
    """Imports that are not allowed; the others are added to ``names``."""
    findings = []
    for place, value in _walk(config, ""):
        if isinstance(value, str) and value.startswith("$") and (found := _import(value[1:])):
            alias, dotted = found
            if dotted is None or names.setdefault(alias, dotted) != dotted:
                findings.append(f"{place}: {value}")
    return findings


def _findings_in_values(config: Any, names: dict[str, str]) -> list[str]:
    findings = []
    for place, value in _walk(config, ""):
        key = place.rsplit("#", 1)[-1]
        if key == "_target_":
            bad = not (isinstance(value, str) and is_allowed(value))
        elif key in _UNLOCKING:
            bad = value not in _UNLOCKING[key]
        elif not isinstance(value, str):
            bad = False
        elif value.startswith("$"):
            bad = _import(value[1:]) is None and not _is_allowed_expression(value, names)
        elif "#spatial_shape#" in place:  # MONAI evaluates these sizes
            bad = not _SIZE.fullmatch(value)
        else:  # macros read other files, relative ids make other ids
            bad = value.startswith("%") or re.match(r"@(#|::)", value) is not None
        if bad:
            findings.append(f"{place}: {value}")
    return findings


def findings_in_logging(text: str) -> list[str]:
    """What in a logging configuration writes elsewhere than to the screen; MONAI evaluates these fields."""
    return [
        line.strip()
        for line in text.splitlines()
        if (field := re.match(r"\s*(\w+)\s*[=:]\s*(.*)", line))
        and field[1].lower() in {*_LOGGING_FIELDS, "kwargs", "()"}
        and field[2].strip() not in _LOGGING_FIELDS.get(field[1].lower(), ())
    ]


def is_allowed(dotted: str) -> bool:
    """Whether a dotted name is on the list, or is defined in this package."""
    if not _DOTTED.fullmatch(dotted) or any(part.startswith("_") for part in dotted.split(".")):
        return False
    return dotted in ALLOWED["names"] or _is_own(dotted)


def _is_own(dotted: str) -> bool:
    """Whether the package itself defines the name; what its modules import (os, sys) is not its own."""
    if not dotted.startswith(f"{PACKAGE}."):
        return False
    module, name = dotted.rsplit(".", 1)
    return name in _definitions(module)


@cache
def _definitions(module: str) -> frozenset[str]:
    stem = PACKAGE_DIR.parent.joinpath(*module.split("."))
    for path in (stem.with_suffix(".py"), stem / "__init__.py"):
        if path.is_file():
            tree = ast.parse(path.read_text(encoding="utf-8"))
            kinds = (ast.ClassDef, ast.FunctionDef)
            return frozenset(node.name for node in tree.body if isinstance(node, kinds))
    return frozenset()


def _is_module(dotted: str) -> bool:
    stem = PACKAGE_DIR.parent.joinpath(*dotted.split("."))
    own = dotted.startswith(f"{PACKAGE}.") and (stem.with_suffix(".py").is_file() or stem.is_dir())
    return own or dotted in ALLOWED["imports"]


def _walk(config: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Every value that is neither dict nor list, and every ``_target_``, with its id."""
    if isinstance(config, dict | list) and place.rsplit("#", 1)[-1] != "_target_":
        for key, value in config.items() if isinstance(config, dict) else enumerate(config):
            yield from _walk(value, f"{place}#{key}" if place else str(key))
    else:
        yield place, config


def _import(text: str) -> tuple[str, str | None] | None:
    """Alias and dotted name of an import statement, None for the name where it is not allowed.

    Returns:
        None when the text is no import statement.
    """
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError):
        return None
    if not body or not isinstance(body[0], ast.Import | ast.ImportFrom):
        return None
    statement, alias = body[0], body[0].names[0]
    bound = alias.asname or alias.name
    if len(body) > 1 or len(statement.names) > 1:
        return bound, None
    if isinstance(statement, ast.Import):
        return bound, alias.name if _is_module(alias.name) else None
    dotted = f"{statement.module}.{alias.name}"
    allowed = not statement.level and (is_allowed(dotted) or _is_module(dotted))
    return bound, dotted if allowed else None


def _is_allowed_expression(value: str, names: dict[str, str]) -> bool:
    references = ReferenceResolver.match_refs_pattern(value)
    if any(reference.startswith("::") for reference in references):
        return False
    try:
        text = ReferenceResolver.update_refs_pattern(value, dict.fromkeys(references))[1:]
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, KeyError):
        return False
    return _Checker(names, tree).allows(tree)


class _Checker:
    """Decides node by node; what is not known is not allowed."""

    def __init__(self, names: dict[str, str], tree: ast.AST) -> None:
        self.names = names
        stored = (node for node in ast.walk(tree) if isinstance(node, ast.Name))
        self.bound = {node.id for node in stored if isinstance(node.ctx, ast.Store)}

    def allows(self, node: ast.AST) -> bool:
        if isinstance(node, ast.Name):
            # a bare module may only be the start of a dotted name
            known = ALLOWED["builtins"] | self.bound if node.id not in self.names else frozenset[str]()
            return node.id in known or is_allowed(self.names.get(node.id, ""))
        if isinstance(node, ast.Attribute):
            dotted = self.dotted(node)
            if dotted is not None:
                return is_allowed(dotted)
            return not node.attr.startswith("_") and self.allows(node.value)
        if isinstance(node, ast.Subscript) and self.is_reference(node):
            return True
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            method = self.dotted(node.func) is None
            if method and node.func.attr not in ALLOWED["methods"]:
                return False
        return isinstance(node, _PLAIN_NODES) and all(map(self.allows, ast.iter_child_nodes(node)))

    def is_reference(self, node: ast.Subscript) -> bool:
        name, key = node.value, node.slice
        return isinstance(name, ast.Name) and name.id == REFERENCES and isinstance(key, ast.Constant)

    def dotted(self, node: ast.Attribute) -> str | None:
        """Dotted name of attributes that start at an imported module, else None."""
        parts = [node.attr]
        value: ast.AST = node.value
        while isinstance(value, ast.Attribute):
            parts.append(value.attr)
            value = value.value
        if not isinstance(value, ast.Name) or value.id not in self.names:
            return None
        return ".".join([self.names[value.id], *reversed(parts)])
