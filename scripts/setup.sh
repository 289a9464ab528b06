#!/usr/bin/env bash
# Installs what Chorus needs on Debian 12 or Ubuntu 24.04: system packages, a Python environment in
# .venv with the pinned LibTorch and the Python client, another in .venv-lm-eval with
# lm-evaluation-harness, Prometheus in .tools for the tests of its rules, and the default model
# under models/. CHORUS_CUDA=1: also what building and running on NVIDIA GPUs needs, 5 GB on disk.
# Idempotent: about a second when everything is there. Nothing outside the repository changes but
# system packages.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "${CHORUS_ROOT}"

PACKAGES=(
  build-essential cmake ninja-build ccache git pkg-config python3 python3-venv ca-certificates curl
  libgrpc++-dev protobuf-compiler protobuf-compiler-grpc libprotobuf-dev libabsl-dev libssl-dev
  libspdlog-dev libfmt-dev prometheus-cpp-dev nlohmann-json3-dev
  libicu-dev libpcre2-dev libhwy-dev libgtest-dev libgmock-dev libboost-context-dev
)

install_packages() {
  local missing=() package
  for package in "${PACKAGES[@]}"; do
    dpkg-query -W -f='${Status}' "${package}" 2>/dev/null | grep -q 'install ok installed' || missing+=("${package}")
  done
  [[ ${#missing[@]} == 0 ]] && return
  command -v apt-get >/dev/null || die "missing packages and no apt-get here: ${missing[*]}"
  say "installing ${#missing[@]} system packages: ${missing[*]}"
  as_root apt-get update -q >&2
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" >&2
}

# Prometheus and promtool from the distribution's package, unpacked and not installed: installing it
# would start a service that listens on every address.
unpack_prometheus() {
  [[ -x .tools/prometheus/usr/bin/promtool ]] && return
  say "unpacking the package prometheus into .tools"
  mkdir -p .tools/download
  (cd .tools/download && apt-get download -q prometheus || { as_root apt-get update -q && apt-get download -q prometheus; }) >&2
  dpkg-deb -x .tools/download/prometheus_*.deb .tools/prometheus
  rm -r .tools/download
}

# With CHORUS_CUDA=1, torch comes with its dependencies, NVIDIA's libraries, and nvcc too where the
# machine has none. What is there once stays: it also serves a build without.
install_python_packages() {
  local stamp=.venv/chorus-requirements.sha256 want have="" size="0.5 GB" dependencies=(--no-deps)
  want="$(cat scripts/requirements.txt scripts/requirements-torch.txt client/python/requirements*.txt | sha256sum)"
  [[ ! -f "${stamp}" ]] || have="$(cat "${stamp}")"
  if [[ "${CHORUS_CUDA:-}" == 1 ]]; then
    want+=" with CUDA $(sha256sum <scripts/requirements-cuda.txt)" size="3 GB" dependencies=()
  else
    have="${have%% with CUDA*}"
  fi
  [[ "${have}" == "${want}" ]] && return
  say "making the Python environment .venv (LibTorch is a download of ${size})"
  [[ -x .venv/bin/python ]] || python3 -m venv .venv
  .venv/bin/python -m pip install --disable-pip-version-check -q "${dependencies[@]}" -r scripts/requirements-torch.txt
  if [[ "${CHORUS_CUDA:-}" == 1 && ! -x /usr/local/cuda/bin/nvcc ]] && ! command -v nvcc >/dev/null; then
    .venv/bin/python -m pip install --disable-pip-version-check -q --no-deps -r scripts/requirements-cuda.txt
  fi
  .venv/bin/python -m pip install --disable-pip-version-check -q -r scripts/requirements.txt 2> >(grep -v -e "dependency resolver" -e "^torch 2" >&2)
  printf '%s' "${want}" >"${stamp}"
}

# chorus-eval and its like, run from the source: .venv/bin/chorus-eval.
install_python_client() {
  local stamp=.venv/chorus-client.sha256 want
  want="$(cat client/python/{pyproject.toml,setup.py,generate_stubs.py} | sha256sum)"
  [[ -f "${stamp}" && "$(cat "${stamp}")" == "${want}" ]] && return
  .venv/bin/python -m pip install --disable-pip-version-check -q --no-build-isolation --no-deps -e client/python
  printf '%s' "${want}" >"${stamp}"
}

# lm-evaluation-harness with the model chorus: .venv-lm-eval/bin/chorus-lm-eval.
install_lm_eval() {
  local stamp=.venv-lm-eval/chorus-requirements.sha256 want
  want="$(cat scripts/requirements-lm-eval.txt client/python/{requirements-build.txt,pyproject.toml,setup.py,generate_stubs.py} | sha256sum)"
  [[ -f "${stamp}" && "$(cat "${stamp}")" == "${want}" ]] && return
  say "making the Python environment .venv-lm-eval (lm-evaluation-harness, 0.8 GB on disk)"
  [[ -x .venv-lm-eval/bin/python ]] || python3 -m venv .venv-lm-eval
  .venv-lm-eval/bin/python -m pip install --disable-pip-version-check -q -r scripts/requirements-lm-eval.txt
  .venv-lm-eval/bin/python -m pip install --disable-pip-version-check -q --no-build-isolation --no-deps -e client/python
  printf '%s' "${want}" >"${stamp}"
}

# Where cmake/cuda.cmake finds an nvcc.
install_cuda_tools() {
  [[ -x /usr/local/cuda/bin/nvcc ]] || command -v nvcc >/dev/null || return 0
  local stamp=.venv/chorus-cuda-tools.sha256 want
  want="$(sha256sum <scripts/requirements-cuda-tools.txt)"
  [[ -f "${stamp}" && "$(cat "${stamp}")" == "${want}" ]] && return
  .venv/bin/python -m pip install --disable-pip-version-check -q --no-deps -r scripts/requirements-cuda-tools.txt
  printf '%s' "${want}" >"${stamp}"
}

make_default_model() {
  [[ -f models/smollm2-135m-instruct/model.safetensors ]] && return
  say "making the default model models/smollm2-135m-instruct"
  .venv/bin/python scripts/convert_default_model.py
}

install_packages
unpack_prometheus
install_python_packages
install_python_client
install_cuda_tools
install_lm_eval
make_default_model
