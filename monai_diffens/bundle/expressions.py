"""Which ``$`` expressions of a configuration may run: a small closed grammar, checked on the syntax tree.

MONAI hands the text to Python's ``eval``. What is read here is exactly that text (MONAI's own function puts
the references in), and every node of its tree must be one of the forms below; what is not known is refused.

- A name is bound by the comprehension around it, or begins a dotted name that ``imports`` binds. It never
  hides a built-in or an import.
- A call is of a listed function, a listed built-in, or a listed method of a value; never of a value itself.
- An attribute is listed, or the whole dotted name is a listed constant.
"""

from __future__ import annotations

import ast
import builtins
import json
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from monai.bundle import ReferenceResolver

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
_UNARY = (ast.Not, ast.USub, ast.UAdd)


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
            case ast.Subscript(value=base, slice=key):
                return self.value(base, bound) and self.value(key, bound)
            case ast.Slice(lower=lower, upper=upper, step=step):
                return self.all((part for part in (lower, upper, step) if part is not None), bound)
            case (
                ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts) | ast.BoolOp(values=parts)
            ):
                return self.all(parts, bound)
            case ast.Dict(keys=keys, values=parts):
                return self.all((*keys, *parts), bound)  # a key of None is **, and refused
            case ast.Starred(value=base):
                return self.value(base, bound)
            case ast.UnaryOp(op=operator, operand=base):
                return isinstance(operator, _UNARY) and self.value(base, bound)
            case ast.BinOp(left=left, op=operator, right=right):
                return isinstance(operator, _BINARY) and self.all((left, right), bound)
            case ast.Compare(left=left, comparators=others):
                return self.all((left, *others), bound)
            case ast.IfExp(test=test, body=body, orelse=other):
                return self.all((test, body, other), bound)
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                return self.comprehension(node, bound)
            case ast.Call():
                return self.call(node, bound)
        return False

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
