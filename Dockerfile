# docker build --tag sessionfx/sessionfx:0.1.0 .

FROM debian:trixie-slim AS build

RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-pip \
    && apt-get clean \
    && rm -rf /var/lib/apt/lists/*

# Before the source is copied, so that this layer is built anew only when a dependency changes. The test suites of the
# large packages are a fifth of the whole and no code imports them; nilearn's stay, its own modules import them.
COPY constraints.txt /tmp/
RUN python3 -m venv --without-pip /opt/sessionfx \
    && pip --python /opt/sessionfx install --no-cache-dir --requirement /tmp/constraints.txt \
    && cd /opt/sessionfx/lib/python3.13/site-packages \
    && find dask matplotlib nibabel numpy pandas scipy sklearn -type d -name tests -prune -exec rm -r {} +

COPY LICENSE README.md pyproject.toml /tmp/source/
COPY src /tmp/source/src
COPY --chmod=755 run.py /opt/sessionfx/bin/
RUN pip --python /opt/sessionfx install --no-cache-dir --no-deps /tmp/source \
    && pip --python /opt/sessionfx check

# One number for package, image and label: the build stops where they differ.
ARG VERSION=0.1.0
RUN test "$(/opt/sessionfx/bin/sessionfx --version)" = "sessionfx $VERSION" && echo "$VERSION" >/version


FROM debian:trixie-slim

RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 \
    && apt-get clean \
    && rm -rf /var/lib/apt/lists/*

COPY --from=build /opt/sessionfx /opt/sessionfx
COPY --from=build /version /version

ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="SessionFX" \
      org.opencontainers.image.description="BIDS App for multi-session task fMRI: fixed effects over sessions, group strategies compared" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.authors="The SessionFX developers"

# Runs under any user, with a read-only root and without a home: only /tmp and the output folder are written.
ENV PATH="/opt/sessionfx/bin:$PATH" \
    SESSIONFX_IMAGE="sessionfx/sessionfx:$VERSION" \
    HOME=/tmp \
    LANG=C.UTF-8 \
    MPLCONFIGDIR=/tmp/matplotlib \
    XDG_CACHE_HOME=/tmp/cache \
    OMP_NUM_THREADS=1 \
    OPENBLAS_NUM_THREADS=1

# -I: a PYTHONPATH or user packages of the host, which Apptainer lets in, do not change what is computed
ENTRYPOINT ["/opt/sessionfx/bin/python3", "-I", "/opt/sessionfx/bin/run.py"]
