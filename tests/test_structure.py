"""What imports what, read from the source: no circle, nothing from above, and no guesses about what a model has."""

from __future__ import annotations

import ast
import graphlib
import re
from collections.abc import Iterator
from pathlib import Path

import keras_semimed

ROOT = Path(keras_semimed.__file__).parent
# From below to above. A module imports from its own package and from what stands in an earlier line, nothing else;
# neighbours in a line do not know each other. `""` is the package itself, with its version: to be imported it needs
# what hands out its parts on demand, and none of them.
ORDER = (
    ("lazy",),
    ("",),
    ("text",),
    ("backend", "configuration", "embeddings", "files", "parsing", "source"),
    ("data", "losses", "metrics", "parameters", "thresholds"),
    ("layers", "provenance"),
    ("networks",),
    ("optimizers",),
    ("models",),
    ("evaluation", "saved"),
    ("callbacks", "export", "prediction"),
    ("predict",),
    ("experiments",),
    ("cli",),
    ("__main__",),
)
LEVEL = {name: level for level, names in enumerate(ORDER) for name in names}
# Builders live in a folder of their own and are looked up by name.
APART = "builders"


def modules(root: Path) -> dict[str, Path]:
    """Files by the name of their module."""
    files = [file for file in sorted(root.rglob("*.py")) if APART not in file.parts]
    places = {file: file.relative_to(root.parent).with_suffix("").as_posix().replace("/", ".") for file in files}
    return {name.removesuffix(".__init__"): file for file, name in places.items()}


def imports(name: str, file: Path, known: dict[str, Path], at_import: bool) -> set[str]:
    """The modules of the package that a module imports; on request only those that it needs to be imported itself."""
    package = name.partition(".")[0]
    found: set[str] = set()
    for node in statements(ast.parse(file.read_text(encoding="utf-8")), at_import):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively, line {node.lineno}"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {place if place in known else str(node.module) for place in inner}
    return {place for place in found if place.partition(".")[0] == package}


def statements(node: ast.AST, at_import: bool) -> Iterator[ast.AST]:
    """All nodes below one; on request without functions and what only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        if at_import and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if at_import and isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from statements(child, at_import)


def circle(root: Path) -> list[str]:
    """Modules that need each other to be imported, in order; empty without any."""
    known = modules(root)
    graph: dict[str, set[str]] = {}
    for name, file in known.items():
        needed = imports(name, file, known, at_import=True)
        # A module needs the packages that it lies in, too; one's own are being imported already.
        parents = {place.rsplit(".", depth)[0] for place in needed for depth in range(1, place.count(".") + 1)}
        graph[name] = {place for place in needed | parents if place != name and not f"{name}.".startswith(f"{place}.")}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def upward(root: Path) -> list[str]:
    """Imports from the same line or a later one of `ORDER`, wherever they stand."""
    known = modules(root)
    found = []
    for name, file in known.items():
        # The package itself shows all its parts to type checkers.
        for place in sorted(imports(name, file, known, at_import=name == root.name)):
            here, there = (part(each) for each in (name, place))
            if here != there and LEVEL[there] >= LEVEL[here]:
                found.append(f"{name} imports {place}")
    return found


def part(module: str) -> str:
    """The package or module right below the top that a module belongs to."""
    return ".".join(module.split(".")[1:2])


def guesses(file: Path) -> list[str]:
    """Calls of `hasattr` and `getattr` on something that is called a model or a part of one."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return [
        f"{file.name}:{call.lineno}: {ast.unparse(call)}"
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and ast.unparse(call.func) in ("hasattr", "getattr")
        and re.search(r"(?i)(\b|_)(model|network|predictor|teacher|labeler)s?\b", ast.unparse(call.args[0]))
    ]


def test_every_part_has_its_place():
    assert {part(name) for name in modules(ROOT)} == set(LEVEL)


def test_no_module_needs_itself():
    assert circle(ROOT) == []


def test_nothing_is_imported_from_above():
    assert upward(ROOT) == []


def test_what_stands_above_the_models_asks_them_by_their_class():
    above = [file for name, file in modules(ROOT).items() if LEVEL[part(name)] > LEVEL["models"]]
    above += sorted((ROOT.parent / "recipes").glob("*.py"))
    assert len(above) > 30
    assert [guess for file in above for guess in guesses(file)] == []


def write(folder: Path, sources: dict[str, str]) -> Path:
    """Makes a package of modules by their places, and returns its folder."""
    root = folder / "made"
    for place, source in {"__init__.py": "", "models/__init__.py": "", "layers/__init__.py": "", **sources}.items():
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_text(source)
    return root


def test_a_circle_is_found_through_a_package_and_not_where_it_is_not_run(tmp_path):
    needs = {"models/a.py": "from made.layers import b", "layers/__init__.py": "from made.models import a"}
    assert circle(write(tmp_path / "circle", {**needs, "layers/b.py": ""}))
    later = "if TYPE_CHECKING:\n    from made.models import a\ndef f():\n    import made.models.a"
    assert circle(write(tmp_path / "line", {**needs, "layers/__init__.py": later, "layers/b.py": ""})) == []


def test_an_arrow_upwards_is_found_inside_a_function_too(tmp_path):
    sources = {"layers/a.py": "def f():\n    from made.models import b", "models/b.py": "import made.layers.a"}
    assert upward(write(tmp_path, sources)) == ["made.layers.a imports made.models.b"]


def test_a_guess_about_a_model_is_found(tmp_path):
    (tmp_path / "a.py").write_text("getattr(self.model, 'a', 1); hasattr(data, 'b'); hasattr(my_network, 'c')")
    assert [guess.partition(": ")[2] for guess in guesses(tmp_path / "a.py")] == [
        "getattr(self.model, 'a', 1)",
        "hasattr(my_network, 'c')",
    ]


def test_errors_speak_one_dialect():
    """`argument` must be what is expected, found what was given; then what to do."""
    others = re.compile(r"Received: |[,;] got |; found $|, not $")
    places = [ROOT, *(ROOT.parent / name for name in ("recipes", "datasets") if (ROOT.parent / name).is_dir())]
    found = [
        f"{file}, line {node.lineno}: {node.value}"
        for place in places
        for file in sorted(place.rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and others.search(node.value)
    ]
    assert not found
