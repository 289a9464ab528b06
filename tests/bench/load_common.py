"""What the benchmarks of a loaded server share: its metrics page, `chorus load`, waiting until the
server is idle, the checks of its counters, and filling its cache."""

import contextlib
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import urllib.request

import bench_common as common

LOAD_BINARY = common.ROOT / "build" / "release" / "bin" / "chorus"
IDLE_SECONDS = 60
FILL_PROMPT_TOKENS = 1000
FILL_CLIENTS = 4

_SERIES = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Metrics:
    """One reading of the page."""

    def __init__(self, text):
        self._series = []
        for line in text.splitlines():
            found = _SERIES.fullmatch(line)
            if found and not line.startswith("#"):
                name, labels, value = found.groups()
                self._series.append((name, dict(_LABEL.findall(labels or "")), float(value)))

    def series(self, name):
        """A list of (labels, value)."""
        return [(labels, value) for found, labels, value in self._series if found == name]

    def total(self, name, **labels):
        """The sum over the series that have these labels."""
        values = [value for found, value in self.series(name)
                  if all(found.get(key) == wanted for key, wanted in labels.items())]
        if not values:
            raise common.BenchError(f"the server's metrics page has no {name} {labels or ''}")
        return sum(values)

    def buckets(self, name):
        """{upper edge: observations in this bucket alone}, ascending."""
        counts = sorted((float(labels["le"]), value)
                        for labels, value in self.series(f"{name}_bucket"))
        below = [0.0] + [value for _, value in counts]
        return {edge: value - before for (edge, value), before in zip(counts, below)}


def scrape(server):
    # The proxy of the environment is not for a server on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(server.metrics_url, timeout=30) as page:
        return Metrics(page.read().decode())


class Load:
    """A `chorus load` against the server; several may run at a time. Use it in a with statement."""

    def __init__(self, binary, server, flags, quiet=False):
        if not pathlib.Path(binary).is_file():
            raise common.BenchError(f"{binary} is not there: build it with scripts/build.sh, or "
                                    "name another with --load-binary")
        command = [str(binary), "load", f"--server={server.target}", "--json", *flags]
        if quiet:
            command.append("--quiet")
        self._command = command
        # A file, not a pipe: nobody reads while the load runs.
        self._stderr = tempfile.TemporaryFile("w+") if quiet else None
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL,
                                         stdout=subprocess.PIPE, stderr=self._stderr, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._process.stdout.close()
        if self._stderr is not None:
            self._stderr.close()

    def running(self):
        return self._process.poll() is None

    def result(self):
        """Waits for the end; the object that `chorus load --help` describes."""
        output, _ = self._process.communicate()
        if self._process.returncode != 0:
            reason = output
            if self._stderr is not None:
                self._stderr.seek(0)
                reason += self._stderr.read()
            raise common.BenchError(f"chorus load ended with {self._process.returncode} "
                                    f"({' '.join(self._command)}):\n{reason}")
        return json.loads(output)


def run_load(binary, server, flags, quiet=False):
    with Load(binary, server, flags, quiet) as load:
        return load.result()


def run_loads(binary, server, list_of_flags):
    """All of them at the same time, without their own progress; a list of results."""
    with contextlib.ExitStack() as stack:
        loads = [stack.enter_context(Load(binary, server, flags, quiet=True))
                 for flags in list_of_flags]
        return [load.result() for load in loads]


def is_idle(metrics):
    return all(metrics.total(name) == 0 for name in (
        "chorus_requests_running", "chorus_requests_waiting", "chorus_kv_used_ratio"))


def wait_until_idle(server, seconds=IDLE_SECONDS):
    """The metrics once nothing runs or waits and no key and value space is used; after `seconds`
    as they are."""
    deadline = time.monotonic() + seconds
    while True:
        metrics = scrape(server)
        if is_idle(metrics) or time.monotonic() > deadline:
            return metrics
        time.sleep(0.1)


def idle_problems(metrics):
    """What an idle server must not show, as sentences."""
    return [f"{name} is {metrics.total(name):g} where an idle server has 0" for name in (
        "chorus_requests_running", "chorus_requests_waiting", "chorus_kv_used_ratio")
        if metrics.total(name) != 0]


def conservation_problems(metrics):
    """Accepted requests = finished by outcome + running + waiting."""
    accepted = metrics.total("chorus_requests_accepted_total")
    parts = {name: metrics.total(f"chorus_requests_{name}")
             for name in ("finished_total", "running", "waiting")}
    if accepted == sum(parts.values()):
        return []
    shown = " + ".join(f"{value:g} {name.removesuffix('_total')}" for name, value in parts.items())
    return [f"{accepted:g} accepted requests are not {shown}"]


def outcomes(metrics, since=None):
    """{outcome: finished requests}, zeros left out; `since` is an earlier reading."""
    found = {}
    for sign, reading in ((1, metrics), (-1, since)):
        for labels, value in reading.series("chorus_requests_finished_total") if reading else ():
            found[labels["outcome"]] = found.get(labels["outcome"], 0) + sign * value
    return {outcome: int(count) for outcome, count in sorted(found.items()) if count}


def fill_cache(binary, server, num_slots):
    """Sends different prompts until every slot has been used once: from then on the resident set
    has no reason to grow."""
    num_requests = num_slots // FILL_PROMPT_TOKENS + 2 * FILL_CLIENTS
    print(f"filling the cache: {num_requests} prompts of {FILL_PROMPT_TOKENS} tokens",
          file=sys.stderr, flush=True)
    run_load(binary, server, [f"--synthetic=1x{FILL_PROMPT_TOKENS}", f"--clients={FILL_CLIENTS}",
                              f"--requests={num_requests}", "--max_new_tokens=1", "--ignore_eos"])


def add_server_arguments(parser, dtype=None):
    """--binary, --load-binary, --model, --threads, --output, and --dtype if a default is given."""
    parser.add_argument("--binary", type=pathlib.Path, default=common.SERVER_BINARY)
    parser.add_argument("--load-binary", type=pathlib.Path, default=LOAD_BINARY,
                        help="the chorus command")
    parser.add_argument("--model", type=pathlib.Path, default=common.DEFAULT_MODEL)
    if dtype:
        parser.add_argument("--dtype", choices=("float32", "bfloat16"), default=dtype)
    parser.add_argument("--threads", type=int, default=2, help="the server's compute threads")
    parser.add_argument("--output", type=pathlib.Path, metavar="FILE", help="JSON")
