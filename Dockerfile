# Chorus in a container: chorus-server and the chorus command, built by CMake and installed by
# `cmake --install`. Runs as user 10001, writes nothing to its root, serves the model at /model.
#   docker build -t chorus .                                  CPU
#   docker build -t chorus:cuda --build-arg TARGET=cuda .     CPU and NVIDIA GPUs (8 GB)
#   docker build -t chorus:smol --build-arg MODEL=models/smollm2-135m-instruct .   model baked in
ARG BASE=debian:12-slim

FROM ${BASE} AS build
# Versions are those of the Debian release: a stable release replaces them by security fixes only.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends \
      build-essential ca-certificates ccache cmake libabsl-dev libfmt-dev libgrpc++-dev libhwy-dev \
      libicu-dev libpcre2-dev libprotobuf-dev libspdlog-dev libssl-dev ninja-build nlohmann-json3-dev pkg-config \
      prometheus-cpp-dev protobuf-compiler protobuf-compiler-grpc python3 python3-venv \
 && rm -rf /var/lib/apt/lists/*

WORKDIR /src
COPY scripts/requirements-torch.txt scripts/requirements-cuda.txt scripts/
COPY client/python/requirements-build.txt client/python/requirements-build.txt
# cpu: the torch wheel without its dependencies; cuda: with them (3 GB), which are installed beside
# it, and with nvcc, which stays in this stage.
ARG TARGET=cpu
ARG PIP_INDEX_URL=https://pypi.org/simple
# Behind a proxy that opens TLS: --secret id=ca_certificates,src=FILE.
RUN --mount=type=secret,id=ca_certificates \
    if [ -f /run/secrets/ca_certificates ]; then export PIP_CERT=/run/secrets/ca_certificates; fi \
 && case "${TARGET}" in \
      cpu) dependencies=--no-deps ;; \
      cuda) dependencies="" compiler=nvcc ;; \
      *) echo "TARGET is cpu or cuda, not '${TARGET}'" >&2; exit 1 ;; \
    esac \
 && python3 -m venv .venv \
 && .venv/bin/pip install --no-cache-dir ${dependencies:+"${dependencies}"} -r scripts/requirements-torch.txt \
      ${compiler:+-r scripts/requirements-cuda.txt} \
 && .venv/bin/pip install --no-cache-dir --no-deps -c client/python/requirements-build.txt googleapis-common-protos

COPY CMakeLists.txt CMakePresets.json LICENSE ./
COPY cmake cmake
COPY proto proto
COPY core core
COPY server server
COPY client client
ARG JOBS=
RUN --mount=type=cache,target=/root/.cache/ccache \
    cuda=OFF; if [ "${TARGET}" = cuda ]; then cuda=ON; fi \
 && cmake --preset release -DCHORUS_TESTS=OFF -DCHORUS_CUDA="${cuda}" -DCHORUS_INSTALL_CUDA="${cuda}" \
 && cmake --build build/release --parallel "${JOBS:-$(nproc)}" \
 && cmake --install build/release --prefix /opt/chorus --strip \
 && strip --strip-unneeded /opt/chorus/lib/libtorch_cpu.so

FROM ${BASE} AS run
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends \
      libabsl20220623 libfmt9 libgrpc++1.51 libhwy1 libicu72 libpcre2-8-0 \
      libprometheus-cpp-core1.0 libprometheus-cpp-pull1.0 libprotobuf32 libspdlog1.10 libssl3 libstdc++6 \
 && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* \
 && groupadd --gid 10001 chorus \
 && useradd --uid 10001 --gid chorus --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin chorus
COPY --from=build /opt/chorus /opt/chorus
COPY deploy/docker/chorus.conf /etc/chorus/chorus.conf
# A folder of the build context to bake in; by default a note that says how to mount one.
ARG MODEL=deploy/docker/model
COPY ${MODEL} /model
# What of the NVIDIA driver `docker run --gpus` brings in.
ENV PATH=/opt/chorus/bin:/usr/bin:/bin \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=
LABEL org.opencontainers.image.title="chorus" \
      org.opencontainers.image.description="Serves a Llama model that reads a question and its paraphrases side by side" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="debian:12-slim"

USER 10001:10001
# gRPC; health checks in plain text; Prometheus.
EXPOSE 50051 50052 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s \
  CMD ["chorus", "health", "--server=127.0.0.1:50052", "--timeout=3s"]
# No shell in between: the server is process 1 and gets SIGTERM itself. Flags after the image's name
# beat the file.
ENTRYPOINT ["chorus-server", "--config=/etc/chorus/chorus.conf"]
