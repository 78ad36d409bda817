"""Imports go one way: extract knows the envelope, transform the record, load knows SQL."""

import ast
import builtins
import importlib
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from etl.providers import PROVIDERS

ROOT = Path(__file__).resolve().parents[1]

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "etl").rglob("*.py"))
}

LEAVES = (
    "etl.errors",
    "etl.config.hosts",
    "etl.config.known_secrets",
    "etl.config.redact",
    "etl.daemon.signals",
    "etl.extract.decode",
    "etl.extract.page",
    "etl.sync.prefetch",
    "etl.transform.rows",
    "etl.warehouse.tables",
)

MAY_KNOW_SQL = ("etl.commands", "etl.daemon.connections", "etl.daemon.executors",
                "etl.daemon.hung", "etl.daemon.leading", "etl.daemon.outside", "etl.daemon.rounds",
                "etl.daemon.snapshot", "etl.daemon.watch", "etl.load", "etl.status.flows",
                "etl.status.missing", "etl.status.queries", "etl.status.stories",
                "etl.status.versions", "etl.sync",
                "etl.warehouse")  # fmt: skip

MAY_SEND = ("etl.daemon.webhook", "etl.extract.http", "etl.extract.route", "etl.extract.transport")

SHAPES = {"Boolean", "Column", "DateTime", "Integer", "Table", "Text", "BigInteger", "MetaData",
          "ForeignKeyConstraint", "PrimaryKeyConstraint", "JSONB", "TypeEngine", "URL",
          "make_url", "ArgumentError", "Double", "Index"}  # fmt: skip
"""What of SQLAlchemy describes tables and addresses and says no SQL."""

IMPURE = {"datetime.now", "random", "secrets", "time", "uuid", "os", "socket", "threading",
          "subprocess", "pathlib", "httpx", "psycopg", "alembic", "logging"}  # fmt: skip


@cache
def imports(module: str) -> frozenset[str]:
    """Return what `module` imports, also inside its functions: "etl.errors", "sqlalchemy.Table"."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def of(name: str, *packages: str) -> bool:
    """Return whether `name` is one of `packages` or in one of them."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def ours(module: str) -> set[str]:
    """Return the modules of our own that `module` imports."""
    found = set()
    for name in imports(module):
        if of(name, "etl"):
            found.add(name if name in MODULES else name.rpartition(".")[0])
    return found


def those(*packages: str) -> list[str]:
    found = [module for module in MODULES if of(module, *packages)]
    assert found, packages
    return found


def test_every_import_of_ours_exists_and_nothing_imports_tests() -> None:
    for module in MODULES:
        assert ours(module) <= set(MODULES), module
        assert not any(of(name, "tests", "migrations") for name in imports(module))


@pytest.mark.parametrize("module", LEAVES)
def test_the_lowest_modules_import_only_each_other(module: str) -> None:
    assert ours(module) <= {"etl", *LEAVES}


def test_one_module_knows_opentelemetry_and_imports_it_when_it_is_used() -> None:
    knows = [name for name in MODULES if any(of(each, "opentelemetry") for each in imports(name))]
    assert knows == ["etl.daemon.telemetry"]
    code = "import sys, etl.daemon.telemetry; assert 'opentelemetry' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize("module", those("etl.extract"))
def test_extract_knows_no_tables_and_no_sql(module: str) -> None:
    assert not any(of(name, "sqlalchemy", "psycopg", "alembic") for name in imports(module))
    assert not any(
        of(other, "etl.commands", "etl.daemon", "etl.load", "etl.providers", "etl.sandbox",
           "etl.status", "etl.sync", "etl.transform", "etl.warehouse")
        for other in ours(module)
    )  # fmt: skip


@pytest.mark.parametrize("module", [*those("etl.extract"), "etl.daemon.webhook"])
def test_what_asks_others_uses_only_the_public_interface_of_its_libraries(module: str) -> None:
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Attribute):
            continue
        owner = node.value.id if isinstance(node.value, ast.Name) else ""
        assert owner == "self" or not node.attr.startswith("_") or node.attr.endswith("__"), (
            f"{module}, line {node.lineno}: {node.attr}"
        )
        if owner in ("httpx", "httpcore"):
            assert node.attr in importlib.import_module(owner).__all__, f"{owner}.{node.attr}"


