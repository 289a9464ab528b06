#!/usr/bin/env bash
# Collects what gpu.sh runs into one file that works on a GPU host without Debian's libraries.
#   tests/bench/gpu_bundle.sh [FILE]    default build/gpu-bundle.tar.gz: bin/, lib/ and tokenizer/
# Programs and libraries of build/release, stripped, and the shared libraries that they need, but for
# torch, CUDA and their kin (the host's Python has them) and the C and C++ runtimes. At most 64 MiB.
# There, in a copy of this repository: tests/bench/gpu.sh --bundle FILE
set -euo pipefail
if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then
  sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
  exit 0
fi
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
file="${1:-build/gpu-bundle.tar.gz}"
folder="$(mktemp -d)"
trap 'rm -rf "${folder}"' EXIT
build=build/release
limit_mib=64

PROGRAMS=(chorus-server chorus gpu_model_bench server_bench gpu_attention_test gpu_elementwise_test
          gpu_plain_attention_test gpu_probes_test gpu_sampling_test gpu_model_runner_test)
LIBRARIES=(libchorus_cuda.so libchorus_kernels_abi.so libchorus_kernels_abi_host.so)
# Of the host: the loader and the runtimes under its Python, which may be newer than ours.
HOST_LIBRARIES='^(linux-vdso|ld-linux|libc|libm|libdl|librt|libpthread|libutil|libstdc\+\+|libgcc_s)\.|^ld-linux'
TORCH_LIBRARIES='^lib(torch|c10|gomp|cuda|cudart|cublas|cublasLt|cudnn|cupti|cufft|cufile|curand|cusolver|cusparse|nccl|nvrtc|nvJitLink|nvToolsExt|nvshmem)[._A-Za-z0-9-]*\.so'

mkdir -p "${folder}/bin" "${folder}/lib"
for program in "${PROGRAMS[@]}"; do
  [[ -x "${build}/bin/${program}" ]] || { echo "error: ${build}/bin/${program} is not built: run scripts/build.sh" >&2; exit 1; }
  cp "${build}/bin/${program}" "${folder}/bin/"
done
for library in "${LIBRARIES[@]}"; do
  [[ -f "${build}/lib/${library}" ]] || { echo "error: ${build}/lib/${library} is not built: run CHORUS_CUDA=1 scripts/build.sh" >&2; exit 1; }
  cp "${build}/lib/${library}" "${folder}/lib/"
done

ldd "${folder}"/bin/* "${folder}"/lib/*.so 2>/dev/null | awk '$2 == "=>" && $3 ~ /^\// {print $1, $3}' | sort -u |
  while read -r name path; do
    [[ "${name}" =~ ${HOST_LIBRARIES} || "${name}" =~ ${TORCH_LIBRARIES} ]] && continue
    cp -Ln "${path}" "${folder}/lib/${name}"
  done
find "${folder}" -type f -exec strip --strip-debug {} +
# Paths of this machine go: a CUDA toolkit that lies there under the same path would be found before
# the libraries of torch.
find "${folder}" -type f -print0 | while IFS= read -r -d '' path; do
  echo "file(RPATH_REMOVE FILE \"${path}\")"
done >"${folder}/paths.cmake"
cmake -P "${folder}/paths.cmake" >/dev/null && rm "${folder}/paths.cmake"

# A vocabulary of a real model's size, where it is at hand; without it server_bench takes a tiny one.
mkdir "${folder}/tokenizer"
cp models/smollm2-135m-instruct/{tokenizer,tokenizer_config}.json "${folder}/tokenizer/" 2>/dev/null ||
  rm -r "${folder}/tokenizer"

mkdir -p "$(dirname "${file}")"
tar -C "${folder}" -czf "${file}" .
size_mib=$(($(stat -c %s "${file}") / 1048576 + 1))
echo "${file}: $(find "${folder}" -type f | wc -l) files, ${size_mib} MiB" >&2
if ((size_mib > limit_mib)); then
  echo "error: that is more than ${limit_mib} MiB" >&2
  exit 1
fi
