# Training: torch, no web framework. It reads pictures and writes bundles.
#
#   docker build -f docker/training.Dockerfile -t flawsmith-training .
#   docker run --rm flawsmith-training fit --help

ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS environment
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN python -m venv /venv
RUN /venv/bin/pip install --constraint constraints.txt ".[training]"

FROM ${PYTHON_IMAGE} AS training
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin flawsmith
WORKDIR /app
COPY LICENSE ./
COPY models/ models/
COPY training/ training/
RUN install --directory --owner 10001 --group 10001 runs
COPY --from=environment /venv /venv
ENV PATH=/venv/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
# A training is watched by its log; there is no port to ask.
HEALTHCHECK NONE
ENTRYPOINT ["python", "-m", "training"]
