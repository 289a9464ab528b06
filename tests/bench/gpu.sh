#!/usr/bin/env bash
# Measures Chorus on a GPU: gpu_run.py with a Python that has torch, and the libraries of a bundle.
#   tests/bench/gpu.sh [--help]
#   GPU_PYTHON=/path/to/python tests/bench/gpu.sh ...   another interpreter than python3
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

python="${GPU_PYTHON:-}"
if [[ -z "${python}" ]]; then
  for candidate in python3 .venv/bin/python; do
    command -v "${candidate}" >/dev/null || continue
    python="${candidate}"
    "${candidate}" -c 'import numpy, torch' 2>/dev/null && break
  done
fi
[[ -n "${python}" ]] || { echo "error: no python3 here: name one with GPU_PYTHON" >&2; exit 1; }
"${python}" -c 'import numpy' 2>/dev/null ||
  { echo "error: ${python} has no numpy: python3 -m pip install numpy, or name another with GPU_PYTHON" >&2; exit 1; }
exec "${python}" tests/bench/gpu_run.py "$@"
