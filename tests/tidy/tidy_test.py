#!/usr/bin/env python3
"""Taste as a test: the include table of core/README.md, sizes of files and functions, files that
nobody builds, and what must never be committed. Function lengths come from `lizard`.

    .venv/bin/python tests/tidy/tidy_test.py --root . --build build/release
"""
import argparse
import json
import pathlib
import re
import subprocess
import sys

import lizard

MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 70
MAX_FILE_BYTES = 1 << 20
CXX = {".cc", ".h", ".cu", ".cuh"}

# folder -> folders it may include, itself always. The table of core/README.md.
ALLOWED = {
    "core/base": set(),
    "core/segment": {"core/base"},
    "core/text": {"core/base"},
    "core/cache": {"core/base", "core/segment"},
    "core/engine": {"core/base", "core/segment", "core/cache", "core/text"},
    "core/kernels": {"core/base", "core/segment"},
    "core/model": {"core/base", "core/segment", "core/kernels"},
    "server": {"core/base", "core/segment", "core/text", "core/engine"},
    "client": {"core/base", "core/segment", "core/text"},
}
# Single files beyond the table: what model implements of the engine, and where both columns meet.
EXTRA = {
    "core/model": {"core/engine/model_runner.h", "core/engine/step_plan.h", "core/engine/request.h"},
    "server/model_setup.cc": {"core/model/torch_model_runner.h"},
    "server/model_setup.h": {"core/model/cuda_module.h"},
}
# Libraries that a folder may not see: (folder prefix, forbidden include, why).
FORBIDDEN = [
    (r"core/(?!model/)", r"<(ATen|torch|c10)/", "torch lives in core/model only"),
    (r"(server|client)/", r"<(ATen|torch|c10)/", "torch lives in core/model only"),
    (r"(core|server|client)/(?!(kernels|model)/cuda/)", r"<(cuda|cublas)\w*\.h>", "CUDA lives in core/kernels/cuda and core/model/cuda only"),
    (r"core/", r"<(grpcpp|grpc|google/protobuf|prometheus|spdlog)/|absl/flags|\.pb\.h", "core knows no gRPC, protobuf, metrics, logs or flags"),
]
# Absolute paths that exist on one machine only: homes, work folders, temporary files.
PRIVATE = re.compile(r"(?<![\w.}])/(home|root|Users|work|tmp)/\w")


def tracked(root):
    out = subprocess.run(["git", "-C", root, "ls-files", "-co", "--exclude-standard", "-z"], check=True, capture_output=True).stdout
    return sorted(p for p in out.decode().split("\0") if p and (pathlib.Path(root) / p).is_file())


def folder_of(path):
    parts = path.split("/")
    return "/".join(parts[:2]) if parts[0] == "core" else parts[0]


def check_includes(path, text):
    here = folder_of(path)
    extra = EXTRA.get(path, set()) | EXTRA.get(here, set())
    for number, line in enumerate(text.splitlines(), 1):
        match = re.match(r'\s*#\s*include\s+["<]([^">]+)[">]', line)
        if not match:
            continue
        for prefix, forbidden, why in FORBIDDEN:
            if re.match(prefix, path) and re.search(forbidden, line):
                yield f"{path}:{number}: includes {match[1]}: {why}"
        target = folder_of(match[1])
        if here in ALLOWED and target in ALLOWED and target != here:
            if target not in ALLOWED[here] and match[1] not in extra:
                yield f"{path}:{number}: {here} may not include {match[1]} (table in core/README.md)"


def check_functions(root, path):
    text = (pathlib.Path(root) / path).read_text()
    # Quotes inside raw strings confuse lizard: blank them, keeping the lines.
    text = re.sub(r'R"(\w*)\(.*?\)\1"', lambda m: '""' + "\n" * m[0].count("\n"), text, flags=re.S)
    for function in lizard.analyze_file.analyze_source_code(path, text).function_list:
        length = function.end_line - function.start_line + 1
        if length > MAX_FUNCTION_LINES:
            yield f"{path}:{function.start_line}: {function.name} has {length} lines, more than {MAX_FUNCTION_LINES}"


def check_built(paths, build):
    commands = json.loads((pathlib.Path(build) / "compile_commands.json").read_text())
    built = {str(pathlib.Path(c["file"]).resolve()) for c in commands}
    has_cuda = any(name.endswith(".cu") for name in built)
    for path in paths:
        if path.endswith("tests/support/tsan_absl_mutex.cc"):
            continue  # for ThreadSanitizer builds only
        if pathlib.Path(path).suffix != ".cc" or str(pathlib.Path(path).resolve()) in built:
            continue
        # A build without nvcc leaves the CUDA side out.
        if has_cuda or not ("/cuda/" in path or "#include <cuda_runtime_api.h>" in pathlib.Path(path).read_text()):
            yield f"{path}: no target builds this file"


def check_headers_used(root, paths):
    included = set()
    for path in paths:
        if pathlib.Path(path).suffix in CXX:
            included |= set(re.findall(r'#\s*include\s+"([^"]+)"', (pathlib.Path(root) / path).read_text()))
    for path in paths:
        if path.endswith(".h") and path not in included:
            yield f"{path}: no file includes this header"


def check_file(root, path):
    full = pathlib.Path(root) / path
    size = full.stat().st_size
    if size > MAX_FILE_BYTES:
        yield f"{path}: {size} bytes; build output or a model?"
        return
    try:
        text = full.read_text()
    except UnicodeDecodeError:
        return
    source = full.suffix in CXX | {".py", ".sh", ".proto", ".cmake"}
    if source and text.count("\n") > MAX_FILE_LINES:
        yield f"{path}: {text.count(chr(10))} lines, more than {MAX_FILE_LINES}: two ideas in one?"
    if path != "tests/tidy/tidy_test.py" and PRIVATE.search(text) and full.suffix not in {".json", ".jsonl"}:
        yield f"{path}: names a path of somebody's machine: {PRIVATE.search(text)[0]}"
    if full.suffix in CXX:
        yield from check_includes(path, text)
        yield from check_functions(root, path)
        if full.suffix in {".h", ".cuh"} and "#pragma once" not in text:
            yield f"{path}: no #pragma once"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default=".")
    parser.add_argument("--build", required=True, help="build folder with compile_commands.json")
    args = parser.parse_args()
    paths = tracked(args.root)
    problems = [p for path in paths for p in check_file(args.root, path)]
    problems += check_built([str(pathlib.Path(args.root) / p) for p in paths if not p.startswith("deploy/")], args.build)
    problems += check_headers_used(args.root, paths)
    for problem in problems:
        print(problem)
    print(f"{len(paths)} files, {len(problems)} problems")
    return 1 if problems or not paths else 0


if __name__ == "__main__":
    sys.exit(main())
