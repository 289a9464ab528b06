"""What the benchmarks share: the contract's stubs, a server of one's own, the questions and the
few-shot frame around them, and progress on stderr."""

import contextlib
import importlib
import json
import math
import pathlib
import random
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
QUESTIONS_FILE = ROOT / "tests" / "data" / "qa.jsonl"
SERVER_BINARY = ROOT / "build" / "release" / "bin" / "chorus-server"
DEFAULT_MODEL = ROOT / "models" / "smollm2-135m-instruct"
START_SECONDS = 120
STOP_SECONDS = 30
CALL_SECONDS = 600

# The same frame as in transformers_reference.py.
PREFIX = "".join(f"Q: {question}\nA: {answer}\n\n" for question, answer in (
    ("What is the capital of Norway?", "Oslo"), ("Name the currency of Switzerland.", "Franc"),
    ("Which country is Geneva in?", "Switzerland"), ("On which continent is Finland?", "Europe"),
    ("Tell me the main language of Austria.", "German")))
SUFFIX = "\nA:"

# name in the tables -> (FusionMethod, PositionMode); positions mean something for ATTENTION alone.
METHODS = {
    "attention": ("ATTENTION", "OVERLAPPING"),
    "attention_sequential": ("ATTENTION", "SEQUENTIAL"),
    "logit_mean": ("LOGIT_MEAN", None),
    "prob_mean": ("PROB_MEAN", None),
    "prob_max": ("PROB_MAX", None),
    "logit_max": ("LOGIT_MAX", None),
    "per_prompt": ("PER_PROMPT", None),
    "vote": ("VOTE", None),
}


class BenchError(Exception):
    """Something that the caller can mend; its text is printed, without a traceback."""


class Progress:
    """Counts on stderr: one line redrawn on a terminal, else a line every tenth."""

    def __init__(self, what, total):
        self._what, self._total, self._done = what, total, 0
        self._terminal = sys.stderr.isatty()

    def step(self):
        self._done += 1
        text = f"{self._what}: {self._done}/{self._total}"
        if self._terminal:
            end = "\n" if self._done == self._total else ""
            print(f"\r{text} ", end=end, file=sys.stderr, flush=True)
        elif self._done % max(1, self._total // 10) == 0 or self._done == self._total:
            print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def stubs():
    """Generates the contract's Python code into a temporary folder; yields (messages, services)."""
    try:
        import google.rpc.status_pb2
        import grpc
        import grpc_tools.protoc
    except ImportError as error:
        raise BenchError(f"{error}. Install what this script needs:\n"
                         "  python3 -m pip install -r tests/bench/requirements.txt") from error
    del grpc
    well_known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    google_rpc = pathlib.Path(google.rpc.status_pb2.__file__).parents[2]
    proto = ROOT / "proto" / "chorus" / "v1" / "inference.proto"
    with tempfile.TemporaryDirectory(prefix="chorus-stubs-") as folder:
        code = grpc_tools.protoc.main([
            "protoc", f"-I{ROOT / 'proto'}", f"-I{google_rpc}", f"-I{well_known}",
            f"--python_out={folder}", f"--grpc_python_out={folder}", str(proto)])
        if code != 0:
            raise BenchError(f"protoc failed on {proto}")
        sys.path.insert(0, folder)
        try:
            yield (importlib.import_module("chorus.v1.inference_pb2"),
                   importlib.import_module("chorus.v1.inference_pb2_grpc"))
        finally:
            sys.path.remove(folder)


class Server:
    """A chorus-server of our own on free loopback ports; use it in a with statement."""

    def __init__(self, binary, model, dtype, threads=0, extra_flags=()):
        if not pathlib.Path(binary).is_file():
            raise BenchError(f"{binary} is not there: build it with scripts/build.sh, or name "
                             "another with --binary")
        self._folder = tempfile.TemporaryDirectory(prefix="chorus-bench-")
        self._port_file = pathlib.Path(self._folder.name) / "ports.json"
        self._log_path = pathlib.Path(self._folder.name) / "server.log"
        self._command = [str(binary), f"--model={model}", f"--dtype={dtype}",
                         f"--threads={threads}", "--listen=127.0.0.1:0",
                         "--metrics_listen=127.0.0.1:0", f"--port_file={self._port_file}",
                         *extra_flags]
        self._process = None
        self.target = None
        self.metrics_url = None

    def __enter__(self):
        with open(self._log_path, "wb") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log,
                                             stderr=subprocess.STDOUT)
        try:
            self._wait_until_serving()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _wait_until_serving(self):
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError, KeyError):
                ports = json.loads(self._port_file.read_text())
                self.target = f"127.0.0.1:{ports['grpc']}"
                self.metrics_url = f"http://127.0.0.1:{ports['metrics']}/metrics"
                return
            if self._process.poll() is not None:
                break
            time.sleep(0.05)
        log = self._log_path.read_text(errors="replace")
        raise BenchError(f"chorus-server does not serve ({' '.join(self._command)}):\n{log}")

    def __exit__(self, *_):
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()

    def memory_mib(self):
        """{"resident": now, "peak": highest so far}, from /proc."""
        found = {}
        for line in pathlib.Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            key, _, rest = line.partition(":")
            if key in ("VmRSS", "VmHWM"):
                found[{"VmRSS": "resident", "VmHWM": "peak"}[key]] = int(rest.split()[0]) / 1024
        return found


