"""Reads definitions and values from source files, so that nothing has to be imported for them.

What is asked for is named `"package.module:Name"`; the name may be one that the module imports from elsewhere.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

OUTSIDE = "keras"
"""The package that is not read: what Keras' own classes take is no argument of a method."""
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def constant(source: str) -> Any:
    """The value of a module's or a class's variable, without an import.

    Args:
        source: `"package.module:NAME"` or `"package.module:Class.name"`, where the class may have inherited it.

    Raises:
        ValueError: If there is none, or it is made of more than literals and names of literals.
    """
    module, value = _value_node(source)
    return evaluate(module, value, source)


def members(source: str) -> dict[str, str]:
    """What a module's dict from text to classes or functions holds, by names that `parameters` takes.

    Args:
        source: Name of the dict, such as `"keras_semimed.models:METHODS"`. Members that are no names come as `""`.

    Raises:
        ValueError: If there is no such dict.
    """
    module, value = _value_node(source)
    if not isinstance(value, ast.Dict):
        raise ValueError(f"{source!r} must be written out as a dict")
    found = {}
    for key, member in zip(value.keys, value.values, strict=True):
        if key is None:
            raise ValueError(f"{source!r} must name each member itself, without **{ast.unparse(member)}")
        named = isinstance(member, ast.Name | ast.Attribute) and _find(module, ast.unparse(member))
        found[evaluate(module, key, source)] = f"{named[0]}:{named[1]}" if named else ""
    return found


def documentation(source: str) -> str:
    """The docstring of a class or function; empty where it has none."""
    _, node = definition(source)
    return (isinstance(node, (ast.ClassDef, *FUNCTIONS)) and ast.get_docstring(node)) or ""


def names_in(source: str) -> set[str]:
    """The names that occur in a method, `"package.module:Class.method"`, where the class may have inherited it.

    Raises:
        ValueError: If there is no such method.
    """
    outer, _, name = source.rpartition(".")
    module, node = definition(outer)
    for _, level in inheritance(module, node) if isinstance(node, ast.ClassDef) else ():
        method = _bound(level.body).get(name)
        if isinstance(method, FUNCTIONS):
            return {each.id for each in ast.walk(method) if isinstance(each, ast.Name)}
    raise ValueError(f"{source!r} is no method")


def written_out(module: str, annotation: ast.expr) -> ast.expr:
    """An annotation with the names of `Literal`s replaced by what they stand for."""

    class WrittenOut(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.expr:
            found = _find(module, node.id)
            literal = found and isinstance(found[2], ast.Subscript) and ast.unparse(found[2].value) == "Literal"
            return found[2] if literal else node  # type: ignore[index, return-value]

    return WrittenOut().visit(annotation)


def _value_node(source: str) -> tuple[str, ast.expr]:
    """The expression that a variable of a module or class is bound to, and the module that it stands in."""
    outer, _, attribute = source.rpartition(".")
    if ":" not in outer:
        module, node = definition(source)
        if isinstance(node, ast.expr):
            return module, node
    else:
        module, node = definition(outer)
        for place, level in inheritance(module, node) if isinstance(node, ast.ClassDef) else ():
            if (value := _bound(level.body).get(attribute)) is not None:
                if isinstance(value, ast.expr):
                    return place, value
                break
    raise ValueError(f"{source!r} is no variable")


def definition(source: str) -> tuple[str, ast.AST]:
    """The definition that a name stands for, and the module that holds it."""
    module, colon, name = source.partition(":")
    found = _find(module, name) if colon else None
    if found is None:
        raise ValueError(f"there is no {source!r}; expected 'package.module:Name'")
    return found[0], found[2]


def _find(module: str, dotted: str) -> tuple[str, str, ast.AST] | None:
    """Follows imports to a definition: its module, its name there and its node; None if that is outside."""
    name, _, rest = dotted.partition(".")
    node = _names(module).get(name)
    if isinstance(node, _Import):
        return _find(node.module, ".".join(part for part in (node.name, rest) if part))
    if node is None:
        return _find(f"{module}.{name}", rest) if rest and _file(f"{module}.{name}") else None
    return None if rest else (module, name, node)


def inheritance(module: str, node: ast.ClassDef) -> list[tuple[str, ast.ClassDef]]:
    """A class and those it inherits from, each with its module, in Python's order."""
    return [(level.module, level.node) for level in _skeleton(module, node).__mro__[:-1]]  # type: ignore[attr-defined]


@functools.cache
def _skeleton(module: str, node: ast.ClassDef) -> type:
    """An empty class with the same ancestors, which Python then puts in order."""
    found = [_find(module, ast.unparse(base)) for base in node.bases]
    bases = [_skeleton(base[0], base[2]) for base in found if base and isinstance(base[2], ast.ClassDef)]
    return type(node.name, tuple(bases), {"module": module, "node": node})


class _Import(NamedTuple):
    """Where an imported name comes from; `name` is empty for a module."""

    module: str
    name: str


@functools.cache
def _names(module: str) -> dict[str, Any]:
    """What a module binds: nodes of definitions and values, `_Import`s; nothing for one that is outside."""
    path = _file(module)
    if path is None:
        return {}
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return _bound(ast.parse(path.read_bytes()).body, package)


def _bound(body: list[ast.stmt], package: str = "") -> dict[str, Any]:
    """What statements bind."""
    found: dict[str, Any] = {}
    for node in body:
        if isinstance(node, (ast.ClassDef, *FUNCTIONS)):
            found[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id: node.value for target in targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                found[alias.asname or top] = _Import(alias.name if alias.asname else top, "")
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*parents, *([node.module] if node.module else [])])
            found |= {alias.asname or alias.name: _Import(origin, alias.name) for alias in node.names}
    return found


@functools.cache
def _file(module: str) -> Path | None:
    """The source file of a module; None outside or without one. The top package is located, nothing imported."""
    top, *inner = module.split(".")
    if not top or top == OUTSIDE:
        return None
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # such as `__main__`
        return None
    if spec is None:
        return None
    places = [Path(place, *inner) for place in spec.submodule_search_locations or ()]
    files = [file for place in places for file in (place / "__init__.py", place.with_suffix(".py"))]
    files += [Path(spec.origin)] if spec.origin and not inner else []
    return next((file for file in files if file.suffix == ".py" and file.is_file()), None)


class _Constants(Mapping[str, Any]):
    """A module's names by value, each read when it is asked for."""

    def __init__(self, module: str) -> None:
        self.module = module

    def __getitem__(self, name: str) -> Any:
        found = _find(self.module, name)
        if found is None or not isinstance(found[2], ast.expr):
            raise KeyError(name)
        return evaluate(found[0], found[2], name)

    def __iter__(self) -> Iterator[str]:
        return iter(_names(self.module))

    def __len__(self) -> int:
        return len(_names(self.module))


def evaluate(module: str, node: ast.expr, name: str) -> Any:
    """The value of an expression of literals and names of such expressions."""
    try:
        # The expression that an import of the module would run, with the names that it may refer to and no built-ins.
        return eval(compile(ast.Expression(node), module, "eval"), {"__builtins__": {}}, _Constants(module))
    except (NameError, AttributeError, TypeError, KeyError) as error:
        raise ValueError(
            f"`{name}` in {module} is {ast.unparse(node)}, which needs an import ({error}); write it as a literal or a "
            "module's variable with a literal value"
        ) from error
