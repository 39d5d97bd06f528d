# What EMBED_SHARD and the model's tasks run in: PyTorch with the CUDA libraries of its own wheels. Nextflow brings the
# code, and the container engine the driver (libcuda), so no toolkit image is needed.
ARG BASE=debian:bookworm-slim
FROM ${BASE} AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends binutils ca-certificates python3-venv
# Half of the time that pip takes; the certificates are those of BASE, as with pip.
ENV UV_SYSTEM_CERTS=1
COPY requirements-uv.lock /tmp/
RUN python3 -m venv /opt/uv \
    && /opt/uv/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r /tmp/requirements-uv.lock
# requirements.lock, or requirements-cu12.lock for machines with a driver older than 580.
ARG LOCK=requirements.lock
COPY ${LOCK} /tmp/
RUN python3 -m venv --without-pip /opt/virnucpro \
    && /opt/uv/bin/uv pip install --python /opt/virnucpro/bin/python --no-cache --compile-bytecode \
        --require-hashes --only-binary :all: -r /tmp/${LOCK}
COPY containers/slim.sh /tmp/
RUN /tmp/slim.sh /opt/virnucpro

FROM ${BASE}
ARG VERSION=unknown
LABEL org.opencontainers.image.title="virnucpro-embed" \
      org.opencontainers.image.description="virnucpro-embed's tasks with a model: ESM-2 on PyTorch and Triton" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="MIT"
# Nextflow's wrapper needs bash and ps; Triton compiles a kernel's launcher with the C compiler and Python's headers,
# which takes neither link-time optimisation nor static libraries but the compiler's own.
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 procps gcc libc6-dev libpython3-dev \
    && rm -f /usr/bin/*lto-dump* /usr/lib/gcc/*/*/lto1 \
    && find /usr/lib -name '*.a' ! -name 'libgcc*.a' ! -name 'libc_nonshared.a' -delete \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/apt /var/log/dpkg.log
COPY --from=build /opt/virnucpro /opt/virnucpro
ENV PATH=/opt/virnucpro/bin:$PATH NVIDIA_DRIVER_CAPABILITIES=compute,utility
