"""A later version of callflow, which has migrations more: a copy of this checkout, changed."""

import shutil
import subprocess
import sys
from pathlib import Path

from etl.warehouse import tables

ROOT = Path(__file__).resolve().parents[2]
HEAD = tables.REVISION
TABLES, ZOOM = Path("etl/warehouse/tables.py"), Path("etl/providers/zoom/flows.py")

UPGRADE = "import sys; from etl.warehouse import migrate; print(migrate.upgrade(sys.argv[1]))"

STATE = """
import sys
from etl.warehouse import migrate
from etl.warehouse.connect import connect
engine = connect(sys.argv[1])
with engine.begin() as connection:
    print(migrate.state(connection))
engine.dispose()
"""

NEXT = """
import sqlalchemy as sa
from alembic import op
revision, down_revision, branch_labels, depends_on = "{revision}", "{previous}", None, None
def upgrade():
    op.add_column("flows", sa.Column("{column}", sa.Text()), schema="zoom")
    {more}
def downgrade():
    op.drop_column("flows", "{column}", schema="zoom")
"""


def later_version(folder: Path) -> Path:
    """Copy callflow to `folder` as a version whose head is the revision 9999."""
    for name in ("etl", "migrations"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copy(ROOT / "alembic.ini", folder)
    replace(folder / TABLES, f'REVISION = "{HEAD}"', 'REVISION = "9999"')
    for module, words in (
        (TABLES, "Bookkeeping"),
        (ZOOM, "Flows of Zoom"),
        (ZOOM, "Name of the flow"),
    ):
        replace(folder / module, words, f"100 % '{words}'")
    return folder


def replace(module: Path, old: str, new: str) -> None:
    """Replace `old` in a module, where it must stand."""
    source = module.read_text(encoding="utf-8")
    assert old in source
    module.write_text(source.replace(old, new), encoding="utf-8")


def add_migration(
    later: Path, more: str = "pass", *, revision: str = "9999", column: str = "later"
) -> None:
    """Add a migration behind those that are there: a column of zoom.flows, and `more`."""
    folder = later / "migrations" / "versions"
    previous = max(path.name[:4] for path in folder.glob("[0-9]*.py"))
    source = NEXT.format(revision=revision, previous=previous, column=column, more=more)
    (folder / f"{revision}_later.py").write_text(source, encoding="utf-8")


def add_column(later: Path, name: str = "later") -> None:
    """Add a column to zoom.flows and its history, in its declaration and by a migration."""
    line = '    field("last_modified_time", TIME, "When the flow was changed last."),\n'
    replace(later / ZOOM, line, f'{line}    field("{name}", TEXT, "New."),\n')
    add_migration(
        later, more=f'op.add_column("zoom_flows", sa.Column("{name}", sa.Text()), schema="history")'
    )


def python(code: str, *arguments: str, root: Path = ROOT) -> subprocess.Popen[str]:
    """Start a Python that finds the package of `root` first."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said(process: subprocess.Popen[str]) -> str:
    """Return what a process that succeeds prints."""
    out, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    return out.strip()


def failed(process: subprocess.Popen[str]) -> str:
    """Return the last line that a process which fails prints: its exception."""
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1, error
    return error.strip().splitlines()[-1]
