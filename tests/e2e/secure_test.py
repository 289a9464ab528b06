#!/usr/bin/env python3
"""Who is let in: certificates and tokens of every kind against the real server, and their rotation while it runs.

    .venv/bin/python tests/e2e/secure_test.py --bin build/release/bin
"""
import argparse
import json
import os
import pathlib
import queue
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import unittest

from certificates import Authority
from tiny_server import MODEL, TinyServer

import grpc
from chorus_client import Client, Unauthenticated, Unavailable
from chorus_client.channel import Tls
from chorus_client.v1 import inference_pb2 as pb
from chorus_client.v1 import inference_pb2_grpc as services

BIN = None
TOKEN, OTHER_TOKEN, THIRD_TOKEN = "first-token-0123456789", "second-token-0123456789", "third-token-0123456789"
SERVED, REFUSED, UNKNOWN = "served", "refused by TLS", "not authenticated"
TRACE = "0af7651916cd43dd8448eb211c80319c"


def setUpModule():
    global FOLDER, FILES, CA, OTHER_CA, SERVER
    FOLDER = tempfile.TemporaryDirectory()
    FILES = pathlib.Path(FOLDER.name)
    CA, OTHER_CA = Authority(FILES / "ca"), Authority(FILES / "other_ca")
    SERVER = CA.issue("server")


def tearDownModule():
    FOLDER.cleanup()


def token_file(*tokens):
    path = FILES / "tokens"
    path.write_text("# who may call\n" + "".join(f"{token}\n" for token in tokens))
    path.chmod(0o600)
    return path


def replace(path, content):
    """As rotation is done: a reader sees the old or the new file."""
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.chmod(0o600)
    fresh.rename(path)


def tls_flags(pair=None):
    certificate, key = pair or SERVER
    return [f"--tls_certificate={certificate}", f"--tls_key={key}", "--reload_interval=1s"]


def outcome(server, *, tls=None, token=None, host="localhost"):
    """How a call on a new connection ends."""
    with Client(f"{host}:{server.ports['grpc']}", tls=tls, token=token, deadline=20) as client:
        stub, metadata = client._stub, client._metadata
        try:
            stub.GetModelInfo(pb.GetModelInfoRequest(), timeout=20, metadata=metadata)
        except grpc.RpcError as error:
            return {grpc.StatusCode.UNAVAILABLE: REFUSED, grpc.StatusCode.UNAUTHENTICATED: UNKNOWN}.get(error.code(), error)
    return SERVED


def chorus(server, *flags, host="localhost"):
    return subprocess.run([BIN / "chorus", "info", f"--server={host}:{server.ports['grpc']}", *flags],
                          capture_output=True, text=True, timeout=60)


def shown_certificate(server):
    """The certificate that a new connection is shown, in DER."""
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", server.ports["grpc"])))


def of_file(path):
    return ssl.PEM_cert_to_DER_cert(pathlib.Path(path).read_text())


class RunningStream:
    """A GenerateMany stream that stays open: `ask` sends a request on it and returns its tokens."""

    def __init__(self, server, *, tls=None, token=None):
        self._client = Client(f"localhost:{server.ports['grpc']}", tls=tls, token=token)
        self._outbox, self._count = queue.SimpleQueue(), 0
        self._call = self._client._stub.GenerateMany(iter(self._outbox.get, None), metadata=self._client._metadata)

    def ask(self):
        self._count += 1
        message = pb.GenerateManyRequest(request_id=str(self._count))
        message.request.prompt.text.question = "Who?"
        message.request.stopping.max_new_tokens = 4
        message.request.stopping.ignore_eos = True
        self._outbox.put(message)
        for event in self._call:
            if event.response.HasField("finish"):
                return list(event.response.finish.token_ids)
        raise AssertionError("the stream ended")

    def close(self):
        self._outbox.put(None)
        list(self._call)
        self._client.close()
        return self._call.code()


