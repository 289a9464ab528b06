#!/usr/bin/env python3
"""chorus_client, both clients, against a service in Python: no model, no C++ server."""
import asyncio
import dataclasses
import subprocess
import tempfile
import pathlib
import time
import unittest

import grpc

import chorus_client as chorus
from chorus_client import convert, retry
from chorus_client import types as t
from chorus_client.many import ManyState
from chorus_client.v1 import inference_pb2 as pb
from fake_server import FakeService, bad_field, busy, serve, unavailable

FAST = chorus.RetryPolicy(initial_backoff=0.01, max_backoff=0.05)


class Blocking:
    """Calls methods of Client and gathers what they yield."""

    def __init__(self, target, **options):
        self.options = {"retry": FAST, **options}
        self.target = target

    def call(self, name, *arguments, **options):
        with chorus.Client(self.target, **self.options) as client:
            return getattr(client, name)(*arguments, **options)

    def texts(self, *arguments, **options):
        with chorus.Client(self.target, **self.options) as client:
            with client.stream(*arguments, **options) as stream:
                return [chunk.text for chunk in stream], stream.prompt_info, stream.finish

    def many(self, requests, **options):
        with chorus.Client(self.target, **self.options) as client:
            return list(client.generate_many(requests, **options))


class Asyncio(Blocking):
    """The same through AsyncClient."""

    def call(self, name, *arguments, **options):
        async def run():
            async with chorus.AsyncClient(self.target, **self.options) as client:
                return await getattr(client, name)(*arguments, **options)
        return asyncio.run(run())

    def texts(self, *arguments, **options):
        async def run():
            async with chorus.AsyncClient(self.target, **self.options) as client:
                async with await client.stream(*arguments, **options) as stream:
                    return [chunk.text async for chunk in stream], stream.prompt_info, stream.finish
        return asyncio.run(run())

    def many(self, requests, **options):
        async def run():
            async with chorus.AsyncClient(self.target, **self.options) as client:
                return [result async for result in client.generate_many(requests, **options)]
        return asyncio.run(run())


def question(text, **options):
    return chorus.make_request(text, **options)


