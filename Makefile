# make demo, make test: each sets up .venv first, once. `make help` lists the rest.
#
#   ARGS="…"      more arguments for callflow demo (make demo) or pytest (make quick, test, test-more)
#   HISTORIES=…   random histories of make torture; KILLS=… how often it kills
#   SWEEP=all     let make torture fail every statement and request of a sync in every way too (hours)
#   MINUTES=…     how long make soak takes
#   ARGS=--resume make bench goes on with what a stopped one has measured; also --only GROUP …
#   PYTHON=…      the Python for .venv; without it the first one from 3.11 up that is found
#   UV=           set up with `python -m venv` and pip even where there is uv
#
# Indexes, proxies and certificates of pip and uv are those of their own settings. Works with the
# GNU make 3.81 of macOS. Assigned with = so that only the command line counts, not the environment:
# `uv run` exports UV, and many a shell exports PYTHON.
ARGS =
HISTORIES = 2000
KILLS = 1000
FUZZ = 200000
MINUTES = 45
SEED =
SWEEP =
PYTHON =
UV = uv

# The tests start hundreds of processes: without bytecode each would compile whatever it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo stop quick test test-more torture soak bench bench-quick check docs setup \
	running lock sbom audit dist clean

help:
	@echo 'make demo    sync three emulated providers into an embedded Postgres and look at the result'
	@echo 'make stop    stop that Postgres; its data stays'
	@echo 'make setup   only set up .venv, with all that the tests need'
	@echo 'make quick   make check, then the tests that are not slow: a minute or so'
	@echo 'make test    make check, then all tests but those of make test-more'
	@echo 'make test-more   larger samples, each PostgreSQL found, Dask, the package, tools of others'
	@echo 'make torture random histories and kills against the real code, as many as HISTORIES=$(HISTORIES)'
	@echo '             and KILLS=$(KILLS) say, and FUZZ=$(FUZZ) odd records; SEED=… repeats a run; SWEEP=all: every failure of every'
	@echo '             statement too'
	@echo 'make soak    a daemon for MINUTES=$(MINUTES), while records change and 5 % of the answers fail'
	@echo 'make bench   how fast callflow is, beside bare COPY and dlt: writes docs/performance.md; an hour'
	@echo '             or less; make bench-quick prints a part of it after a few minutes'
	@echo 'make check   ruff (lint and format) and mypy'
	@echo 'make docs    write what README, docs and examples derive from the code'
	@echo 'make lock    write requirements.lock again after a change of pyproject.toml (needs uv);'
	@echo '             ARGS=--upgrade takes the newest versions'
	@echo 'make dist    build the wheel and the sdist, and check them'
	@echo 'make sbom    write what callflow runs with to dist/callflow.cdx.json (CycloneDX)'
	@echo 'make audit   look for published vulnerabilities of what requirements.lock pins'
	@echo 'make clean   remove .venv, caches and builds; the data of the demo stays'

demo: running
	@.venv/bin/python -m etl demo $(ARGS)

stop:
	@if [ -x .venv/bin/callflow ]; then .venv/bin/callflow stop $(ARGS); \
	else echo 'There is no .venv here, so nothing was started from here.'; fi

# Six processes even on two cores: many tests wait, for a lease to end or for a daemon. A file stays
# in one process, because its tests share servers; the longest ones start first.
PYTEST = .venv/bin/python -m pytest -n 6 --dist loadfile --no-loadscope-reorder

quick: check
	$(PYTEST) -m 'not slow and not more' $(ARGS)

test: check
	$(PYTEST) -m 'not more' $(ARGS)

test-more: setup
	$(PYTEST) -m more $(ARGS)
	HISTORIES=147 CALLFLOW_SWEEP=90 $(PYTEST) -m 'not more' tests/sync/test_histories.py \
		tests/warehouse/test_rebuild.py tests/faults/test_sql_sweep.py \
		tests/faults/test_http_sweep.py $(ARGS)

