# callflow without the embedded Postgres: give it CALLFLOW_WAREHOUSE__URL_FILE, see docker-compose.yml.
# The tag follows the security fixes of one Python and one Debian; name a digest to freeze it.
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
# A callflow.toml that is mounted here is found.
WORKDIR /etc/callflow
ENTRYPOINT ["callflow"]
CMD ["--help"]
# Healthy: the configuration reads, the warehouse answers and has the tables of this version.
HEALTHCHECK --interval=5m --timeout=30s --start-period=1m CMD ["callflow", "status"]
