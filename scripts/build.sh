#!/usr/bin/env bash
# Configures and builds build/release. Arguments: targets (default: everything).
# CHORUS_CUDA=1 builds the CUDA side too, CHORUS_CUDA=0 leaves it out; default: what was configured
# before, and first of all whether there is a new enough nvcc.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "${CHORUS_ROOT}"

if [[ ! -f build/release/build.ninja ]] ||
  { [[ -n "${CHORUS_CUDA:-}" ]] && ! grep -qx "CHORUS_CUDA:BOOL=${CHORUS_CUDA}" build/release/CMakeCache.txt; }; then
  say "configuring build/release"
  cmake --preset release ${CHORUS_CUDA:+"-DCHORUS_CUDA=${CHORUS_CUDA}"} >build-configure.log 2>&1 || { cat build-configure.log >&2; die "cmake failed"; }
  mkdir -p build/release && mv build-configure.log build/release/configure.log
fi
if [[ -t 2 ]]; then
  cmake --build build/release "${@/#/--target=}" >&2
else
  # Without a terminal, Ninja prints a line a step: the log is shown only if the build fails.
  say "building build/release"
  cmake --build build/release "${@/#/--target=}" >build/release/build.log 2>&1 ||
    { tail -n 80 build/release/build.log >&2; die "the build failed: see build/release/build.log"; }
fi
