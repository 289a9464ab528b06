#!/usr/bin/env python3
"""Dockerfile, compose file and Kubernetes manifests: valid by their schemas, and true to the server.

    .venv/bin/python tests/e2e/manifests_test.py --bin build/release/bin

Overlays are rendered by `kubectl kustomize`; without a kubectl of 1.21 or newer these tests are
skipped. Custom resources (ScaledObject, PodMonitor) have no schema among Kubernetes' own: what they
refer to is checked here.
"""
import argparse
import functools
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import kubernetes_validate
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
MODEL = ROOT / "tests" / "golden" / "models" / "tiny_gqa"
OVERLAYS = ("cpu", "gpu")
CUSTOM = {"ScaledObject", "PodMonitor"}
BIN = None


def kubectl_minor():
    """The minor version of kubectl 1, or 0."""
    if shutil.which("kubectl") is None:
        return 0
    done = subprocess.run(["kubectl", "version", "--client", "-o", "json"], capture_output=True, text=True)
    found = re.match(r"\d+", json.loads(done.stdout or "{}").get("clientVersion", {}).get("minor", ""))
    return int(found[0]) if found else 0


needs_kubectl = unittest.skipUnless(kubectl_minor() >= 21, "needs kubectl 1.21 or newer")


@functools.cache
def render(overlay):
    """{kind: [documents]} of an overlay."""
    done = subprocess.run(["kubectl", "kustomize", KUBERNETES / "overlays" / overlay], capture_output=True, text=True)
    if done.returncode != 0 or done.stderr:
        raise AssertionError(f"kubectl kustomize {overlay}: exit {done.returncode}: {done.stderr}")
    kinds = {}
    for document in yaml.safe_load_all(done.stdout):
        kinds.setdefault(document["kind"], []).append(document)
    return kinds


def pod_of(overlay):
    return render(overlay)["Deployment"][0]["spec"]["template"]["spec"]


