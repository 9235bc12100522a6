# One image for every role: `till worker sink`, `till worker monitor`, `till migrate`, …
FROM python:3.12-slim AS build
WORKDIR /src
COPY requirements/runtime.txt requirements/
RUN python -m venv /opt/till \
 && /opt/till/bin/pip install --no-cache-dir --only-binary :all: --require-hashes -r requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY schemas schemas
COPY connectors connectors
COPY streams streams
COPY sinks sinks
COPY tillstream tillstream
RUN pip install --no-cache-dir "hatchling>=1.27" \
 && pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /dist . \
 && /opt/till/bin/pip install --no-cache-dir --no-deps /dist/*.whl

FROM python:3.12-slim
RUN useradd --system --uid 10001 --home-dir /var/lib/tillstream --create-home till \
 && install -d -o till -m 700 /var/lib/tillstream/secrets
COPY --from=build /opt/till /opt/till
ENV PATH=/opt/till/bin:$PATH PYTHONUNBUFFERED=1 TILL_HOME=/var/lib/tillstream TILL_HTTP_HOST=0.0.0.0
USER till
STOPSIGNAL SIGTERM
ENTRYPOINT ["till"]
CMD ["--help"]
