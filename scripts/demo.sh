#!/usr/bin/env bash
# Installs what is missing, builds, starts a server on a free loopback port, asks one question with
# five paraphrases by every method, prints the streamed answers, and stops the server.
#   scripts/demo.sh                                   the question of the demo, every method
#   scripts/demo.sh --method=vote --json              arguments go on to `chorus ask`
#   scripts/demo.sh "Who wrote Faust?" --paraphrase="Name the author of Faust."
# A question or paraphrases of your own replace the demo's; --method asks by that method alone.
# `build/release/bin/chorus ask --help` lists every argument.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "${CHORUS_ROOT}"

readonly BIN=build/release/bin
readonly MODEL=models/smollm2-135m-instruct
readonly START_SECONDS=120  # until the server must serve: the weights may lie on a slow disk
readonly STOP_SECONDS=15    # from SIGTERM until it is killed
readonly QUESTION="What is the capital of France?"
readonly PARAPHRASES=(
  "Which city is the capital of France?"
  "Name the capital city of France."
  "France has its seat of government in which city?"
  "What city serves as the capital of France?"
  "Tell me the capital of France."
)

server_pid=""
ask_pid=""
work=""

stop_server() {
  [[ -n "${server_pid}" ]] || return 0
  kill -TERM "${server_pid}" 2>/dev/null || true
  local i
  for ((i = 0; i < STOP_SECONDS * 10; ++i)); do
    kill -0 "${server_pid}" 2>/dev/null || break
    sleep 0.1
  done
  kill -KILL "${server_pid}" 2>/dev/null || true
  wait "${server_pid}" 2>/dev/null || true
  server_pid=""
}

clean_up() {
  [[ -z "${ask_pid}" ]] || kill -TERM "${ask_pid}" 2>/dev/null || true
  stop_server
  [[ -z "${work}" ]] || rm -rf "${work}"
}

# Sets `server_pid` and `port`.
start_server() {
  work="$(mktemp -d build/demo.XXXXXX)"
  say "starting chorus-server with ${MODEL}"
  "${BIN}/chorus-server" --model="${MODEL}" --listen=127.0.0.1:0 --metrics_listen=127.0.0.1:0 \
    --port_file="${work}/ports.json" >"${work}/server.log" 2>&1 </dev/null &
  server_pid=$!
  local i
  for ((i = 0; i < START_SECONDS * 10; ++i)); do
    port="$(sed -n 's/.*"grpc": *\([0-9][0-9]*\).*/\1/p' "${work}/ports.json" 2>/dev/null || true)"
    [[ -z "${port}" ]] || return 0
    if ! kill -0 "${server_pid}" 2>/dev/null; then
      cat "${work}/server.log" >&2
      die "chorus-server ended before it served"
    fi
    sleep 0.1
  done
  cat "${work}/server.log" >&2
  die "chorus-server did not serve within ${START_SECONDS} seconds"
}

# Sets has_question, has_paraphrase, has_method, has_max_new_tokens from the arguments. A word is
# the question unless it is the value of a flag written as "--flag value".
read_arguments() {
  local argument previous=""
  has_question="" has_paraphrase="" has_method="" has_max_new_tokens=""
  for argument in "$@"; do
    case "${previous}" in
      --json | --ignore_eos | --include_stop | *=* | "") ;;
      --*) previous=""; continue ;;
    esac
    previous=""
    case "${argument}" in
      --) has_question=1; break ;;
      --paraphrase | --paraphrase=*) has_paraphrase=1 ;;
      --method | --method=*) has_method=1 ;;
      --max_new_tokens | --max_new_tokens=*) has_max_new_tokens=1 ;;
      --*) ;;
      *) has_question=1 ;;
    esac
    if [[ "${argument}" == --* ]]; then previous="${argument}"; fi
  done
}

ask() {
  local defaults=() paraphrase
  [[ -n "${has_method}" ]] || defaults+=(--method=all)
  [[ -n "${has_max_new_tokens}" ]] || defaults+=(--max_new_tokens=32)
  if [[ -z "${has_question}" ]]; then
    defaults+=("${QUESTION}")
    say "asking: ${QUESTION}"
    if [[ -z "${has_paraphrase}" ]]; then
      for paraphrase in "${PARAPHRASES[@]}"; do
        defaults+=("--paraphrase=${paraphrase}")
        say "        ${paraphrase}"
      done
    fi
  fi
  # In the background: bash runs a trap while it waits, but not while a foreground command runs.
  "${BIN}/chorus" ask --server="127.0.0.1:${port}" "${defaults[@]}" "$@" &
  ask_pid=$!
  local code=0
  wait "${ask_pid}" || code=$?
  ask_pid=""
  return "${code}"
}

if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then
  sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
  exit 0
fi
read_arguments "$@"
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
scripts/setup.sh
scripts/build.sh chorus-server chorus
start_server
ask "$@"
say "done; stopping the server"