class CertificateTest(unittest.TestCase):
    def test_the_servers_certificate(self):
        right = Tls(root_certificates=CA.path)
        with TinyServer(BIN, *tls_flags()) as server:
            cases = {"plain text": (None, {}, REFUSED),
                     "roots of the system": (Tls(), {}, REFUSED),
                     "another authority": (Tls(root_certificates=OTHER_CA.path), {}, REFUSED),
                     "another name": (right, {"host": "127.0.0.1"}, REFUSED),
                     "another name, told which": (Tls(root_certificates=CA.path, server_name="localhost"), {"host": "127.0.0.1"}, SERVED),
                     "right": (right, {}, SERVED)}
            for name, (tls, more, expected) in cases.items():
                with self.subTest(name):
                    self.assertEqual(expected, outcome(server, tls=tls, **more))
        with TinyServer(BIN, *tls_flags(CA.issue("old", expired=True))) as server:
            self.assertEqual(REFUSED, outcome(server, tls=right))
            self.assertEqual(1, len(server.events("certificate_expired")))

    def test_the_clients_certificate(self):
        def tls(pair):
            return Tls(root_certificates=CA.path, certificate_chain=pair and pair[0], private_key=pair and pair[1])

        with TinyServer(BIN, *tls_flags(), f"--tls_client_ca={CA.path}", "--health_listen=127.0.0.1:0") as server:
            cases = {"none": (None, REFUSED), "another authority's": (OTHER_CA.issue("stranger"), REFUSED),
                     "expired": (CA.issue("late", expired=True), REFUSED), "right": (CA.issue("client"), SERVED)}
            for name, (pair, expected) in cases.items():
                with self.subTest(name):
                    self.assertEqual(expected, outcome(server, tls=tls(pair)))
            self.check_health_port(server)

    def check_health_port(self, server):
        with grpc.insecure_channel(f"127.0.0.1:{server.ports['health']}") as channel:
            def call(method):
                return channel.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)(b"", timeout=10)

            self.assertEqual(b"\x08\x01", call("/grpc.health.v1.Health/Check"))  # SERVING
            for method in ("/chorus.v1.Inference/GetModelInfo", "/no.such.Service/Method"):
                with self.assertRaises(grpc.RpcError) as raised:
                    call(method)
                self.assertEqual(grpc.StatusCode.UNIMPLEMENTED, raised.exception.code())

    def test_rotation_leaves_streams_alone(self):
        certificate, key = FILES / "rotated.pem", FILES / "rotated.key"
        shutil.copy(SERVER[0], certificate)
        shutil.copy(SERVER[1], key)
        tls = Tls(root_certificates=CA.path)
        with TinyServer(BIN, *tls_flags((certificate, key))) as server:
            stream = RunningStream(server, tls=tls)
            before = stream.ask()
            self.assertEqual(of_file(SERVER[0]), shown_certificate(server))
            # A key that is not the certificate's changes nothing.
            fresh = CA.issue("fresh")
            replace(key, fresh[1].read_bytes())
            server.wait_for_event("secret_not_reloaded")
            time.sleep(1.5)
            self.assertEqual(SERVED, outcome(server, tls=tls))
            self.assertEqual(of_file(SERVER[0]), shown_certificate(server))
            replace(certificate, fresh[0].read_bytes())
            server.wait_for_event("certificate_reloaded")
            deadline = time.monotonic() + 10
            while shown_certificate(server) != of_file(fresh[0]):
                self.assertLess(time.monotonic(), deadline, "new connections still see the old certificate")
                time.sleep(0.1)
            self.assertEqual(SERVED, outcome(server, tls=tls))
            self.assertEqual(before, stream.ask())
            self.assertEqual(grpc.StatusCode.OK, stream.close())
            for secret in (key.read_text(), SERVER[1].read_text()):
                self.assertNotIn(secret.splitlines()[1], server.log_text())


