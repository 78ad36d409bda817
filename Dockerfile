# callflow without the embedded Postgres: set CALLFLOW_WAREHOUSE__URL_FILE, see docker-compose.yml.
# Python packages are pinned by hash. The base image follows the security fixes of one Python and one
# Debian; `docker buildx imagetools inspect python:3.13-slim-trixie` prints its digest. To freeze it:
#   docker build --build-arg BASE=python:3.13-slim-trixie@sha256:… -t callflow .
ARG BASE=python:3.13-slim-trixie

FROM ${BASE} AS build
WORKDIR /src
COPY requirements.lock ./
RUN sed '/^# Not in the image/,$d' requirements.lock >runtime.lock \
 && sed -nE '/^(hatchling|packaging|pathspec|pluggy|tomlkit|trove-classifiers)==/,/[^\\]$/p' \
        requirements.lock >build.lock \
 && python -m venv --without-pip /opt/callflow \
 && python -m venv --without-pip /opt/build \
 && pip --python /opt/callflow install --no-cache-dir --only-binary :all: --require-hashes -r runtime.lock \
 && pip --python /opt/build install --no-cache-dir --only-binary :all: --require-hashes -r build.lock
COPY pyproject.toml README.md LICENSE ./
COPY migrations migrations
COPY etl etl
RUN /opt/build/bin/python -m hatchling build --target wheel --directory dist \
 && pip --python /opt/callflow install --no-cache-dir --no-index --no-deps dist/*.whl

FROM ${BASE}
LABEL org.opencontainers.image.title="callflow" org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --uid 1000 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin callflow
COPY --from=build /opt/callflow /opt/callflow
ENV PATH=/opt/callflow/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 1000:1000
# callflow finds a callflow.toml that is mounted here.
WORKDIR /etc/callflow
ENTRYPOINT ["callflow"]
CMD ["daemon"]
# The daemon ends within 25 s of this signal ([daemon] stop_deadline), but Docker waits only 10 s: use
# docker stop -t 30.
STOPSIGNAL SIGTERM
# Status page, health, metrics. The daemon listens on loopback unless [daemon] http and a token are set.
EXPOSE 8787
# Checks that it is alive, not that it is ready: some platforms restart unhealthy containers, and a
# restart does not make data fresh. A single run has no page:
#   docker run --no-healthcheck callflow sync
HEALTHCHECK --interval=30s --timeout=10s --start-period=1m --start-interval=2s \
    CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8787, timeout=5); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status != 200)"]