@pytest.mark.parametrize("module", those("etl.extract"))
def test_extract_imports_no_settings_and_no_providers(module: str) -> None:
    """It is passed values of the settings; it may import only hosts and the redactor of config."""
    allowed = ("etl.errors", "etl.config.hosts", "etl.config.redact", "etl.extract")
    assert all(of(other, *allowed) for other in ours(module)), ours(module)


def test_paging_by_offset_knows_no_provider() -> None:
    for module in ("etl.extract.offset_list", "etl.extract.offset_windows"):
        allowed = {"etl.errors", "etl.extract.decode", "etl.extract.paging",
                   "etl.extract.offset_list", "etl.extract.verdict"}  # fmt: skip
        assert ours(module) <= allowed


@pytest.mark.parametrize("module", those("etl.config"))
def test_config_knows_nothing_but_how_providers_are_declared(module: str) -> None:
    """Its values, of which declarations are made, import not even those."""
    declared = {"etl.config.draft": {"etl.providers.declare"},
                "etl.config.load": {"etl.providers", "etl.providers.declare"},
                "etl.config.schema": {"etl.providers.declare"}}  # fmt: skip
    others = {other for other in ours(module) if not of(other, "etl.config", "etl.errors")}
    assert others <= declared.get(module, set())


@pytest.mark.parametrize("module", those("etl.transform"))
def test_transform_is_pure(module: str) -> None:
    assert not any(of(name, *IMPURE) for name in imports(module))
    assert {name for name in imports(module) if of(name, "sqlalchemy")} <= {
        *(f"sqlalchemy.{shape}" for shape in SHAPES),
        *(f"sqlalchemy.dialects.postgresql.{shape}" for shape in SHAPES),
    }
    allowed = ("etl.warehouse.tables", "etl.errors", "etl.extract.decode", "etl.extract.page",
               "etl.transform")  # fmt: skip
    assert all(of(other, *allowed) for other in ours(module))
    calls = [
        ast.unparse(node.func)
        for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    ]
    forbidden = {"open", "print", "input", "datetime.now", "datetime.utcnow", "datetime.today"}
    assert not forbidden & set(calls)


@pytest.mark.parametrize("module", those("etl.load"))
def test_load_knows_no_provider(module: str) -> None:
    allowed = ("etl.warehouse.tables", "etl.warehouse.translate", "etl.warehouse.model",
               "etl.errors", "etl.load", "etl.transform.rows",
               "etl.transform.values")  # fmt: skip
    assert all(of(other, *allowed) for other in ours(module))
    words = MODULES[module].read_text(encoding="utf-8")
    names = {"zoom", "twilio", "alibaba"}
    used = {n.attr for n in ast.walk(ast.parse(words)) if isinstance(n, ast.Attribute)}
    assert not any(of(name, *names) for name in used)
    assert not any(name.startswith(tuple(f"{word}_" for word in names)) for name in used)


@pytest.mark.parametrize("module", ["etl.sync.plan", "etl.sync.proof"])
def test_modules_that_decide_import_no_io(module: str) -> None:
    assert not any(of(name, *IMPURE, "sqlalchemy") for name in imports(module))


def test_no_step_of_a_run_imports_the_module_that_calls_it() -> None:
    for module in those("etl.sync", "etl.load"):
        assert "etl.sync.run" not in ours(module), module


