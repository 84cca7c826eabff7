# One image for the worker, the migrations and the HTTP side; which one is said by the command.
#   docker build -t segment-relationship-processor .
#   docker run --env-file .env segment-relationship-processor alembic upgrade head
#   docker run --env-file .env segment-relationship-processor
FROM python:3.12-slim AS build
COPY requirements.txt requirements-api.txt ./
RUN python -m venv /opt/venv \
 && /opt/venv/bin/pip install --no-cache-dir --no-compile -r requirements.txt -r requirements-api.txt \
 && /opt/venv/bin/pip uninstall --yes pip

FROM python:3.12-slim
RUN useradd --system --no-create-home --shell /usr/sbin/nologin worker
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /srv
COPY alembic.ini purge_sqs.py ./
COPY alembic alembic
COPY app app
COPY ops/healthcheck.py ops/healthcheck.py
# Without compiled files the first import of each start takes a second longer.
RUN python -m compileall -q app alembic /opt/venv/lib
USER worker
# What a worker does on SIGTERM takes up to SHUTDOWN_GRACE_SECONDS: give it more (docker stop --time 30).
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["python", "ops/healthcheck.py"]
# The exec form: the worker is process 1 and gets the signals itself.
CMD ["python", "-m", "app.main"]