class ClientTest(unittest.TestCase):
    kind = Blocking

    def test_generate_gathers_the_stream(self):
        service = FakeService()
        with serve(service) as target:
            answer = self.kind(target).call("generate", "one two", ["uno"], method="vote", max_new_tokens=5)
        self.assertEqual("one two", answer.text)
        self.assertEqual((2, 3), (len(answer.chunks), answer.usage.cached_tokens))
        self.assertEqual(["one two", "uno"], [prompt.text for prompt in answer.prompts])
        self.assertEqual(chorus.FinishReason.EOS, answer.reason)
        self.assertEqual(5, service.requests[0].stopping.max_new_tokens)

    def test_stream_yields_chunks_then_says_how_it_ended(self):
        with serve(FakeService()) as target:
            texts, info, finish = self.kind(target).texts("a b c", request_id="mine")
        self.assertEqual((["a", "b", "c"], "mine", "a b c"), (texts, info.request_id, finish.text))

    def test_refused_fields_are_named_with_value_and_limit(self):
        service = FakeService(failures=[bad_field("sampling.top_p", "1.5 is not valid: in (0, 1]")])
        with serve(service) as target, self.assertRaises(chorus.InvalidArgument) as caught:
            self.kind(target).call("generate", "q", top_p=1.5)
        error = caught.exception
        self.assertEqual(("sampling.top_p", "1.5", "in (0, 1]"), (error.field, error.value, error.limit))
        self.assertEqual(1, len(service.requests), "bad input is never asked again")

    def test_unavailable_and_full_queues_are_asked_again(self):
        service = FakeService(failures=[unavailable(), busy(), unavailable()])
        with serve(service) as target:
            self.assertEqual("q", self.kind(target).call("generate", "q").text)
        self.assertEqual(4, len(service.requests))

    def test_retry_info_is_waited_for(self):
        service = FakeService(failures=[busy(0.3)])
        with serve(service) as target:
            begin = time.monotonic()
            self.kind(target).call("model_info")
            self.assertGreaterEqual(time.monotonic() - begin, 0.3)

    def test_attempts_end(self):
        service = FakeService(failures=[busy()] * 9)
        with serve(service) as target, self.assertRaises(chorus.ResourceExhausted):
            self.kind(target, retry=dataclasses.replace(FAST, max_attempts=3)).call("generate", "q")
        self.assertEqual(3, len(service.requests))

    def test_the_deadline_bounds_all_attempts(self):
        service = FakeService(failures=[busy(30)])
        with serve(service) as target, self.assertRaises(chorus.ResourceExhausted):
            self.kind(target).call("generate", "q", deadline=1.0)
        with serve(FakeService(delay=5)) as target, self.assertRaises(chorus.DeadlineExceeded):
            self.kind(target).call("generate", "q", deadline=0.2)

    def test_no_server_is_unavailable(self):
        with self.assertRaises(chorus.Unavailable):
            self.kind("127.0.0.1:1", retry=chorus.RetryPolicy(max_attempts=1)).call("model_info")

    def test_score_takes_texts_and_token_ids(self):
        service = FakeService(failures=[busy()])
        with serve(service) as target:
            response = self.kind(target).call("score", "q", [" big", [32, 99]], ["p"], method="logit_mean",
                                              prompt_logprobs=True, request_id="mine")
        self.assertEqual(2, len(service.requests), "a full queue is asked again")
        sent = service.requests[1]
        self.assertEqual(pb.FUSION_METHOD_LOGIT_MEAN, sent.fusion.method)
        self.assertEqual(["text", "tokens"], [item.WhichOneof("form") for item in sent.continuations])
        text, ids = response.scores
        self.assertEqual((-4.0, True, (-4.0, -8.0)), (text.logprob, text.is_greedy, text.prompt_logprobs))
        self.assertEqual(((32, 99), (-1.0, -1.0)), (ids.token_ids, ids.token_logprobs))
        self.assertEqual((6, "mine"), (response.usage.scored_tokens, response.prompt_info.request_id))

    def test_score_takes_a_whole_request(self):
        request = chorus.ScoreRequest(prompt=chorus.TokenPrompt(segments=[chorus.TokenSegment(token_ids=[1])]),
                                      continuations=[chorus.Continuation(text="a")], prompt_logprobs=False)
        service = FakeService()
        with serve(service) as target:
            response = self.kind(target).call("score", request)
            with self.assertRaisesRegex(TypeError, "nothing else beside it"):
                self.kind(target).call("score", request, ["a"])
        self.assertEqual((False, ()), (response.scores[0].is_greedy, response.scores[0].prompt_logprobs))
        self.assertTrue(service.requests[0].HasField("prompt_logprobs"))

    def test_explain_tokenize_and_model_info_pass_through(self):
        request = chorus.ExplainRequest(request=question("q"), layers=[1, 2], steps=[0])
        with serve(FakeService()) as target:
            explained = self.kind(target).call("explain", request)
            tokens = self.kind(target).call("tokenize", "ab")
            text = self.kind(target).call("detokenize", [97, 98])
            info = self.kind(target).call("model_info")
        self.assertEqual([1, 2], [layer.layer for layer in explained.layers])
        self.assertEqual(t.UnitKind.SEGMENT, explained.units[0].kind)
        self.assertEqual(((97, 98), "ab", "fake", None), (tokens.token_ids, text, info.name, info.bos_token_id))
        self.assertEqual(chorus.Template.CHATML, info.template)

    def test_a_token_goes_with_every_call(self):
        service = FakeService()
        with serve(service) as target:
            self.kind(target, token="secret").call("generate", "q")
            self.kind(target, token="secret").many([("1", question("q"))])
        self.assertEqual(["Bearer secret"] * 2, [m["authorization"] for m in service.metadata])

    def test_many_answers_every_request_and_holds_back(self):
        service = FakeService()
        taken = []

        def requests():
            for index in range(19):
                taken.append(index)
                yield f"{index}+" if index % 3 else f"{index}", question(f"q{index}")

        with serve(service) as target:
            results = self.kind(target).many(requests(), max_in_flight=3)
        self.assertEqual({f"q{i}" for i in range(19)}, {result.get().text for result in results})
        self.assertEqual((19, 1), (len(results), service.num_streams))
        self.assertLessEqual(service.max_running, 3)

    def test_many_one_bad_request_harms_no_other(self):
        service = FakeService(failures=[bad_field("prompt", "0 is not valid: 1 to 256"), busy()])
        with serve(service) as target:
            results = {r.request_id: r for r in self.kind(target).many([(str(i), question("q")) for i in range(4)],
                                                                       max_in_flight=1)}
        self.assertEqual("prompt", results["0"].error.field)
        self.assertEqual(["q"] * 3, [results[str(i)].get().text for i in (1, 2, 3)])
        with self.assertRaises(chorus.InvalidArgument):
            results["0"].get()

    def test_many_goes_on_after_a_broken_stream(self):
        service = FakeService()
        service.break_after = 4
        with serve(service) as target:
            results = self.kind(target).many([(str(i), question(f"q{i}")) for i in range(9)], max_in_flight=2)
        self.assertEqual(sorted(f"q{i}" for i in range(9)), sorted(r.get().text for r in results))
        self.assertEqual(2, service.num_streams)

    def test_many_goes_on_where_a_stream_broke_under_a_write(self):
        for _ in range(8):  # whether a write fails first, or the end is seen first, is chance
            service = FakeService()
            service.break_after = 0
            large = "q" * 300_000  # beyond what a stream's window holds: writes wait until it breaks
            with serve(service) as target:
                results = self.kind(target).many([(str(i), question(large)) for i in range(8)], max_in_flight=8)
            self.assertEqual([len(large)] * 8, [len(r.get().text) for r in results])
            self.assertEqual(2, service.num_streams)

    def test_many_a_silent_server_counts_as_dead(self):
        with serve(FakeService(delay=3)) as target, self.assertRaisesRegex(chorus.Unavailable, "said nothing"):
            self.kind(target, retry=chorus.RetryPolicy(max_attempts=1)).many([("1", question("q"))], idle_timeout=0.2)

    def test_many_refuses_an_id_that_still_runs(self):
        with serve(FakeService()) as target, self.assertRaisesRegex(ValueError, "request_id: '1'"):
            self.kind(target).many([("1", question("q")), ("1", question("q"))])