torture: setup
	.venv/bin/python -m tests.sync.histories --histories $(HISTORIES) $(if $(SEED),--seed $(SEED))
	HISTORIES=$(HISTORIES) $(if $(SEED),CALLFLOW_TEST_SEED=$(SEED)) \
		.venv/bin/python -m pytest -q tests/warehouse/test_rebuild.py
	.venv/bin/python -m tests.fuzz --records $(FUZZ) $(if $(SEED),--seed $(SEED))
	.venv/bin/python -m tests.sync.kills --kills $(KILLS) $(if $(SEED),--seed $(SEED))
	$(if $(SWEEP),CALLFLOW_SWEEP=$(SWEEP) $(if $(SEED),CALLFLOW_TEST_SEED=$(SEED)) \
		.venv/bin/python -m pytest tests/faults/test_sql_sweep.py \
		tests/faults/test_http_sweep.py)

soak: setup
	.venv/bin/python -m tests.daemon.soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

# On a machine that does nothing else. What stopped goes on with ARGS=--resume.
bench: setup
	.venv/bin/python -m benchmarks.speed --peers $(ARGS)

bench-quick: setup
	.venv/bin/python -m benchmarks.speed --quick $(ARGS)

check: setup
	.venv/bin/python -m ruff check .
	.venv/bin/python -m ruff format --check .
	.venv/bin/python -m mypy

docs: setup
	@.venv/bin/python -m tests.docs

# $$part is what is set up: `running`, what callflow and its embedded Postgres run with, or `all`. The
# stamp is written last, and again when `all` is added to `running`. Whatever else .venv is (of an
# interrupted set-up, of another lock, moved here from elsewhere, made by hand) is replaced whole: that
# is sure to be right, and takes seconds.
define set_up
wanted="$$(pwd -P) $(PYTHON) $$(cat pyproject.toml requirements.lock | cksum)"
whole='from importlib.util import find_spec as f; assert f("etl") and f("hatchling")'
all='assert f("mypy") and f("pytest") and f("ruff")'
have="$$(cat .venv/callflow.stamp 2>/dev/null || true)"
case "$$have" in
"all $$wanted") .venv/bin/python -c "$$whole; $$all" 2>/dev/null && exit 0 || have= ;;
"running $$wanted") .venv/bin/python -c "$$whole" 2>/dev/null || have= ;;
*) have= ;;
esac
[ "$$part" = running ] && [ "$$have" ] && exit 0

stop() { printf 'callflow: %s\n' "$$@" >&2; exit 1; }
started="$$(date +%s)"

# The interpreter itself, in case this one belongs to the .venv that goes.
base='import sys; sys.version_info < (3, 11) and sys.exit(1); print(sys._base_executable)'
python=
name=
for name in $(if $(PYTHON),"$(PYTHON)",python3 python3.14 python3.13 python3.12 python3.11); do
    python="$$("$$name" -c "$$base" 2>/dev/null)" && break
    python=
done

what='what callflow runs with'
[ "$$part" = running ] || what='all that the tests need'
if command -v "$(UV)" >/dev/null; then
    echo "Setting up .venv with uv, this once: $$what …" >&2
    # Without a home, or with one that cannot be written, uv would fail or make its cache here.
    cache="$$("$(UV)" cache dir)"
    [ "$$(basename "$$cache")" != .uv_cache ] && mkdir -p "$$cache" 2>/dev/null &&
        [ -w "$$cache" ] || export UV_NO_CACHE=1
    if [ -z "$$have" ]; then
        rm -rf .venv
        "$(UV)" venv --quiet --python "$${python:-$(or $(PYTHON),>=3.11)}" .venv
    fi
    install() { "$(UV)" pip install --quiet --python .venv/bin/python --no-build-isolation "$$@"; }
else
    [ "$$python" ] || stop \
        "Python 3.11 or newer is needed; $(or $(PYTHON),python3) is $$(
            "$(or $(PYTHON),python3)" -V 2>&1 | sed -n 's/^Python //p' | grep . || echo missing)" \
        'Debian, Ubuntu: sudo apt install python3 python3-venv    macOS: brew install python' \
        'or name one: make … PYTHON=/path/to/python3.12    or install uv, which brings its own'
    "$$python" -c 'import ensurepip, venv' 2>/dev/null || stop \
        "$$name cannot make virtual environments: its module ensurepip is missing" \
        "Debian, Ubuntu: sudo apt install $$(basename "$$name")-venv" \
        'or install uv, which needs no such package'
    # Without a home pip would make its cache in a directory called ~ here.
    "$$python" -c 'import os, sys; sys.exit(os.path.expanduser("~") == "~")' ||
        export PIP_NO_CACHE_DIR=1
    echo "Setting up .venv with pip, this once: $$what …" >&2
    if [ -z "$$have" ]; then
        rm -rf .venv
        "$$python" -m venv .venv
    fi
    install() {
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-user --no-compile \
            --use-pep517 --no-build-isolation "$$@"
    }
