#!/usr/bin/env python3
"""Builds the image with buildah, runs it as a cluster would, and asks it from outside. Needs root,
buildah and debootstrap (apt-get install buildah debootstrap), and no daemon; takes as long as a
build from nothing, so the test script leaves it out.

    sudo .venv/bin/python tests/e2e/image_test.py --bin build/release/bin

1. A base like debian:12-slim by debootstrap; the Dockerfile over it by buildah in chroot isolation.
2. The image's own entry point, user and environment, as process 1 of a PID namespace, no new
   privileges, its root mounted read-only with nothing writable in it, the model mounted read-only.
3. `chorus ask` and `chorus health` from outside, the image's own health check inside, SIGTERM.

Where the network is reached through a proxy that opens TLS, name its certificates with
--ca_certificates; other places to download from with --mirror and --pip_index_url.
"""
import argparse
import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
IMAGE = "localhost/chorus"
BASE = "localhost/chorus-base"
MAX_BYTES = 1_000_000_000
START_SECONDS = 120
DRAIN_SECONDS = 60
# What debian:12-slim leaves out of a minimal Debian too.
LEFT_OUT = ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/man",
            "usr/share/locale", "usr/share/info")


def say(text):
    print(f"== {text}", flush=True)


class Buildah:
    def __init__(self, storage):
        self._command = ["buildah", "--root", storage / "images", "--runroot", storage / "run"]

    def __call__(self, *arguments):
        return subprocess.run([*self._command, *arguments], check=True, text=True, stdout=subprocess.PIPE).stdout.strip()

    def clear(self, storage):
        """Removes all images, and the folder that held them: a mount of its own, with some drivers."""
        self("rm", "--all")
        self("rmi", "--all", "--force")
        for mount in (storage / "images").glob("*"):
            if os.path.ismount(mount):
                subprocess.run(["umount", mount], check=True)
        shutil.rmtree(storage)


def make_base(buildah, args):
    with tempfile.TemporaryDirectory(dir=args.storage) as folder:
        subprocess.run(["debootstrap", "--variant=minbase", "bookworm", folder, args.mirror], check=True,
                       stdout=subprocess.DEVNULL)
        for path in LEFT_OUT:
            for entry in (pathlib.Path(folder) / path).iterdir():
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        container = buildah("from", "scratch")
        buildah("add", "--quiet", container, folder, "/")
        buildah("commit", "--quiet", container, BASE)
        buildah("rm", container)