class AsyncClientTest(ClientTest):
    kind = Asyncio


class TlsTest(unittest.TestCase):
    def test_tls_with_a_root_of_ones_own(self):
        with tempfile.TemporaryDirectory() as folder:
            key, chain = pathlib.Path(folder, "key.pem"), pathlib.Path(folder, "chain.pem")
            subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
                            "/CN=chorus.test", "-addext", "subjectAltName=DNS:chorus.test", "-keyout", key, "-out", chain],
                           check=True, capture_output=True)
            pair = [(key.read_bytes(), chain.read_bytes())]
            service = FakeService()
            with serve(service, credentials=grpc.ssl_server_credentials(pair)) as target:
                tls = chorus.Tls(root_certificates=chain, server_name="chorus.test")
                for kind in (Blocking, Asyncio):
                    self.assertEqual("fake", kind(target, tls=tls, token="secret").call("model_info").name)
                with self.assertRaises(chorus.Unavailable):
                    Blocking(target, tls=chorus.Tls()).call("model_info", deadline=5)
        self.assertEqual("Bearer secret", service.metadata[0]["authorization"])

    def test_a_token_never_leaves_the_machine_unencrypted(self):
        with self.assertRaisesRegex(ValueError, "token: it would travel unencrypted"):
            chorus.Client("chorus.example.com:50051", token="secret")
        with self.assertRaisesRegex(ValueError, "token: it would travel unencrypted"):
            chorus.Client("ipv4:127.0.0.1:1,192.0.2.1:2", token="secret")
        for target in ("localhost:1", "127.0.0.1:1", "[::1]:1", "unix:///run/chorus.sock", "dns:///localhost:1",
                       "ipv4:127.0.0.1:1,127.0.0.2:2", "ipv6:[::1]:1"):
            chorus.Client(target, token="secret").close()

    def test_half_a_key_pair_is_refused(self):
        with self.assertRaisesRegex(ValueError, "belong together"):
            chorus.Client("localhost:1", tls=chorus.Tls(private_key="key.pem"))