def test_only_the_seams_to_the_network_send_requests() -> None:
    """Others may name httpx's types, to authenticate and to read an answer."""
    shapes = {"httpx.Auth", "httpx.Request", "httpx.Response", "httpx.URL", "httpx.Headers",
              "httpx.QueryParams", "httpx.TransportError", "httpx.TimeoutException",
              "httpx.ConnectError", "httpx.ProxyError"}  # fmt: skip
    for module in MODULES:
        if of(module, *MAY_SEND, "etl.sandbox"):
            continue
        network = {
            name
            for name in imports(module)
            if of(name, "httpx", "requests", "urllib.request", "http.client", "aiohttp")
        }
        if "httpx" in network:
            text = ast.parse(MODULES[module].read_text(encoding="utf-8"))
            used = {ast.unparse(n) for n in ast.walk(text) if isinstance(n, ast.Attribute)}
            network = {name for name in used if name.startswith("httpx.")}
        assert network <= shapes, module


def test_the_route_comes_from_settings_and_sends_nothing_itself() -> None:
    assert ours("etl.extract.route") == {
        "etl.errors", "etl.config.hosts", "etl.extract.transport"
    }  # fmt: skip
    text = ast.parse(MODULES["etl.extract.route"].read_text(encoding="utf-8"))
    used = {ast.unparse(n) for n in ast.walk(text) if isinstance(n, ast.Attribute)}
    assert not used & {"httpx.Client", "httpx.get", "httpx.post", "httpx.request", "os.environ"}


def test_only_these_know_sql() -> None:
    for module in MODULES:
        if of(module, *MAY_KNOW_SQL):
            continue
        assert not any(of(name, "psycopg", "alembic") for name in imports(module)), module
        for name in imports(module):
            if of(name, "sqlalchemy"):
                assert name.rpartition(".")[2] in SHAPES, f"{module} imports {name}"


def test_one_optional_file_knows_dask_and_the_loop_chooses_it() -> None:
    for module in MODULES:
        if module != "etl.daemon.dask":
            assert not any(of(name, "dask", "distributed") for name in imports(module)), module
        if module != "etl.daemon.daemon":
            assert "etl.daemon.dask" not in ours(module), module


def test_no_module_imports_main_and_only_main_imports_the_commands() -> None:
    for module in MODULES:
        assert "etl.__main__" not in ours(module)
        assert module == "etl.__main__" or "etl.commands.cli" not in ours(module), module
        if module != "etl.__main__" and not of(module, "etl.commands"):
            assert not any(of(other, "etl.commands") for other in ours(module)), module


@pytest.mark.parametrize("module", those("etl.status"))
def test_status_knows_no_terminal_and_no_daemon(module: str) -> None:
    assert not any(of(other, "etl.daemon", "etl.extract") for other in ours(module))
    # Commands and the daemon start Graphviz in a process of this Python, which `sys` names.
    allowed = {"sys", "subprocess"} if module == "etl.status.graphviz" else set()
    found = {name.partition(".")[0] for name in imports(module)}
    assert not (found & {"rich", "typer", "sys", "os", "subprocess"}) - allowed


@pytest.mark.parametrize("module", those("etl.commands", "etl.status"))
def test_no_error_of_postgres_is_reported_without_a_redactor(module: str) -> None:
    """Without one, `translate_errors` uses an empty redactor, which hides no secret."""
    needs = {"translate_errors": 2, "suggest_grants": 3}
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and (name := ast.unparse(node.func)) in needs:
            named = {keyword.arg for keyword in node.keywords}
            assert len(node.args) >= needs[name] or "redact" in named, f"{module}:{node.lineno}"


def test_the_sandbox_and_the_pipeline_know_nothing_of_each_other() -> None:
    for module in those("etl.sandbox"):
        assert all(of(other, "etl.sandbox", "etl.errors") for other in ours(module)), module
    for module in MODULES:
        if not of(module, "etl.sandbox", "etl.commands"):
            assert not any(of(other, "etl.sandbox") for other in ours(module)), module


REGISTRIES = ("etl.providers", "etl.sandbox", "etl.sandbox.server")
"""Where the tuple of all providers, and that of all emulators, is written, and their ports."""

EXAMPLES = {"zoom_eu", "zoom_eu.flows", "sources.zoom_eu", "zoom.flows"}
"""A source, a stream and a table, as messages name them for example."""

