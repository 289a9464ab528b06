#!/usr/bin/env python3
"""chorus-plot against a service in Python: what it asks for, and that saved data are what was drawn."""
import contextlib
import copy
import io
import json
import pathlib
import tempfile
import unittest
import unittest.mock

from google.protobuf import json_format

from chorus_client.v1 import inference_pb2 as pb
from chorus_plot import cli, style
from chorus_plot.attribution_data import attribution_from_json, load_attribution
from chorus_plot.explain_data import ExplainData, load_explain_data
from fake_server import FakeService, bad_field, serve, unavailable
from plot_example import ANSWER, RESPONSE


def explain_response():
    response = copy.deepcopy(RESPONSE)
    for unit in response["units"]:
        unit["kind"] = "UNIT_KIND_" + unit["kind"].upper()
    for layer in response["layers"]:
        layer["logits"] = ["NaN" if value is None else value for value in layer["logits"]]
    return json_format.ParseDict(response, pb.ExplainResponse())


class Service(FakeService):
    def Explain(self, request, context):
        failure = self.take(request, context)
        if failure is not None:
            context.abort(*_code_and_message(failure))
        return explain_response()

    def events(self, request, request_id):
        """Two tokens at once, as a slow reader gets them, then the third."""
        tokens = [json_format.ParseDict(token["attribution"], pb.Attribution()) for token in ANSWER["tokens"]]
        yield pb.GenerateResponse(prompt_info=pb.PromptInfo(request_id=request_id))
        yield pb.GenerateResponse(chunk=pb.TokenChunk(text="Paris", token_ids=[7, 42], attribution=tokens[:2]))
        yield pb.GenerateResponse(chunk=pb.TokenChunk(text="\n", token_ids=[8], attribution=tokens[2:]))
        yield pb.GenerateResponse(finish=pb.FinishInfo(text="Paris", token_ids=[7, 42, 8]))


def _code_and_message(status):
    import grpc
    return next(code for code in grpc.StatusCode if code.value[0] == status.code), status.message


class LiveTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        few_dots = unittest.mock.patch.object(style, "DPI", 30)
        few_dots.start()
        self.addCleanup(few_dots.stop)

    def run_command(self, service, *arguments):
        out, err = io.StringIO(), io.StringIO()
        with serve(service) as address, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.main([*arguments, f"--server={address}", f"--out={self.folder}"])
        return code, out.getvalue(), err.getvalue()

    def test_explain_asks_saves_and_draws(self):
        service, saved = Service(), self.folder / "saved.npz"
        code, out, err = self.run_command(
            service, "explain", "Capital of France?", "--paraphrase=France's capital?", "--layers=0,4", "--heads=0,1,2",
            "--steps=0,1", "--max_new_tokens=9", f"--save={saved}", "--quantities=mass")
        self.assertEqual((0, ""), (code, err))
        self.assertEqual("Paris.", out.splitlines()[0])
        self.assertTrue((self.folder / "attention_main_mass.svg").exists())
        [request] = service.requests
        self.assertEqual(pb.FUSION_METHOD_ATTENTION, request.request.fusion.method)
        self.assertEqual((["France's capital?"], 9), (list(request.request.prompt.text.paraphrases),
                                                      request.request.stopping.max_new_tokens))
        self.assertEqual(([0, 4], [0, 1, 2], [0, 1]),
                         (list(request.layers), list(request.heads), list(request.steps)))
        got, want = load_explain_data(saved), ExplainData.from_json(RESPONSE)
        self.assertEqual((want.logits.tobytes(), want.mass.tobytes()), (got.logits.tobytes(), got.mass.tobytes()))
        self.assertEqual((want.layout, want.mask_runs, want.units, want.tokens),
                         (got.layout, got.mask_runs, got.units, got.tokens))

    def test_ask_draws_what_it_saves(self):
        service, saved = Service(), self.folder / "answer.json"
        code, _, err = self.run_command(service, "ask", "Capital of France?", f"--save={saved}")
        self.assertEqual((0, ""), (code, err))
        self.assertTrue(service.requests[0].response.attribution)
        self.assertTrue((self.folder / "attribution.png").exists())
        got, want = load_attribution(saved), attribution_from_json(ANSWER)
        self.assertEqual((want.labels, want.tokens, want.shares.tolist()), (got.labels, got.tokens, got.shares.tolist()))
        self.assertEqual("attention", json.loads(saved.read_text())["method"])

    def test_refusals_are_one_line(self):
        for failure, message in [(bad_field("layers[0]", "is 99; at most 29"), "layers[0]: is 99; at most 29"),
                                 (unavailable(), "the server stops")]:
            with self.subTest(message):
                code, out, err = self.run_command(Service(failures=[failure] * 9), "explain", "q", "--layers=99")
                self.assertEqual((1, ""), (code, out))
                self.assertIn(message, err)
                self.assertEqual(1, err.count("\n"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