class TokenTest(unittest.TestCase):
    def test_every_method_but_health_wants_a_token(self):
        with TinyServer(BIN, f"--token_file={token_file(TOKEN, OTHER_TOKEN)}") as server:
            for token, expected in {None: UNKNOWN, "wrong-token-0123456789": UNKNOWN, TOKEN[:-1]: UNKNOWN, TOKEN: SERVED,
                                    OTHER_TOKEN: SERVED}.items():
                with self.subTest(token):
                    self.assertEqual(expected, outcome(server, token=token))
            with grpc.insecure_channel(f"127.0.0.1:{server.ports['grpc']}") as channel:
                self.check_methods(channel)
                self.check_headers(channel)
            refused = server.events("unauthenticated")
            self.assertTrue(refused)
            for text in (TOKEN, OTHER_TOKEN, "wrong-token"):
                self.assertNotIn(text, server.log_text())

    def check_methods(self, channel):
        methods = [f"/chorus.v1.Inference/{method.name}" for method in pb.DESCRIPTOR.services_by_name["Inference"].methods]
        self.assertGreaterEqual(len(methods), 6)
        for method in [*methods, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "/no.such.Service/Method"]:
            call = channel.stream_stream(method, request_serializer=bytes, response_deserializer=bytes)(iter([b""]), timeout=10)
            with self.subTest(method), self.assertRaises(grpc.RpcError) as raised:
                list(call)
            self.assertEqual(grpc.StatusCode.UNAUTHENTICATED, raised.exception.code())
            self.assertIn("authorization", raised.exception.details())
        health = channel.unary_unary("/grpc.health.v1.Health/Check", request_serializer=bytes, response_deserializer=bytes)
        self.assertEqual(b"\x08\x01", health(b"", timeout=10))

    def check_headers(self, channel):
        stub = services.InferenceStub(channel)
        headers = {"no scheme": [TOKEN], "another scheme": [f"Basic {TOKEN}"], "two": [f"Bearer {TOKEN}"] * 2,
                   "empty": [""], "no token": ["Bearer "]}
        for name, values in headers.items():
            with self.subTest(name), self.assertRaises(grpc.RpcError) as raised:
                stub.GetModelInfo(pb.GetModelInfoRequest(), metadata=[("authorization", value) for value in values], timeout=10)
            self.assertEqual(grpc.StatusCode.UNAUTHENTICATED, raised.exception.code())
        stub.GetModelInfo(pb.GetModelInfoRequest(), metadata=[("authorization", f"bearer {TOKEN}")], timeout=10)

    def test_rotation_leaves_streams_alone(self):
        path = token_file(TOKEN)
        with TinyServer(BIN, f"--token_file={path}", "--reload_interval=1s") as server:
            stream = RunningStream(server, token=TOKEN)
            before = stream.ask()
            replace(path, b"# nobody\n")  # a file without a token changes nothing
            server.wait_for_event("secret_not_reloaded")
            self.assertEqual(SERVED, outcome(server, token=TOKEN))
            replace(path, f"{THIRD_TOKEN}\n".encode())
            server.wait_for_event("tokens_reloaded")
            self.assertEqual(UNKNOWN, outcome(server, token=TOKEN))
            self.assertEqual(SERVED, outcome(server, token=THIRD_TOKEN))
            self.assertEqual(before, stream.ask())
            self.assertEqual(grpc.StatusCode.OK, stream.close())

    def test_both_clients_together_with_mutual_tls(self):
        certificate, key = CA.issue("both")
        path = token_file(TOKEN)
        flags = [f"--ca={CA.path}", f"--certificate={certificate}", f"--key={key}", f"--token_file={path}"]
        with TinyServer(BIN, *tls_flags(), f"--tls_client_ca={CA.path}", f"--token_file={path}") as server:
            done = chorus(server, *flags)
            self.assertEqual(0, done.returncode, done.stderr)
            for missing, needle in {0: "certificate verify failed", 1: "key", 3: "UNAUTHENTICATED"}.items():
                done = chorus(server, *[flag for i, flag in enumerate(flags) if i != missing])
                self.assertNotEqual(0, done.returncode)
                self.assertIn(needle, done.stderr)
                self.assertEqual(1, done.stderr.count("\n"))
            tls = Tls(root_certificates=CA.path, certificate_chain=certificate, private_key=key)
            with Client(f"localhost:{server.ports['grpc']}", tls=tls, token=TOKEN) as client:
                self.assertEqual(3, len(client.generate("Who?", ["What?"], max_new_tokens=3, ignore_eos=True).token_ids))
            with Client(f"localhost:{server.ports['grpc']}", tls=tls) as client, self.assertRaises(Unauthenticated):
                client.model_info()
        with self.assertRaises(Unavailable), Client("localhost:1", deadline=1) as client:
            client.model_info()


