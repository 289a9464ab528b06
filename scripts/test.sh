#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test that needs no GPU.
#   scripts/test.sh            all labels but gpu
#   scripts/test.sh unit e2e   only tests with one of these labels
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "${CHORUS_ROOT}"

if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then
  sed -n '2,4s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
  exit 0
fi
for label in "$@"; do
  [[ "${label}" =~ ^[a-z0-9_]+$ ]] || die "not a test label: '${label}'"
done

scripts/setup.sh
scripts/build.sh

selection=(--label-exclude '^gpu$')
if [[ $# -gt 0 ]]; then
  selection=(--label-regex "^($(IFS='|'; echo "$*"))\$")
fi
say "testing"
ctest --test-dir build/release "${selection[@]}" --output-on-failure --no-tests=error -j "$(nproc)"
if [[ $# -gt 0 ]]; then
  say "skipped: every test without one of the labels: $*"
else
  say "skipped: tests labelled gpu ($(ctest --test-dir build/release -N -L '^gpu$' | sed -n 's/Total Tests: //p') of them)"
fi
