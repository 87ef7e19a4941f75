# The service: slim, non-root, no torch. Targets: cpu (the default) and gpu.
#
#   docker build -f docker/service.Dockerfile --target cpu -t flawsmith .
#   docker run --rm flawsmith python -m service new-key
#   docker run -e SERVICE_API_KEYS=infer:… -p 8000:8000 flawsmith
#
# It listens on every address of its container, so it starts with API keys only, or where
# SERVICE_ALLOW_OPEN=true says that nobody else reaches the port.
#
# Every step is one that runs by hand as well: an environment, pip, a copy, `python -m service`.

ARG PYTHON_IMAGE=python:3.11-slim

# ── the environments: only what pip needs to know, so that a change of code reuses them ──
FROM ${PYTHON_IMAGE} AS environment
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN python -m venv /venv

FROM environment AS environment-gpu
RUN /venv/bin/pip install --constraint constraints.txt ".[gpu,mqtt,records,telemetry]"

FROM environment AS environment-cpu
RUN /venv/bin/pip install --constraint constraints.txt ".[service,mqtt,records,telemetry]"

# ── what runs: the root file system may be read-only; uploads stay in memory, /tmp is a mere home,
#    /var/lib/flawsmith is a place for records where a volume is mounted ──
FROM ${PYTHON_IMAGE} AS runtime
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin flawsmith \
    && install -d -o 10001 -g 10001 /var/lib/flawsmith
WORKDIR /app
COPY LICENSE ./
COPY models/ models/
COPY service/ service/
ENV PATH=/venv/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    SERVICE_HOST=0.0.0.0 \
    SERVICE_PORT=8000
EXPOSE 8000
USER 10001:10001
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD python -c "import os, ssl, urllib.request as http; \
        tls = ssl._create_unverified_context() if os.environ.get('SERVICE_TLS_CERTIFICATE') else None; \
        place = ('https' if tls else 'http') + '://127.0.0.1:' + os.environ['SERVICE_PORT']; \
        http.urlopen(place + '/v2/health/ready', timeout=4, context=tls)"
CMD ["python", "-m", "service"]

FROM runtime AS gpu
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=environment-gpu /venv /venv

FROM runtime AS cpu
COPY --from=environment-cpu /venv /venv
