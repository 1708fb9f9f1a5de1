# The service in a container: `docker build -t inferno-milp .`, then
# `docker run --rm -p 8080:8080 -v inferno-data:/data inferno-milp`. docs/service.md has the rest.
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY inferno_milp inferno_milp
COPY instances instances
COPY models models
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir '.[service,postgres,control]'

FROM python:3.13-slim
COPY --from=build /venv /venv
RUN useradd --uid 10001 --no-create-home inferno && install -d -o 10001 -g 10001 /data
USER 10001
WORKDIR /data
# A container's address is its own: it listens on all of them. matplotlib wants a folder that it may write to.
ENV PATH=/venv/bin:$PATH \
    INFERNO_HOST=0.0.0.0 \
    INFERNO_PORT=8080 \
    INFERNO_DATABASE=sqlite:////data/jobs.sqlite3 \
    MPLCONFIGDIR=/tmp/matplotlib
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"INFERNO_PORT\"]}/healthz', timeout=4)"]
ENTRYPOINT ["inferno-milp"]
CMD ["serve"]