fi

pins=requirements.lock
if [ "$$part" = running ]; then
    pins="$$(mktemp)"
    trap 'rm -f "$$pins"' EXIT
    sed '/^# Only for /,$$d' requirements.lock >"$$pins"
fi
install --require-hashes -r "$$pins"
[ "$$have" ] || install --no-deps --editable .
echo "$$part $$wanted" >.venv/callflow.stamp
echo "  … done in $$(($$(date +%s) - started)) s." >&2
endef

setup running: export SCRIPT = $(set_up)
setup: export part = all
running: export part = running
setup running:
	@sh -eu -c "$$SCRIPT"

# Three parts: the image takes the first one, `make demo` the first two. Names no index; all agree.
define re_lock
command -v "$(UV)" >/dev/null || { echo 'callflow: make lock needs uv' >&2; exit 1; }
work="$$(mktemp -d)"
trap 'rm -rf "$$work"' EXIT
compile() {
    "$(UV)" pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-annotate --no-header pyproject.toml "$$@" >/dev/null
}
without() {
    awk 'FNR == NR { if (/^[a-z]/) there[$$1]; next }
         /^[a-z]/ { other = !($$1 in there) }
         other' "$$1" "$$2"
}
cp requirements.lock "$$work/all"
compile --all-extras --group build $(ARGS) -o "$$work/all"
compile --extra embedded --group build -c "$$work/all" -o "$$work/demo"
compile -c "$$work/all" -o "$$work/runtime"
{
    echo '# Made by `make lock` out of pyproject.toml. First what callflow runs with:'
    cat "$$work/runtime"
    echo '# Not in the image: the embedded Postgres, and what builds callflow:'
    without "$$work/runtime" "$$work/demo"
    echo '# Only for the tests, and for the other extras:'
    without "$$work/demo" "$$work/all"
} >"$$work/lock"
cp "$$work/lock" requirements.lock
endef

lock: export SCRIPT = $(re_lock)
lock:
	@sh -eu -c "$$SCRIPT"

# With tools in an environment apart, because callflow needs none of them.
define with_tool
work="$$(mktemp -d)"
trap 'rm -rf "$$work"' EXIT
.venv/bin/python -m venv "$$work/venv"
"$$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$$tool"
sed '/^# Not in the image/,$$d' requirements.lock >"$$work/runtime.txt"
mkdir -p dist
endef

define make_sbom
tool='cyclonedx-bom>=7,<8'
$(with_tool)
export PYTHONWARNINGS=ignore
"$$work/venv/bin/cyclonedx-py" requirements --pyproject pyproject.toml --output-reproducible \
    --output-file dist/callflow.cdx.json "$$work/runtime.txt"
echo 'dist/callflow.cdx.json'
endef

define run_audit
tool='pip-audit>=2.9,<3'
$(with_tool)
# Strict: otherwise a service that knows none of the packages finds none of them vulnerable.
code=0
"$$work/venv/bin/pip-audit" --strict --disable-pip --require-hashes -r requirements.lock $(ARGS) \
    2>"$$work/said" || code=$$?
if [ "$$code" != 0 ] && ! grep -q '^Found ' "$$work/said"; then
    tail -n 1 "$$work/said" >&2
    echo 'callflow: no audit: the advisory service did not answer for every package, as said above.' >&2
    echo "Try again later, or ask another: make audit ARGS='--vulnerability-service osv'" >&2
    exit "$$code"
fi
cat "$$work/said" >&2
exit "$$code"
endef

sbom: export SCRIPT = $(make_sbom)
audit: export SCRIPT = $(run_audit)
sbom audit: running
	@sh -eu -c "$$SCRIPT"

define check_dist
tool='twine>=6,<7'
$(with_tool)
"$$work/venv/bin/twine" check --strict dist/*.whl dist/*.tar.gz
endef

dist: export SCRIPT = $(check_dist)
dist: setup
	rm -rf dist
	.venv/bin/python -m hatchling build
	@sh -eu -c "$$SCRIPT"

clean:
	rm -rf .venv .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name .git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
