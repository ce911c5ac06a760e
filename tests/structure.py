"""Figures of the code's structure: `python -m tests.structure [CHECKOUT]`.

A *room* is a file or a folder that stands directly in a folder; an *arrow* says that something in one room imports something
in another. A *circle* is a set of rooms that reach each other; an arrow within one *runs back* if it leads to a room that the
walk came from.
"""

import ast
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

PACKAGES = ("api", "models", "worker", "benchmarks")
HOUSES = ("api", "models", "worker", "worker/distillation", "benchmarks")
LONG_FUNCTION_LINES = 40
LISTED = 12


def modules(root: Path, packages: Iterable[str] = PACKAGES) -> dict[str, Path]:
    """Every module's file by its full name."""
    found = {}
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            found[".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")] = path
    return found


def imports(known: Mapping[str, Path]) -> dict[str, set[str]]:
    """What each module imports of the others, imports within functions included."""
    found: dict[str, set[str]] = {}
    for name, path in known.items():
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        found[name] = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        for node in nodes:
            if isinstance(node, ast.ImportFrom) and node.module:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                found[name] |= (inner & set(known)) or {node.module}
        found[name] = (found[name] & set(known)) - {name}
    return found


def packages_at_once(path: Path) -> set[str]:
    """The packages outside the standard library that importing a file imports: imports within functions wait."""
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)
    return found - sys.stdlib_module_names


def arrows(imported: Mapping[str, set[str]], house: str) -> dict[str, set[str]]:
    """The rooms of a folder, and to which other rooms of it each has an arrow."""
    inside = f"{house.replace('/', '.')}."
    found: dict[str, set[str]] = defaultdict(set)
    for name, others in imported.items():
        if name.startswith(inside):
            room = name.removeprefix(inside).partition(".")[0]
            targets = {other.removeprefix(inside).partition(".")[0] for other in others if other.startswith(inside)}
            found[room] |= targets - {room}
    return found


def circles(graph: Mapping[str, set[str]]) -> list[set[str]]:
    """Sets of rooms that reach each other."""
    reached = {room: _reached(graph, room) for room in graph}
    found: list[set[str]] = []
    for room in sorted(graph):
        circle = {other for other in reached[room] if room in reached[other]}
        if circle and circle not in found:
            found.append(circle)
    return found


def _reached(graph: Mapping[str, set[str]], room: str) -> set[str]:
    seen: set[str] = set()
    waiting = [*graph[room]]
    while waiting:
        each = waiting.pop()
        if each not in seen:
            seen.add(each)
            waiting += graph.get(each, ())
    return seen


def running_back(graph: Mapping[str, set[str]]) -> int:
    """How many arrows lead back to a room on the way to them, walking depth first in the order of names."""
    count, done = 0, set()

    def walk(room: str, path: tuple[str, ...]) -> None:
        nonlocal count
        for other in sorted(graph.get(room, ())):
            if other in path:
                count += 1
            elif other not in done:
                walk(other, (*path, other))
        done.add(room)

    for room in sorted(graph):
        if room not in done:
            walk(room, (room,))
    return count


def files_by_folder(root: Path, packages: Iterable[str] = (*PACKAGES, "client", "tests", "docs")) -> dict[str, int]:
    """How many Python files, `__init__.py` apart, stand directly in each folder."""
    found: dict[str, int] = defaultdict(int)
    for package in packages:
        for path in (root / package).rglob("*.py"):
            if path.stem != "__init__" and "build" not in path.parts:
                found[str(path.parent.relative_to(root))] += 1
    return dict(found)


def functions(known: Mapping[str, Path]) -> Iterator[tuple[str, int, int]]:
    """Every function: its place, its lines, and how many parameters it has beside `self`."""
    for name, path in known.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                count = sum(argument.arg not in ("self", "cls") for argument in given)
                yield f"{name}.{node.name}", (node.end_lineno or node.lineno) - node.lineno + 1, count


def main() -> int:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1]
    known = modules(root)
    imported = imports(known)
    for house in HOUSES:
        graph = arrows(imported, house)
        count = sum(map(len, graph.values()))
        found = [", ".join(sorted(circle)) for circle in circles(graph)]
        back = running_back(graph)
        print(
            f"{house}: {len(graph)} rooms, {count} arrows, {back} running back, circles: {'; '.join(found) or 'none'}"
        )
    crowded = sorted(files_by_folder(root).items(), key=lambda item: -item[1])[:LISTED]
    print("files in a folder:", ", ".join(f"{folder} {count}" for folder, count in crowded))
    every = list(functions(known))
    long = sorted((item for item in every if item[1] > LONG_FUNCTION_LINES), key=lambda item: -item[1])
    print(f"functions over {LONG_FUNCTION_LINES} lines: {len(long)} of {len(every)}")
    for name, lines, _ in long[:LISTED]:
        print(f"  {name}: {lines} lines")
    print("longest parameter lists:")
    for name, _, count in sorted(every, key=lambda item: -item[2])[:LISTED]:
        print(f"  {name}: {count}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
