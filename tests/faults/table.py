"""The table of faults and their tests, which `make docs` writes into docs/reliability.md.

The marks are read from the source of the tests; no test is run or imported.
"""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

from tests.faults.catalogue import CATALOGUE, FAULTS, Fault

ROOT = Path(__file__).resolve().parents[2]

Test: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


def marked(text: str, where: str) -> dict[int, list[str]]:
    """Map each fault's number to the tests of a module that are marked with it, in their order.

    A mark counts for the test that it decorates, also where it stands in a parameter of it; as
    `pytestmark` for every test of its class or module; in a list of parameters that has a name, for
    the tests whose decorators name that list. Raises ValueError for a mark that is none of these,
    or whose numbers are not written out.
    """
    module = ast.parse(text)
    tests = dict(_tests(module.body, ""))
    found: dict[int, set[str]] = {}
    claimed: set[int] = set()
    for node, names in _claims(module, tests):
        for call in _marks(node):
            claimed.add(id(call))
            for number in _numbers(call, where):
                found.setdefault(number, set()).update(names)
    for call in _marks(module):
        if id(call) not in claimed:
            raise ValueError(f"{where}:{call.lineno}: this mark belongs to no test")
    order = list(tests)
    return {number: sorted(names, key=order.index) for number, names in found.items()}


def _claims(module: ast.Module, tests: Mapping[str, Test]) -> Iterator[tuple[ast.AST, list[str]]]:
    """Yield pieces of the module, and the tests that a mark in them counts for."""
    for scope, body in _scopes(module.body):
        for statement in body:
            if "pytestmark" in _targets(statement):
                yield statement, [name for name in tests if name.startswith(scope)]
    for statement in module.body:
        if names := set(_targets(statement)):
            users = [name for name, test in tests.items() if names & _named(test)]
            if users:
                yield statement, users
    for name, test in tests.items():
        for decorator in test.decorator_list:
            yield decorator, [name]


def _scopes(body: list[ast.stmt]) -> Iterator[tuple[str, list[ast.stmt]]]:
    yield "", body
    for each in body:
        if isinstance(each, ast.ClassDef):
            yield f"{each.name}::", each.body


def _tests(body: list[ast.stmt], scope: str) -> Iterator[tuple[str, Test]]:
    for each in body:
        if isinstance(each, ast.ClassDef):
            yield from _tests(each.body, f"{each.name}::")
        elif isinstance(each, Test) and each.name.startswith("test_"):
            yield f"{scope}{each.name}", each


def _marks(node: ast.AST) -> Iterator[ast.Call]:
    for each in ast.walk(node):
        if isinstance(each, ast.Call) and ast.unparse(each.func) == "pytest.mark.fault":
            yield each


def _numbers(call: ast.Call, where: str) -> Iterator[int]:
    for given in call.args:
        if not isinstance(given, ast.Constant) or not isinstance(given.value, int):
            raise ValueError(f"{where}:{call.lineno}: write the numbers of the faults out")
        yield given.value


def _targets(statement: ast.stmt) -> Iterator[str]:
    targets: list[ast.expr] = []
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    yield from (each.id for each in targets if isinstance(each, ast.Name))


def _named(test: Test) -> set[str]:
    nodes = (node for each in test.decorator_list for node in ast.walk(each))
    return {node.id for node in nodes if isinstance(node, ast.Name)}


def found(tests: Path = ROOT / "tests") -> dict[int, dict[str, list[str]]]:
    """Return fault number → file of tests, from the root of the project → names of tests."""
    every: dict[int, dict[str, list[str]]] = {}
    for path in sorted(tests.rglob("test_*.py")):
        name = path.relative_to(tests.parent).as_posix()
        for number, names in marked(path.read_text(encoding="utf-8"), name).items():
            every.setdefault(number, {})[name] = names
    return every


def table(tests: Mapping[int, Mapping[str, list[str]]]) -> str:
    """Return the table in Markdown: number, fault, outcome, the tests that show it."""
    lines = []
    faults = iter(FAULTS)
    for title, group in CATALOGUE:
        lines += [f"**{title}**", "", "| # | fault | what becomes of it | shown by |"]
        lines += ["|---|---|---|---|"]
        lines += [_row(next(faults), tests) for _ in group]
        lines += [""]
    return "\n".join(lines)


def _row(fault: Fault, tests: Mapping[int, Mapping[str, list[str]]]) -> str:
    shown = [
        f"[{path.removeprefix('tests/')}](../{path}): "
        + ", ".join(f"`{name.removeprefix('test_')}`" for name in names)
        for path, names in tests.get(fault.number, {}).items()
    ]
    cells = (str(fault.number), fault.name, fault.outcome, "<br>".join(shown) or "no test yet")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