@contextlib.contextmanager
def connection(target, services):
    """A stub for `target`."""
    import grpc

    # Answers are small; the proxy of the environment is not for a server on this machine.
    with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=10)
        except grpc.FutureTimeoutError:
            raise BenchError(f"no server answers at {target}") from None
        yield services.InferenceStub(channel)


def read_questions(path, count=None):
    """A list of {"id", "question", "paraphrases", "answers", ...}."""
    lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines[:count]]


def make_request(messages, question, method, max_new_tokens, stop=(), ignore_eos=False):
    """The question and its paraphrases as a plain list of prompts in the few-shot frame."""
    fusion, positions = METHODS[method]
    request = messages.GenerateRequest()
    text = request.prompt.text
    text.prompts.extend(f"Q: {prompt}" for prompt in
                        (question["question"], *question["paraphrases"]))
    text.prefix, text.suffix = PREFIX, SUFFIX
    request.fusion.method = messages.FusionMethod.Value(f"FUSION_METHOD_{fusion}")
    if positions:
        request.fusion.positions = messages.PositionMode.Value(f"POSITION_MODE_{positions}")
    request.stopping.max_new_tokens = max_new_tokens
    request.stopping.stop.extend(stop)
    request.stopping.ignore_eos = ignore_eos
    return request


def generate(stub, request):
    """The FinishInfo of one call."""
    finish = None
    for event in stub.Generate(request, timeout=CALL_SECONDS):
        if event.HasField("finish"):
            finish = event.finish
    if finish is None:
        raise BenchError("a stream ended without its last message")
    return finish


def mean_and_error(values):
    """(mean, standard error of the mean)."""
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)
    return mean, math.sqrt(variance / len(values))


def paired_bootstrap(first, second, seed=1, rounds=4000):
    """(mean of first - second, low, high): the percentile bootstrap's 95 % interval over pairs."""
    differences = [a - b for a, b in zip(first, second, strict=True)]
    count, generator = len(differences), random.Random(seed)
    means = sorted(sum(generator.choices(differences, k=count)) / count for _ in range(rounds))
    return (sum(differences) / count, means[int(0.025 * rounds)],
            means[math.ceil(0.975 * rounds) - 1])


def markdown_table(header, rows):
    """Left column text, the others right-aligned."""
    lines = ["| " + " | ".join(header) + " |", "|---|" + "--:|" * (len(header) - 1)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def write_json(path, document):
    if path is not None:
        path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n",
                        encoding="utf-8")
        print(f"wrote {path}", file=sys.stderr)


def run(main):
    """Calls `main` and turns what can go wrong outside our power into one clear message."""
    try:
        return main()
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    except Exception as error:  # noqa: BLE001 - grpc is imported late, so its type is not at hand
        if type(error).__module__.split(".")[0] != "grpc":
            raise
        print(f"error: {error.code().name}: {error.details()}", file=sys.stderr)
    return 1