def build(buildah, args):
    options = [f"--build-arg=BASE={BASE}", f"--build-arg=JOBS={args.jobs}", f"--build-arg=MODEL={args.bake}"]
    if args.pip_index_url:
        options.append(f"--build-arg=PIP_INDEX_URL={args.pip_index_url}")
    if args.ca_certificates:
        options.append(f"--secret=id=ca_certificates,src={args.ca_certificates}")
    # The docker format has a place for the health check, which OCI's has not.
    buildah("bud", "--isolation=chroot", "--network=host", "--format=docker", "--layers", "--quiet", *options,
            "--tag", IMAGE, ROOT)


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class Container:
    """A process in the image's file system, mounted read-only, as the image's user."""

    def __init__(self, root, config, model, command):
        prepare = ('mount --bind "$0" "$0" && mount --bind "$1" "$0/model" && mount -t proc proc "$0/proc"'
                   ' && mount -o remount,bind,ro "$0/model" && mount -o remount,bind,ro "$0" && shift'
                   ' && exec setpriv --no-new-privs chroot "$@"')
        user = [] if config["User"] == "" else [f"--userspec={config['User']}", "--groups="]
        self._process = subprocess.Popen(
            ["unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child",
             "sh", "-c", prepare, root, model, *user, root, "env", "-i", *config["Env"], *command],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def wait(self, timeout):
        """(exit code, output)."""
        output, _ = self._process.communicate(timeout=timeout)
        return self._process.returncode, output

    def is_running(self):
        return self._process.poll() is None

    def pid(self):
        """Of the container's process 1, as seen from outside."""
        path = pathlib.Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return int(path.read_text().split()[0])

    def status(self, field):
        lines = pathlib.Path(f"/proc/{self.pid()}/status").read_text().splitlines()
        return next(line.split(":", 1)[1].split() for line in lines if line.startswith(field + ":"))

    def kill(self):
        if self.is_running():
            self._process.kill()
        self._process.wait()


def require(condition, text):
    if not condition:
        raise SystemExit(f"FAILED: {text}")
    say(text)


def check_confinement(root, config, model):
    code, output = Container(root, config, model, ["sh", "-c", "id -u; touch /x /model/x /etc/x"]).wait(30)
    require(code != 0 and output.count("Read-only file system") == 3, "nothing can be written: not /, /etc or /model")
    require(output.split()[0] == "10001", "the user is 10001")
    code, output = Container(root, config, model, config["Entrypoint"]).wait(30)
    require(code == 2 and "--insecure" in output, "as it is the image refuses to be open to others: exit 2")


def check_serving(root, config, model, chorus):
    grpc, health, metrics = free_ports(3)
    flags = [f"--{name}=127.0.0.1:{port}" for name, port in
             (("listen", grpc), ("health_listen", health), ("metrics_listen", metrics))]
    server = Container(root, config, model, [*config["Entrypoint"], *flags])
    try:
        deadline = time.monotonic() + START_SECONDS
        probe = [chorus, "health", f"--server=127.0.0.1:{health}", "--timeout=2s"]
        while subprocess.run(probe, capture_output=True).returncode != 0:
            if not server.is_running() or time.monotonic() > deadline:
                raise SystemExit(f"FAILED: the server does not serve:\n{server.wait(5)[1]}")
            time.sleep(0.2)
        say("`chorus health` from outside: exit 0")
        require(server.status("Uid") == ["10001"] * 4 and server.status("CapEff") == ["0" * 16]
                and server.status("NoNewPrivs") == ["1"] and server.status("NSpid")[-1] == "1",
                "the server runs as user 10001, without capabilities, as process 1")
        ask = subprocess.run([chorus, "ask", f"--server=127.0.0.1:{grpc}", "What is the capital of France?",
                              "--paraphrase=Name the capital city of France.", "--max_new_tokens=16"],
                             capture_output=True, text=True, timeout=120)
        require(ask.returncode == 0 and "Paris" in ask.stdout, f"`chorus ask` from outside: {ask.stdout.strip()!r}")
        test = [part.replace(":50052", f":{health}") for part in config["Healthcheck"]["Test"][1:]]
        code, output = Container(root, config, model, test).wait(30)
        require(code == 0, "the image's health check, inside: exit 0")
        os.kill(server.pid(), signal.SIGTERM)
        code, output = server.wait(DRAIN_SECONDS)
        require(code == 0 and '"all_finished":"yes"' in output, "SIGTERM to process 1: drained, exit 0")
    finally:
        server.kill()


def report_size(buildah, root):
    size = json.loads(buildah("images", "--json", IMAGE))[0]["size"]
    parts = {}
    for path in ("opt/chorus/lib/libtorch_cpu.so", "opt/chorus", "usr/lib/x86_64-linux-gnu", "model", ""):
        du = subprocess.run(["du", "-sb", "--one-file-system", root / path], check=True, capture_output=True, text=True)
        parts["/" + path] = f"{int(du.stdout.split()[0]) / 1e6:.0f} MB"
    say(f"size: {size}; " + ", ".join(f"{path} {part}" for path, part in parts.items()))
    total = float(parts["/"].split()[0]) * 1e6
    require(total < MAX_BYTES, f"under {MAX_BYTES / 1e6:.0f} MB")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, type=pathlib.Path, help="folder with the chorus command that asks")
    parser.add_argument("--storage", type=pathlib.Path, default=ROOT / "build/image", help="images lie here (build/image)")
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / "models/smollm2-135m-instruct")
    parser.add_argument("--bake", default="deploy/docker/model", help="folder of the repository to bake in as /model")
    parser.add_argument("--mirror", default="http://deb.debian.org/debian", help="of Debian, for the base")
    parser.add_argument("--pip_index_url", help="instead of PyPI")
    parser.add_argument("--ca_certificates", type=pathlib.Path, help="PEM file for downloads while building")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="compilers at a time (all cores)")
    parser.add_argument("--keep", action="store_true", help="keep the images, and use a base that is there")
    args = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("this mounts and changes roots: run it as root")
    for tool in ("buildah", "debootstrap", "unshare", "setpriv", "chroot"):
        if shutil.which(tool) is None:
            raise SystemExit(f"{tool} is missing: apt-get install buildah debootstrap util-linux coreutils")
    args.storage = args.storage.resolve()
    args.storage.mkdir(parents=True, exist_ok=True)
    buildah = Buildah(args.storage)
    if not (args.keep and BASE in buildah("images", "--format", "{{.Name}}")):
        say("making the base by debootstrap")
        make_base(buildah, args)
    say("building the image")
    began = time.monotonic()
    build(buildah, args)
    say(f"built in {time.monotonic() - began:.0f} s")
    container = buildah("from", IMAGE)
    try:
        root = pathlib.Path(buildah("mount", container))
        config = json.loads(buildah("inspect", "--type=image", IMAGE))["Docker"]["config"]
        report_size(buildah, root)
        check_confinement(root, config, args.model.resolve())
        check_serving(root, config, args.model.resolve(), args.bin.resolve() / "chorus")
    finally:
        buildah("rm", container)
        if not args.keep:
            buildah.clear(args.storage)
    return 0


if __name__ == "__main__":
    sys.exit(main())
