# What SPLIT_FASTA, MERGE_EMBEDDINGS and REPORT run in: Python, Arrow and MultiQC, no PyTorch. Nextflow brings the code.
ARG BASE=debian:bookworm-slim
FROM ${BASE} AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends binutils ca-certificates python3-venv
# Half of the time that pip takes; the certificates are those of BASE, as with pip.
ENV UV_SYSTEM_CERTS=1
COPY requirements-uv.lock /tmp/
RUN python3 -m venv /opt/uv \
    && /opt/uv/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r /tmp/requirements-uv.lock
COPY requirements-tools.lock /tmp/
RUN python3 -m venv --without-pip /opt/virnucpro \
    && /opt/uv/bin/uv pip install --python /opt/virnucpro/bin/python --no-cache --compile-bytecode \
        --require-hashes --only-binary :all: -r /tmp/requirements-tools.lock
COPY containers/slim.sh /tmp/
RUN /tmp/slim.sh /opt/virnucpro

FROM ${BASE}
ARG VERSION=unknown
LABEL org.opencontainers.image.title="virnucpro-tools" \
      org.opencontainers.image.description="virnucpro-embed's tasks without a model: splitting, merging, the report" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="MIT"
# Nextflow's wrapper needs bash and ps.
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 procps \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/apt /var/log/dpkg.log
COPY --from=build /opt/virnucpro /opt/virnucpro
ENV PATH=/opt/virnucpro/bin:$PATH
