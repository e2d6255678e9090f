# The image of stream-monitor: the worker, or any other command given as arguments.
#   docker build -t stream-monitor:0.1.0 .
#   docker run --rm --read-only --tmpfs /tmp --cap-drop ALL stream-monitor:0.1.0 --help
# A tag can be moved to another image. For repeatable builds give the digest of the base: --build-arg PYTHON_IMAGE=python:3.13.12-slim-bookworm@sha256:...
ARG PYTHON_IMAGE=python:3.13.12-slim-bookworm

FROM ${PYTHON_IMAGE} AS builder
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY topics topics/
COPY stream_monitor stream_monitor/
COPY examples/churn examples/churn/
RUN python -m pip wheel --no-cache-dir --only-binary=:all: --wheel-dir=/wheels .
RUN python -m venv --without-pip /opt/stream-monitor \
    && python -m pip --python=/opt/stream-monitor/bin/python install --no-cache-dir --no-index --find-links=/wheels model-stream-monitor

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="stream-monitor" \
      org.opencontainers.image.description="Streaming monitor for machine-learning models on Kafka" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=builder /opt/stream-monitor /opt/stream-monitor
# Nobody outside a container can reach its 127.0.0.1. Only temporary files are written: mount something writable at /tmp.
ENV PATH="/opt/stream-monitor/bin:$PATH" \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    STREAM_MONITOR_WORKER__METRICS__HOST=0.0.0.0
# The worker reads ./monitor.yaml if it is mounted here.
WORKDIR /etc/stream-monitor
USER 10001:10001
EXPOSE 9108
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9108/live', timeout=4)"]
ENTRYPOINT ["stream-monitor"]
CMD ["worker"]