class ConvertTest(unittest.TestCase):
    def dataclasses(self):
        return [cls for cls in vars(t).values()
                if dataclasses.is_dataclass(cls) and cls is not t.Answer]

    def test_every_dataclass_has_the_fields_of_its_message(self):
        self.assertGreater(len(self.dataclasses()), 25)
        for cls in self.dataclasses():
            with self.subTest(cls.__name__):
                fields = {field.name for field in convert.message_class(cls).DESCRIPTOR.fields}
                self.assertEqual(fields, {field.name for field in dataclasses.fields(cls)})

    def test_every_enum_has_the_values_of_the_contract(self):
        for cls, (name, prefix) in t.ENUMS.items():
            names = {value.name for value in getattr(pb, name).DESCRIPTOR.values if value.number != 0}
            self.assertEqual(names, {prefix + value.name for value in cls})

    def test_zero_and_not_set_are_different(self):
        message = convert.to_message(question("q", temperature=0.0, prefix=""))
        self.assertTrue(message.sampling.HasField("temperature") and message.prompt.text.HasField("prefix"))
        self.assertFalse(message.sampling.HasField("top_p") or message.prompt.text.HasField("suffix"))
        back = convert.from_message(t.Sampling, message.sampling)
        self.assertEqual((0.0, None), (back.temperature, back.top_p))

    def test_requests_come_back_as_they_were(self):
        text = chorus.make_request("q", ["p"], method="logit_mean", weights=(0.5, 0.25), stop=("\n",), seed=2**64 - 1,
                        logit_bias={3: -1.5}, top_logprobs=2)
        message = convert.to_message(text)
        for name, cls in (("fusion", t.Fusion), ("sampling", t.Sampling), ("stopping", t.Stopping)):
            back = convert.from_message(cls, getattr(message, name))
            self.assertEqual(convert.to_message(getattr(text, name)), convert.to_message(back))
        tokens = t.GenerateRequest(prompt=t.TokenPrompt(segments=[t.TokenSegment(token_ids=[1, 2])]))
        self.assertEqual([1, 2], convert.to_message(tokens).prompt.tokens.segments[0].token_ids)

    def test_an_empty_continuation_is_sent_as_it_is(self):
        message = convert.to_message(chorus.make_score_request("q", ["", []]))
        self.assertEqual(["text", "tokens"], [item.WhichOneof("form") for item in message.continuations])
        self.assertFalse(message.HasField("prompt_logprobs"))

    def test_wrong_continuations_are_named(self):
        for continuations, words in ((" Paris", "continuations: a sequence"),
                                     ([" Paris", ["x"]], "continuations[1].tokens.token_ids: ['x']"),
                                     ([chorus.Continuation()], "continuations[0]: Continuation(text=None")):
            with self.assertRaises((TypeError, ValueError)) as caught:
                convert.to_message(chorus.make_score_request("q", continuations))
            self.assertIn(words, str(caught.exception))
        with self.assertRaisesRegex(TypeError, "temperature: no option of a request"):
            chorus.make_score_request("q", ["a"], temperature=0.5)

    def test_wrong_values_are_named(self):
        for options, words in (({"method": "mean"}, "fusion.method: 'mean' is not valid: one of attention"),
                               ({"max_new_tokens": "x"}, "stopping.max_new_tokens: 'x'"),
                               ({"max_new_tokens": 2**40}, "stopping.max_new_tokens"),
                               ({"stop": "\n"}, "stopping.stop: a sequence"),
                               ({"temprature": 1}, "did you mean temperature?")):
            with self.assertRaises((TypeError, ValueError)) as caught:
                convert.to_message(question("q", **options))
            self.assertIn(words, str(caught.exception))


class RetryTest(unittest.TestCase):
    def waits(self, policy, errors, deadline=None):
        attempts = retry.Attempts(policy, deadline, clock=lambda: 0.0, uniform=lambda low, high: high)
        return [attempts.wait_after(error) for error in errors]

    def test_waits_grow_up_to_their_bound(self):
        policy = chorus.RetryPolicy(max_attempts=6, initial_backoff=1, max_backoff=5, multiplier=2, jitter=0.5)
        error = chorus.Unavailable("gone")
        self.assertEqual([1.5, 3.0, 6.0, 7.5, 7.5, None], self.waits(policy, [error] * 6))

    def test_retry_info_is_the_least(self):
        policy = chorus.RetryPolicy(initial_backoff=1, jitter=0)
        errors = [chorus.ResourceExhausted("full", retry_after=4.0), chorus.ResourceExhausted("full", retry_after=0.5)]
        self.assertEqual([4.0, 2.0], self.waits(policy, errors))

    def test_other_errors_and_late_waits_are_final(self):
        self.assertEqual([None], self.waits(chorus.RetryPolicy(), [chorus.Internal("broken")]))
        self.assertEqual([None], self.waits(chorus.RetryPolicy(initial_backoff=3, jitter=0), [chorus.Unavailable("")], 3.0))

    def test_many_takes_no_more_requests_than_fly(self):
        source = iter([(str(i), question("q")) for i in range(5)])
        state = ManyState(source, 2, FAST)
        self.assertEqual(["0", "1"], [message.request_id for message in state.to_send()])
        self.assertEqual([], state.to_send())
        self.assertIsNotNone(state.on_broken_stream(chorus.Unavailable("gone")))
        self.assertEqual(["0", "1"], [message.request_id for message in state.to_send()])
        self.assertEqual(3, len(list(source)))


if __name__ == "__main__":
    unittest.main(verbosity=2)
