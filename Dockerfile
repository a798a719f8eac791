# The service with everything that it embeds, run from its source tree as an ordinary user.
#
# archwright is installed editable. graph/settings.py looks for prompts/ and templates/ beside
# graph/: a copy in site-packages would not find them. PYTHONPATH alone would not do either: the
# version and the command come from the package's metadata.

FROM node:24-slim AS page

WORKDIR /app/web
COPY web/ ./
RUN npm ci && npm run build


FROM python:3.12-slim AS build

ARG UV_VERSION=0.13.9
RUN pip install --no-cache-dir "uv==${UV_VERSION}"

WORKDIR /app
COPY requirements.lock ./
RUN uv venv .venv \
    && uv pip install --no-cache --no-build --no-deps --compile-bytecode \
        --require-hashes --requirements requirements.lock

COPY pyproject.toml README.md LICENSE ./
COPY api/ api/
COPY graph/ graph/
RUN uv pip install --no-cache --no-deps --no-build-isolation --editable . \
    && .venv/bin/python -m compileall -q api graph

COPY prompts/ prompts/
COPY templates/ templates/
COPY samples/ samples/
COPY --from=page /app/web/page/dist web/page/dist


FROM python:3.12-slim

# llama.cpp is built with OpenMP, and its wheel does not bring the library.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home archwright \
    && install --directory --owner=archwright --group=archwright /data

COPY --from=build /app /app
WORKDIR /app
USER 10001

ENV DATA_DIR=/data \
    PATH=/app/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1
VOLUME /data
EXPOSE 8000

# Not urllib: it would ask through the proxy of the environment.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python", "-c", "\
import http.client, os, sys; \
service = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('PORT') or 8000), timeout=4); \
service.request('GET', '/api/v1/system/health'); \
sys.exit(service.getresponse().status != 200)"]

# It refuses to start without API_KEY, unless ALLOW_ANONYMOUS=true.
ENTRYPOINT ["archwright", "serve", "--host", "0.0.0.0"]
