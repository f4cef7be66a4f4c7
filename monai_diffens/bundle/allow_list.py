"""What a bundle's configurations may run, checked lexically: nothing of them is imported or evaluated.

MONAI calls whatever callable a ``_target_`` names, evaluates every string that starts with ``$``, copies
other files in for ``%``, and some of its classes look up a name that they are given as text, and call it.
Here a target, and every name that an expression reaches, must be on ``allow_list.json``; texts that are
looked up have a closed list of their own; and what can be read in two ways is refused. The classes of this
package are on the list one by one: that a class is ours does not make it harmless.

MONAI hands an expression to Python's ``eval``. What is read here is exactly that text (MONAI's own function
puts the references in), and every node of its syntax tree must be one of a few forms; others are refused.

- A name is bound by the comprehension around it, or begins a dotted name that ``imports`` binds. It never
  hides a built-in or an import.
- A call is of a listed function, a listed built-in, or a listed method of a value; never of a value itself.
- An attribute is listed, or the whole dotted name is a listed constant.

A configuration that passes runs listed code only. It still chooses what that code reads and where it writes,
and how much time and memory that takes.
"""

from __future__ import annotations

import ast
import builtins
import configparser
import json
import re
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from monai.bundle import ReferenceResolver

from monai_diffens.bundle.folder import PACKAGE, bundle_files
from monai_diffens.messages import BundleRejected, say

__all__ = ["check_configs", "findings_in_config", "findings_in_logging", "is_allowed_target"]

ALLOWED: dict[str, frozenset[str]] = {
    kind: frozenset(names)
    for kind, names in json.loads(
        Path(__file__).with_name("allow_list.json").read_text(encoding="utf-8")
    ).items()
}
# Pre-imported by MONAI's ConfigParser.
GLOBALS = {"monai": "monai", "torch": "torch", "np": "numpy", "numpy": "numpy"}
REFERENCES = "__local_refs"  # what MONAI writes for "@id" before it evaluates
IMPORTS = "imports"  # the one place for import statements, so that no reference reaches a module
LONGEST = 2000  # signs; a longer text is no expression that anybody could check by eye
SEPARATOR = re.compile("#|::")
RELATIVE = re.compile("[@%](#|::)")

# Arguments that hand on a name of something to run: the compilers of torch.compile, readers and writers.
_KEYWORDS = ("options", "backend", "reader", "writer", "allow_pickle", "weights_only")
_BINARY = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod)

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

HARMLESS = ("keys", "level", "handlers", "qualname", "propagate", "formatter", "format", "datefmt")
# evaluated fields of a handler, and the only texts that they may have
EVALUATED = {"class": ("StreamHandler",), "args": ("(sys.stdout,)", "(sys.stderr,)", "()")}


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


def tree_of(value: str) -> ast.Module | None:
    """Syntax tree of the text that MONAI evaluates for a ``$`` string; None where Python cannot read it."""
    if len(value) > LONGEST or RELATIVE.search(value):
        return None
    try:
        references = ReferenceResolver.match_refs_pattern(value)
        return ast.parse(ReferenceResolver.update_refs_pattern(value, dict.fromkeys(references))[1:].strip())
    except (SyntaxError, ValueError, KeyError, RecursionError, MemoryError):
        return None


def import_in(tree: ast.Module) -> tuple[str, str | None] | None:
    """Alias and dotted name of an import statement; None for the name where it is not one allowed import.

    Returns:
        None when the tree does not begin with an import statement: MONAI looks at the first one only.
    """
    if not tree.body or not isinstance(tree.body[0], ast.Import | ast.ImportFrom):
        return None
    statement, alias = tree.body[0], tree.body[0].names[0]
    bound = alias.asname or alias.name
    dotted = alias.name
    if isinstance(statement, ast.ImportFrom):
        dotted = "" if statement.level else f"{statement.module}.{alias.name}"
    single = len(tree.body) == 1 and len(statement.names) == 1
    listed = dotted in ALLOWED["imports"]
    if isinstance(statement, ast.ImportFrom):
        listed = listed or dotted in ALLOWED["functions"] | ALLOWED["values"]
    return bound, dotted if single and listed and _is_free(bound.split(".")[0], ()) else None


def is_allowed_reference(reference: str) -> bool:
    """Whether ``@id`` may stand for the value of that id: any but the whole configuration and the imports."""
    parts = SEPARATOR.split(reference)
    return all(parts) and parts[0] != IMPORTS


def is_allowed_expression(tree: ast.Module, names: Mapping[str, str]) -> bool:
    """Whether an expression keeps to the grammar.

    Args:
        tree: from :func:`tree_of`.
        names: what ``imports`` bind, alias to dotted name.
    """
    if len(tree.body) != 1 or not isinstance(tree.body[0], ast.Expr):
        return False
    try:
        return _Grammar(names).value(tree.body[0].value, frozenset())
    except RecursionError:
        return False


