# Shared by the scripts beside it: sourced, never run.
# shellcheck shell=bash

CHORUS_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export CHORUS_ROOT
# Everything the build caches stays inside the repository.
export CCACHE_DIR="${CHORUS_ROOT}/.ccache"

say() { printf '== %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# as_root COMMAND...: runs it as root, by sudo where we are not.
as_root() {
  if [[ "$(id -u)" == 0 ]]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    die "this needs root: run it as root or install sudo ($*)"
  fi
}
