# Two images from one file: `api` without torch, `worker` with it. Both run as an unprivileged user.
#   docker build --target api .        docker build --target worker .

FROM python:3.12-slim AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONPATH=/srv/distillery DISTILL_DATA=/data DISTILL_ENVIRONMENT=production
RUN useradd --create-home --uid 10001 distillery && install -d -o distillery -g distillery /data
WORKDIR /srv/distillery
COPY pyproject.toml constraints.txt README.md ./
RUN pip install -c constraints.txt .
# settings and secrets are a file, not environment variables, which every child process could read
RUN ln -s /run/secrets/settings .env
COPY models models
COPY migrations migrations

FROM node:22-slim AS scripts
WORKDIR /scripts
COPY api/dashboard/assets/package.json api/dashboard/assets/package-lock.json ./
RUN npm ci --omit=dev --ignore-scripts --no-audit --no-fund && mkdir vendor && \
    cp node_modules/htmx.org/dist/htmx.min.js node_modules/uplot/dist/uPlot.iife.min.js node_modules/uplot/dist/uPlot.min.css vendor && \
    cp node_modules/htmx.org/LICENSE vendor/htmx.org-LICENSE && cp node_modules/uplot/LICENSE vendor/uplot-LICENSE

FROM base AS api
COPY api api
COPY --from=scripts /scripts/vendor api/dashboard/static/vendor
USER distillery
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s CMD \
    ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health/live', timeout=4)"]
ENV DISTILL_HOST=0.0.0.0
CMD ["python", "-m", "api"]

FROM base AS worker
# index of another build of torch, such as a CPU-only one
ARG TORCH_INDEX=""
RUN test -z "$TORCH_INDEX" || pip install --no-deps --index-url "$TORCH_INDEX" -c constraints.txt torch torchvision
RUN pip install -c constraints.txt '.[worker]'
COPY worker worker
USER distillery
VOLUME /data
STOPSIGNAL SIGTERM
CMD ["python", "-m", "worker", "--kind", "distill"]