def _is_free(name: str, taken: Collection[str]) -> bool:
    """Whether a name may be bound: it hides nothing."""
    return not name.startswith("_") and name not in taken and not hasattr(builtins, name)


def _parts(node: ast.AST | None) -> Sequence[ast.AST | None] | None:
    """What a node computes with, where it does no more than that."""
    match node:
        case ast.Subscript(value=base, slice=key):
            return base, key
        case ast.Slice(lower=lower, upper=upper, step=step):
            return [part for part in (lower, upper, step) if part is not None]
        case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts) | ast.BoolOp(values=parts):
            return parts
        case ast.Dict(keys=keys, values=parts):
            return *keys, *parts  # a key of None is **, and refused
        case ast.Starred(value=base):
            return (base,)
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.UAdd(), operand=base):
            return (base,)
        case ast.BinOp(left=left, op=operator, right=right) if isinstance(operator, _BINARY):
            return left, right
        case ast.Compare(left=left, comparators=others):
            return left, *others
        case ast.IfExp(test=test, body=body, orelse=other):
            return test, body, other
    return None


class _Grammar:
    def __init__(self, names: Mapping[str, str]) -> None:
        self.names = names

    def value(self, node: ast.AST | None, bound: frozenset[str]) -> bool:
        """Whether a node only computes; ``bound`` are the names of the comprehensions around it."""
        match node:
            case ast.Constant(value=constant):
                return constant is None or isinstance(constant, str | int | float)
            case ast.Name(id=name):
                return name in bound or self.names.get(name) in ALLOWED["values"]
            case ast.Attribute(value=base, attr=attribute):
                dotted = self.dotted(node)
                if dotted is not None:
                    return dotted in ALLOWED["values"]
                return attribute in ALLOWED["attributes"] and self.value(base, bound)
            case ast.Subscript(value=ast.Name(id=name), slice=key) if name == REFERENCES:
                return isinstance(key, ast.Constant) and is_allowed_reference(str(key.value))
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                return self.comprehension(node, bound)
            case ast.Call():
                return self.call(node, bound)
        parts = _parts(node)
        return parts is not None and self.all(parts, bound)

    def all(self, nodes: Iterable[ast.AST | None], bound: frozenset[str]) -> bool:
        return all(self.value(node, bound) for node in nodes)

    def comprehension(
        self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp, bound: frozenset[str]
    ) -> bool:
        for part in node.generators:
            if part.is_async or not self.value(part.iter, bound):
                return False
            targets = part.target.elts if isinstance(part.target, ast.Tuple) else [part.target]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
            if len(names) < len(targets) or not all(_is_free(name, self.names) for name in names):
                return False  # anything else than a name is set outside of the comprehension
            bound |= set(names)
            if not self.all(part.ifs, bound):
                return False
        parts = (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,)
        return self.all(parts, bound)

    def call(self, node: ast.Call, bound: frozenset[str]) -> bool:
        arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
        keywords = [keyword.arg or "_" for keyword in node.keywords]  # "_" for **
        plain = not any(name.startswith("_") or name in _KEYWORDS for name in keywords)
        dotted = self.dotted(node.func)
        match node.func:
            case ast.Name() | ast.Attribute() if dotted is not None:
                allowed = dotted in ALLOWED["functions"]
            case ast.Name(id="isinstance"):
                return len(arguments) == 2 and self.value(arguments[0], bound) and self.types(arguments[1])
            case ast.Name(id="setattr"):
                return self.switch(node)
            case ast.Name(id=name):
                allowed = name in ALLOWED["builtins"] and name not in bound
            case ast.Attribute(value=base, attr=name):
                allowed = name in ALLOWED["methods"] and self.value(base, bound)
            case _:
                allowed = False
        return allowed and plain and self.all(arguments, bound)

    def types(self, node: ast.AST) -> bool:
        names = node.elts if isinstance(node, ast.Tuple) else [node]
        return all(isinstance(name, ast.Name) and name.id in ALLOWED["types"] for name in names)

    def switch(self, node: ast.Call) -> bool:
        """Setting a listed switch, as ``setattr(torch.backends.cudnn, 'benchmark', True)``."""
        match node:
            case ast.Call(
                args=[base, ast.Constant(value=str(name)), ast.Constant(value=bool())], keywords=[]
            ):
                return f"{self.dotted(base)}.{name}" in ALLOWED["switches"]
        return False

    def dotted(self, node: ast.AST) -> str | None:
        """Dotted name of attributes that start at an import, else None."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id not in self.names:
            return None
        return ".".join([self.names[node.id], *reversed(parts)])
