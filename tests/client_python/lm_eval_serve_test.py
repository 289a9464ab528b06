#!/usr/bin/env python3
"""The model `chorus` of lm-evaluation-harness with the real lm_eval, against the real server with a tiny model.

    PYTHONPATH=client/python .venv-lm-eval/bin/python tests/client_python/lm_eval_serve_test.py --bin build/release/bin
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import unittest

CACHE = tempfile.TemporaryDirectory()
os.environ.update(HF_HOME=CACHE.name, HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")  # nothing is downloaded

import lm_eval
from lm_eval.tasks import TaskManager

import chorus_client as chorus
import chorus_lm_eval.model  # noqa: F401 - registers the model
import serve_test

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORDINGS = "paraphrase_tasks=_wording-[0-9]+"


class LmEvalServeTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = serve_test.Server()
        cls.addClassCleanup(cls.server.close)
        cls.client = cls.enterClassContext(chorus.Client(cls.server.target, deadline=60))

    def samples(self, task, model_args, limit=4):
        """The samples of a task's documents, and those of the tasks of a group."""
        manager = TaskManager(include_path="tests/data/lm_eval", include_defaults=False)
        results = lm_eval.simple_evaluate(model="chorus", model_args=f"target={self.server.target},{model_args}",
                                          tasks=[task], limit=limit, task_manager=manager, bootstrap_iters=0)
        return {name: sorted(samples, key=lambda sample: sample["doc_id"]) for name, samples in results["samples"].items()}

    def score(self, contexts, continuation, **options):
        """(log-likelihood, is it greedy) as Client.score says it of texts."""
        response = self.client.score(chorus.make_score_request(
            "", [continuation], prompts=contexts, template="none", **options))
        return response.scores[0].logprob, response.scores[0].is_greedy

    def test_choices_have_the_scores_of_their_texts(self):
        for sample in self.samples("qa_choice_wording-0", "method=per_prompt")["qa_choice_wording-0"]:
            for (context, continuation), [(logprob, is_greedy)] in zip(sample["arguments"], sample["resps"], strict=True):
                expected, greedy = self.score([context], continuation)
                # Both ways read the same rows; alone or beside others, a row has the same bits.
                self.assertEqual((expected, greedy), (logprob, is_greedy))

    def test_wordings_have_the_scores_of_their_fusion(self):
        for options in ({"method": "attention", "positions": "sequential", "segment_log_bias": -1.0},
                        {"method": "logit_mean"}, {"method": "vote"}):
            model_args = ",".join(f"{name}={value}" for name, value in options.items())
            samples = self.samples("qa_choice", f"{WORDINGS},{model_args}", limit=2)
            self.assertEqual(3, len(samples))
            for together in zip(*samples.values(), strict=True):
                self.assertEqual(together[0]["resps"], together[2]["resps"])
                contexts = [sample["arguments"][1][0] for sample in together]
                self.assertEqual(3, len(set(contexts)))
                expected = self.score(contexts, together[0]["arguments"][1][1], **options)
                self.assertEqual(expected, tuple(together[0]["resps"][1][0]))

    def test_answers_are_those_of_generate(self):
        samples = self.samples("qa_answer", f"{WORDINGS},method=attention")
        for together in zip(*samples.values(), strict=True):
            contexts = [sample["arguments"][0][0] for sample in together]
            answer = self.client.generate(chorus.make_request("", prompts=contexts, template="none", max_new_tokens=12,
                                                              stop=["\n"]))
            self.assertEqual([answer.text] * 3, [sample["resps"][0][0] for sample in together])

    def test_running_text_is_scored_in_windows(self):
        whole, windows = (self.samples("qa_perplexity", model_args)["qa_perplexity"] for model_args in ("seed=1", "max_length=16"))
        for long, short in zip(whole, windows, strict=True):
            self.assertLess(max(long["resps"][0][0], short["resps"][0][0]), 0)
            self.assertNotEqual(long["resps"], short["resps"])
        info, text = self.client.model_info(), whole[0]["arguments"][0][0]
        before = [info.eos_token_ids[0] if info.named_bos_token_id is None else info.named_bos_token_id]
        prompt = chorus.TokenPrompt(segments=[chorus.TokenSegment(token_ids=before)])
        score = self.client.score(chorus.ScoreRequest(prompt=prompt, continuations=[text])).scores[0]
        self.assertEqual([[score.logprob]], whole[0]["resps"])

    def test_a_server_that_comes_back_is_waited_for(self):
        whole = self.samples("qa_answer_wording-0", "concurrency=2", limit=60)

        def restart():
            self.server.kill()
            self.server.start()

        timer = threading.Timer(0.3, restart)
        timer.start()
        self.assertEqual(whole, self.samples("qa_answer_wording-0", "concurrency=2", limit=60))
        timer.join()

    def command(self, *arguments):
        return subprocess.run([sys.executable, "-m", "chorus_lm_eval", *arguments], capture_output=True, text=True,
                              timeout=240)

    def test_the_command_line(self):
        with tempfile.TemporaryDirectory() as folder:
            done = self.command("--model", "chorus", "--model_args", f"target={self.server.target},method=logit_mean,{WORDINGS}",
                                "--include_path", "tests/data/lm_eval", "--tasks", "qa_choice", "--limit", "2",
                                "--output_path", folder)
            self.assertEqual(0, done.returncode, done.stderr)
            self.assertIn("qa_choice_wording-2", done.stdout)
            [path] = pathlib.Path(folder).rglob("results_*.json")
            results = json.loads(path.read_text())
        self.assertEqual(3, len({*results["results"]} - {"qa_choice"}))
        self.assertEqual("tiny_gqa", results["config"]["chorus_name"])

    def test_a_bad_option_is_said_in_one_line(self):
        done = self.command("--model", "chorus", "--model_args", "method=mean", "--include_path", "tests/data/lm_eval",
                            "--tasks", "qa_choice")
        self.assertEqual(2, done.returncode, done.stderr)
        self.assertIn("error: model_args: method: 'mean' is not valid: one of attention", done.stderr)
        self.assertNotIn("Traceback", done.stderr)
        self.assertIn("paraphrase_tasks=REGEX", self.command("--help").stdout)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True, type=pathlib.Path)
    arguments, rest = parser.parse_known_args()
    serve_test.BIN = arguments.bin.resolve()
    os.chdir(ROOT)  # the tasks name their data from here
    unittest.main(argv=[sys.argv[0], *rest], verbosity=2)