def settings(text):
    """name=value lines of a --config file."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def seconds(text):
    units = {"s": 1, "m": 60, "h": 3600}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)([smh])", text))


def server_check(config, *flags):
    """chorus-server --check with `config` as its file and `flags` over it."""
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
        file.write(config)
        file.flush()
        return subprocess.run([BIN / "chorus-server", f"--config={file.name}", *flags, "--check"],
                              capture_output=True, text=True, timeout=60)


def make_secrets(folder):
    """Flags that name a fresh certificate, its key and a token file in `folder`."""
    certificate, key, tokens = (f"{folder}/{name}" for name in ("tls.crt", "tls.key", "tokens"))
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-subj", "/CN=localhost", "-days", "1", "-keyout", key, "-out", certificate],
                   check=True, capture_output=True)
    pathlib.Path(tokens).write_text("a-token-of-this-test-only-0123456789abcdef\n")
    return [f"--tls_certificate={certificate}", f"--tls_key={key}", f"--token_file={tokens}"]


class KubernetesTest(unittest.TestCase):
    def test_every_file_of_the_base_is_valid(self):
        for path in sorted((KUBERNETES / "base").glob("*.yaml")):
            for document in yaml.safe_load_all(path.read_text()):
                if document["kind"] in CUSTOM | {"Kustomization"}:
                    continue
                with self.subTest(path.name):
                    kubernetes_validate.validate(document, "1.37", strict=True)

    @needs_kubectl
    def test_every_document_of_every_overlay_is_valid(self):
        for overlay in OVERLAYS:
            for kind, documents in render(overlay).items():
                for document in documents:
                    with self.subTest(overlay=overlay, kind=kind):
                        self.assertNotIn(kind, {"Secret"}, "secrets are never committed")
                        if kind in CUSTOM:
                            self.assertTrue(document["spec"])
                        else:
                            kubernetes_validate.validate(document, "1.37", strict=True)

    @needs_kubectl
    def test_the_server_accepts_its_settings(self):
        for overlay in OVERLAYS:
            [config] = render(overlay)["ConfigMap"]
            [container] = pod_of(overlay)["containers"]
            mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
            for name in ("model", "tls_certificate", "tls_key", "token_file"):
                path = settings(config["data"]["chorus.conf"])[name]
                self.assertIn("/" + path.split("/")[1], mounts, f"{name}={path} is mounted")
            with self.subTest(overlay), tempfile.TemporaryDirectory() as folder:
                flags = [flag for flag in container.get("args", []) if not flag.startswith("--config=")]
                done = server_check(config["data"]["chorus.conf"], *flags, f"--model={MODEL}",
                                    "--kv_cache_bytes=64MiB", "--devices=cpu", *make_secrets(folder))
                self.assertEqual(0, done.returncode, done.stdout + done.stderr)

    @needs_kubectl
    def test_ports_agree_everywhere(self):
        for overlay in OVERLAYS:
            kinds = render(overlay)
            [config] = kinds["ConfigMap"]
            [container] = pod_of(overlay)["containers"]
            listens = settings(config["data"]["chorus.conf"])
            ports = {port["name"]: port["containerPort"] for port in container["ports"]}
            flags = {"grpc": "listen", "health": "health_listen", "metrics": "metrics_listen"}
            self.assertEqual({name: int(listens[flag].rsplit(":")[-1]) for name, flag in flags.items()}, ports)
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                self.assertEqual(ports["health"], container[probe]["grpc"]["port"])
            for service in kinds["Service"]:
                self.assertEqual(["grpc"], [port["targetPort"] for port in service["spec"]["ports"]])
            rules = kinds["NetworkPolicy"][0]["spec"]["ingress"]
            self.assertEqual(["grpc", "metrics"], [port["port"] for rule in rules for port in rule["ports"]])
            [endpoint] = kinds["PodMonitor"][0]["spec"]["podMetricsEndpoints"]
            self.assertIn(endpoint["port"], ports)

    @needs_kubectl
    def test_selectors_and_references_find_what_they_mean(self):
        for overlay in OVERLAYS:
            kinds = render(overlay)
            [deployment] = kinds["Deployment"]
            labels = deployment["spec"]["template"]["metadata"]["labels"].items()
            selectors = [service["spec"]["selector"] for service in kinds["Service"]]
            selectors += [kinds[kind][0]["spec"]["selector"]["matchLabels"]
                          for kind in ("Deployment", "PodDisruptionBudget", "PodMonitor")]
            selectors.append(kinds["NetworkPolicy"][0]["spec"]["podSelector"]["matchLabels"])
            for selector in selectors:
                self.assertLessEqual(selector.items(), labels)
            volumes = {volume["name"]: volume for volume in pod_of(overlay)["volumes"]}
            self.assertEqual(kinds["ConfigMap"][0]["metadata"]["name"], volumes["config"]["configMap"]["name"])
            [scaled] = kinds["ScaledObject"]
            self.assertEqual(deployment["metadata"]["name"], scaled["spec"]["scaleTargetRef"]["name"])
            [query] = [trigger["metadata"]["query"] for trigger in scaled["spec"]["triggers"]]
            [metric] = re.findall(r"chorus_\w+", query)
            self.assertIn(f'"{metric}"', (ROOT / "server/metrics.cc").read_text())

    @needs_kubectl
    def test_a_replica_has_the_time_to_drain(self):
        for overlay in OVERLAYS:
            pod = pod_of(overlay)
            config = settings(render(overlay)["ConfigMap"][0]["data"]["chorus.conf"])
            [sleep, pause] = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
            self.assertEqual("sleep", sleep)
            needed = float(pause) + seconds(config["drain_delay"]) + seconds(config["drain_timeout"])
            self.assertGreater(pod["terminationGracePeriodSeconds"], needed)

    @needs_kubectl
    def test_pods_are_confined(self):
        for overlay in OVERLAYS:
            pod = pod_of(overlay)
            self.assertTrue(pod["securityContext"]["runAsNonRoot"])
            self.assertEqual("RuntimeDefault", pod["securityContext"]["seccompProfile"]["type"])
            [container] = pod["containers"]
            self.assertEqual({"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                              "capabilities": {"drop": ["ALL"]}}, container["securityContext"])
            self.assertTrue(all(mount["readOnly"] for mount in container["volumeMounts"]))
            self.assertFalse(pod["automountServiceAccountToken"])
            self.assertIn("memory", container["resources"]["limits"])
        [gpu] = pod_of("gpu")["containers"]
        self.assertEqual("1", gpu["resources"]["limits"]["nvidia.com/gpu"])
        self.assertIn("--devices=cuda:0", gpu["args"])


class ContainerTest(unittest.TestCase):
    def setUp(self):
        self.config = (ROOT / "deploy/docker/chorus.conf").read_text()
        self.dockerfile = (ROOT / "Dockerfile").read_text()

    def test_hadolint_finds_nothing_in_the_dockerfile(self):
        hadolint = pathlib.Path(sys.executable).parent / "hadolint"
        done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True)
        self.assertEqual((0, ""), (done.returncode, done.stdout), done.stderr)

    def test_the_image_is_built_with_what_setup_installs(self):
        [packages] = re.findall(r"PACKAGES=\((.*?)\)", (ROOT / "scripts/setup.sh").read_text(), re.S)
        for package in packages.split():
            if package.endswith("-dev") and not package.startswith(("libgtest", "libgmock", "libboost")):
                self.assertRegex(self.dockerfile, rf"[ \n]{re.escape(package)}[ \n]")

    def test_the_images_settings_refuse_to_be_open_by_mistake(self):
        refused = server_check(self.config, f"--model={MODEL}", "--kv_cache_bytes=64MiB")
        self.assertEqual(2, refused.returncode)
        self.assertIn("--insecure", refused.stderr)
        meant = server_check(self.config, f"--model={MODEL}", "--kv_cache_bytes=64MiB", "--insecure")
        self.assertEqual(0, meant.returncode, meant.stdout + meant.stderr)

    def test_the_image_exposes_and_probes_the_ports_of_its_settings(self):
        ports = [settings(self.config)[name].rsplit(":")[-1] for name in ("listen", "health_listen", "metrics_listen")]
        self.assertIn(f"EXPOSE {' '.join(ports)}", self.dockerfile)
        self.assertIn(f"--server=127.0.0.1:{ports[1]}", self.dockerfile)

    def test_the_image_runs_as_the_user_of_the_pods(self):
        user = yaml.safe_load((KUBERNETES / "base/deployment.yaml").read_text())
        context = user["spec"]["template"]["spec"]["securityContext"]
        self.assertIn(f"USER {context['runAsUser']}:{context['runAsGroup']}\n", self.dockerfile)

    def test_what_compose_mounts_is_there(self):
        compose = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
        for name, service in compose["services"].items():
            for volume in service["volumes"]:
                source = volume.split(":", 1)[0]
                if source.startswith("./"):
                    self.assertTrue((ROOT / "deploy" / source).exists(), f"{name}: {source}")
                elif not source.startswith("$"):
                    self.assertIn(source, compose["volumes"])
            for port in service["ports"]:
                self.assertTrue(port.startswith("127.0.0.1:"), f"{name} is open to other machines: {port}")
        grace = seconds(compose["services"]["chorus"]["stop_grace_period"])
        [timeout] = [flag for flag in compose["services"]["chorus"]["command"] if flag.startswith("--drain_timeout=")]
        self.assertGreater(grace, seconds(timeout))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, type=pathlib.Path)
    args, rest = parser.parse_known_args()
    BIN = args.bin.resolve()
    unittest.main(argv=[sys.argv[0], *rest])