NAMED_ELSEWHERE = {
    "etl.commands.cli": {"Zoom", "Twilio", "Alibaba"},  # the sentence at the top of its help
    "etl.config.redact": {"Twilio"},  # a comment inside a regular expression
    "etl.warehouse.tables": {"Alibaba"},  # a column's comment, for example
}  # fmt: skip


def words_of(module: str) -> set[str]:
    """Return the identifiers and strings of a module, without docstrings and comments."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):
            found |= {str(node.value)} if id(node) not in docstrings else set()
        else:
            values = (getattr(node, name, None) for name in ("id", "attr", "arg", "name", "module"))
            found |= {value for value in values if isinstance(value, str)}
    return found


def test_nothing_names_a_provider_outside_its_own_files() -> None:
    """Every list of providers is derived from `PROVIDERS`, so a new one changes no other file."""
    names = "|".join(provider.name for provider in PROVIDERS)
    own = re.compile(rf"etl\.(providers|extract|transform|sandbox)\.({names})([_.]\w+)?")
    named: dict[str, set[str]] = {}
    for module in MODULES:
        if not own.fullmatch(module) and module not in REGISTRIES:
            text = " ".join(words_of(module))
            found = set(re.findall(rf"(?i)[\w.]*(?:{names})[\w.-]*", text)) - EXAMPLES
            named |= {module: found} if found else {}
    assert named == NAMED_ELSEWHERE


def test_no_two_modules_import_each_other() -> None:
    """Search the imports depth first; a path back to a module on it is a cycle."""
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " → ".join((*way, module))
        if module not in done:
            for other in ours(module) - {"etl"}:
                if other != module:
                    visit(other, (*way, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


def classes(module: str) -> dict[str, set[str]]:
    """Return the classes that `module` defines, each with the last names of its bases."""
    tree = ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8")))
    return {
        node.name: {ast.unparse(base).rpartition(".")[2] for base in node.bases}
        for node in tree
        if isinstance(node, ast.ClassDef)
    }


def test_every_exception_stands_on_the_tree_of_errors() -> None:
    """The errors are in one file, and its docstring draws each of them."""
    known = {name for name, each in vars(builtins).items()
             if isinstance(each, type) and issubclass(each, BaseException)}  # fmt: skip
    found: dict[str, str] = {}
    for module in ("etl.errors", *MODULES):
        for name, bases in classes(module).items():
            if bases & known or any(base.endswith(("Error", "Exception")) for base in bases):
                known.add(name)
                found.setdefault(name, module)
    assert set(found.values()) == {"etl.errors"}, found
    assert set(found) == set(classes("etl.errors"))
    drawn = (ast.get_docstring(ast.parse(MODULES["etl.errors"].read_text("utf-8"))) or "").split()
    assert set(found) <= set(drawn)


def test_every_transaction_starts_where_its_connection_can_be_replaced() -> None:
    """At an explicit begin: one that SQLAlchemy makes inside `execute` would come too late."""
    found = {
        module
        for module in MODULES
        for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node).endswith("engine.connect()")
    }
    # Each of these begins what it executes on the connection.
    assert found == {"etl.commands.check", "etl.commands.sql", "etl.load.transaction",
                     "etl.sync.run"}  # fmt: skip


def test_every_session_is_opened_where_it_is_pinned() -> None:
    """`connect` opens them; `embedded` only logs in to its own server, to identify it."""
    opened: dict[str, list[str]] = {}
    migrations = {str(path): path for path in sorted((ROOT / "migrations").rglob("*.py"))}
    for module, path in {**MODULES, **migrations}.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func).rpartition(".")
                if name[0] == "httpcore":  # whose pool is one of HTTP connections
                    continue
                if name[2] in ("create_engine", "engine_from_config", "ConnectionPool") or (
                    name[2] == "connect" and name[0].lower().endswith("psycopg")
                ):
                    opened.setdefault(module, []).append(ast.unparse(node.func))
    assert opened == {
        "etl.warehouse.connect": ["create_engine"],
        "etl.warehouse.embedded.logins": ["psycopg.connect"],
    }