class LogTest(unittest.TestCase):
    def test_traces_and_access_lines_of_every_call(self):
        with TinyServer(BIN, "--log_prompts") as server, grpc.insecure_channel(f"127.0.0.1:{server.ports['grpc']}") as channel:
            stub = services.InferenceStub(channel)
            request = pb.GenerateRequest(request_id="named \"so\"")
            request.prompt.text.question = "Who is \"it\"?\n\x7f\u2028"
            for header in (f"00-{TRACE}-b7ad6b7169203331-01", f"00-{TRACE.upper()}-b7ad6b7169203331-01", "00-nonsense"):
                call = stub.Generate(request, metadata=[("traceparent", header)])
                list(call)
                trailers = dict(call.trailing_metadata())
                line = server.events("request")[-1]
                phases = [float(trailers[f"chorus-{name}-seconds"]) for name in ("queue", "prefill", "decode")]
                self.assertAlmostEqual(line["total_seconds"], sum(phases), delta=3e-6)
                self.assertEqual(header == f"00-{TRACE}-b7ad6b7169203331-01", "traceparent" in trailers)
                if "traceparent" in trailers:
                    self.assertEqual((TRACE, "b7ad6b7169203331"), (line["trace_id"], line["parent_span_id"]))
                    self.assertEqual(f"00-{TRACE}-{line['span_id']}-01", trailers["traceparent"])
            stub.Tokenize(pb.TokenizeRequest(text="secret words"))
            with self.assertRaises(grpc.RpcError):
                stub.Detokenize(pb.DetokenizeRequest(token_ids=[-1]))
            lines = server.events("request")
            self.assertEqual(["Generate"] * 3 + ["Tokenize", "Detokenize"], [line["rpc"] for line in lines])
            self.assertEqual("INVALID_ARGUMENT", lines[-1]["outcome"])
            self.assertTrue(all(line["peer"].startswith("ipv4:127.0.0.1:") for line in lines))
            prompts = server.events("prompt")
            self.assertEqual(3, len(prompts))
            self.assertEqual(request.prompt.text.question, json.loads(prompts[0]["prompt"])["text"]["question"])
            self.assertNotIn("secret words", server.log_text())

    def test_signals_change_the_level(self):
        with TinyServer(BIN) as server:
            for number, level in [(signal.SIGUSR2, "warning"), (signal.SIGUSR1, "info"), (signal.SIGUSR1, "debug")]:
                count = len(server.events("log_level"))
                server.process.send_signal(number)
                server.wait_for_event("log_level", count + 1)
                self.assertEqual(level, server.events("log_level")[-1]["level"])
                outcome(server)
            self.assertEqual(2, len(server.events("request")))  # none while only warnings were logged


class CheckTest(unittest.TestCase):
    def check(self, *flags):
        return subprocess.run([BIN / "chorus-server", f"--model={MODEL}", "--check", "--listen=127.0.0.1:0", "--metrics_listen=",
                               *flags], capture_output=True, text=True, timeout=60)

    def test_what_is_good_exits_0_and_is_told(self):
        done = self.check(*tls_flags(), f"--token_file={token_file(TOKEN)}")
        self.assertEqual((0, ""), (done.returncode, done.stderr))
        for needle in ("tiny_mha", "CN=server", "127.0.0.1:0", "tokens       1"):
            self.assertIn(needle, done.stdout)

    def test_all_that_is_bad_exits_2_and_is_told_at_once(self):
        with TinyServer(BIN) as server:
            done = self.check(*tls_flags(CA.issue("gone", expired=True)), f"--token_file={FILES / 'none'}",
                              f"--listen=127.0.0.1:{server.ports['grpc']}", "--model=/nowhere")
        self.assertEqual(2, done.returncode)
        for needle in ("/nowhere", "--listen=", "is not valid now", "--token_file="):
            self.assertIn(needle, done.stderr)

    def test_a_public_address_needs_tls_and_tokens(self):
        tokens = f"--token_file={token_file(TOKEN)}"
        for flags, code in [([], 2), ([tokens], 2), (tls_flags(), 2), ([*tls_flags(), tokens], 0),
                            ([*tls_flags(), f"--tls_client_ca={CA.path}"], 0), (["--insecure"], 0)]:
            with self.subTest(flags):
                done = self.check("--listen=0.0.0.0:0", *flags)
                self.assertEqual(code, done.returncode, done.stderr)
                self.assertEqual(code == 2, "--insecure" in done.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True, type=pathlib.Path)
    arguments, rest = parser.parse_known_args()
    BIN = arguments.bin.resolve()
    os.environ["GRPC_VERBOSITY"] = "none"
    unittest.main(argv=[sys.argv[0], *rest], verbosity=2)
