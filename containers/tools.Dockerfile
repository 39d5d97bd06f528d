# What SPLIT_FASTA, MERGE_EMBEDDINGS and REPORT run in: Python, Arrow and MultiQC, no PyTorch. Nextflow brings the code.
ARG BASE=debian:bookworm-slim
FROM ${BASE} AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends binutils ca-certificates python3-venv python3-pip
COPY requirements-tools.lock containers/slim.sh /tmp/
RUN python3 -m venv --without-pip /opt/virnucpro \
    && pip --python /opt/virnucpro/bin/python install --no-cache-dir --require-hashes --only-binary :all: \
        -r /tmp/requirements-tools.lock \
    && /tmp/slim.sh /opt/virnucpro

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
ENV PATH=/opt/virnucpro/bin:$PATH PYTHONDONTWRITEBYTECODE=1
