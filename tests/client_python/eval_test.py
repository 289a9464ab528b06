#!/usr/bin/env python3
"""chorus-eval's parts, and whole runs against a service in Python: no model, no C++ server."""
import contextlib
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import chorus_client as chorus
from chorus_eval import (bootstrap, cli, data, journal, options, paraphrasing, plan, progress, results, scoring,
                         summary)
from fake_server import FakeService, bad_field, busy, prompts_of, serve

QUESTIONS = [{"id": f"q{i}", "question": f"Which number is {i}?", "paraphrases": [f"Name number {i}.", f"Say {i}."],
              "answers": [str(i)]} for i in range(12)]


def lines(records):
    return "".join(json.dumps(record) + "\n" for record in records)


class Folder(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.addCleanup(self.temporary.cleanup)
        self.folder = pathlib.Path(self.temporary.name)

    def write(self, name, text):
        path = self.folder / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def eval(self, *arguments):
        """(exit code, standard output, standard error)."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = cli.main([str(argument) for argument in arguments])
            except SystemExit as end:
                code = end.code
        return code, out.getvalue(), err.getvalue()


class DataTest(Folder):
    def problems(self, text, name="data.jsonl", **options):
        questions, errors = data.load_questions(self.write(name, text), **options)
        return questions, [(error.line, error.field) for error in errors], errors

    def test_malformed_records_are_named_by_line_and_field(self):
        good = '{"question": "q", "paraphrases": ["p"], "answers": ["a"]}'
        cases = [('{"question": "q"', ""), ('{"paraphrases": [], "answers": ["a"]}', "question"),
                 ('{"question": 7, "answers": ["a"]}', "question"), ('{"question": " ", "answers": ["a"]}', "question"),
                 ('{"question": "q", "answers": []}', "answers"), ('{"question": "q"}', "answers"),
                 ('{"question": "q", "answers": "a"}', "answers"), ('{"question": "q", "answers": ["a", 3]}', "answers[1]"),
                 ('{"question": "q", "answers": [""]}', "answers[0]"), ('{"question": "q", "answer": null}', "answer"),
                 ('{"question": "q", "paraphrases": "p", "answers": ["a"]}', "paraphrases"),
                 ('{"question": "q", "paraphrases": [null], "answers": ["a"]}', "paraphrases[0]"),
                 ('{"question": "\\ud800", "answers": ["a"]}', "question"), ("[1]", ""), ("[" * 100_000, ""),
                 ('{"id": true, "question": "q", "answers": ["a"]}', "id")]
        text = "\n".join([good, "", *(case for case, _ in cases), good]) + "\n"
        questions, found, _ = self.problems(text)
        self.assertEqual([(number, field) for number, (_, field) in enumerate(cases, 3)], found)
        self.assertEqual([1, len(cases) + 3], [question.line for question in questions])

    def test_an_id_stands_once(self):
        _, found, errors = self.problems(lines([QUESTIONS[0], QUESTIONS[1], QUESTIONS[0]]))
        self.assertEqual([(3, "id")], found)
        self.assertIn("line 1 has it", str(errors[0]))

    def test_bytes_that_are_no_utf8(self):
        _, found, _ = self.problems(lines(QUESTIONS[:1]).encode() + b'{"question": "\xff"}\n')
        self.assertEqual([(2, "")], found)
        with self.assertRaisesRegex(data.DataError, "data.csv:2: is not UTF-8"):
            self.problems(b"question,answers\n\xff,a\n", "data.csv")

    def test_csv(self):
        text = ('\ufeffid,question,paraphrases,answers\n1,"What, now?","[""a|b"", ""c""]",x|y\n'
                '2,"two\nlines",p,z\n3,q,p\n4,q,[p,a\n5,q,p,\n')
        questions, found, _ = self.problems(text, "data.csv")
        self.assertEqual(("What, now?", ("a|b", "c"), ("x", "y")),
                         (questions[0].question, questions[0].paraphrases, questions[0].answers))
        self.assertEqual("two\nlines", questions[1].question)
        self.assertEqual([(5, ""), (6, "paraphrases"), (7, "answers")], found)
        numbered, _, _ = self.problems("question,paraphrase1,paraphrase2,answer\nq,a,b,x\n", "data.csv")
        self.assertEqual((("a", "b"), ("x",)), (numbered[0].paraphrases, numbered[0].answers))

    def test_files_as_a_whole(self):
        for name, text, words in (("a.txt", "", "--format"), ("a.jsonl", "\n", "no question"),
                                  ("a.csv", "x,answers\n1,2\n", "question: no such column")):
            with self.assertRaisesRegex(data.DataError, words):
                self.problems(text, name)
        with self.assertRaisesRegex(data.DataError, "No such file"):
            data.load_questions(self.folder / "none.jsonl")

    def test_templates(self):
        templates = data.load_templates(self.write("t", "# comment\nTell me: {question}\n\n{question} Answer.\n"))
        questions, _, _ = self.problems(lines(QUESTIONS[:1]), templates=templates)
        self.assertEqual("Tell me: Which number is 0?", questions[0].paraphrases[2])
        with self.assertRaisesRegex(data.DataError, "t:2: .*{question} must be in it"):
            data.load_templates(self.write("t", "{question}\nwhat\n"))

    def test_wordings(self):
        questions, _ = data.load_questions(self.write("a.jsonl", lines(QUESTIONS[:1])))
        for choice, wanted in (({}, [0, 1, 2]), ({"num_paraphrases": 1}, [0, 1]), ({"num_paraphrases": 0}, [0]),
                               ({"indexes": [2, 0]}, [2, 0])):
            [(question, wordings)], errors = data.choose_wordings(questions, "f", **choice)
            self.assertEqual([question.wordings[i] for i in wanted], list(wordings))
        chosen, errors = data.choose_wordings(questions, "f", indexes=[0, 3])
        self.assertEqual(([], "f:1: paraphrases: 2 is not valid: the run needs 3 or more"), (chosen, str(errors[0])))


class ScoringTest(unittest.TestCase):
    def test_metrics(self):
        scorer = scoring.Scorer(scoring.Lemmatizer())
        for answer, gold, wanted in (
                (" The Euro.\nQ: next", "euro", {"exact": 1, "contains": 1, "lemma": 1, "f1": 1}),
                ("Mice were running", "mouse", {"exact": 0, "contains": 0, "lemma": 1, "f1": 0}),
                ("It is the Guatemala City", "Guatemala City", {"exact": 0, "contains": 1, "lemma": 1, "f1": 2 / 3}),
                ("", "Oslo", {"exact": 0, "contains": 0, "lemma": 0, "f1": 0}),
                ("Oslo is not in the second line\nBergen", "Bergen", {"exact": 0, "contains": 0, "lemma": 0, "f1": 0})):
            found = scorer.scores(answer, [gold, "never said"])
            for metric, value in wanted.items():
                self.assertAlmostEqual(value, found[metric], msg=f"{metric} of {answer!r}")
        self.assertEqual(1, scoring.Scorer(whole=True).scores("a\nBergen", ["Bergen"])["contains"])
        self.assertNotIn("lemma", scoring.Scorer().metrics)

    def test_agreement(self):
        form = scoring.Scorer(scoring.Lemmatizer()).form
        self.assertEqual(form("The cities."), form("city"))
        self.assertEqual(1 / 3, scoring.agreement(["a", "a", "b"]))
        self.assertIsNone(scoring.agreement(["a"]))
        self.assertEqual(0.75, scoring.confidence("a", ["a", "b", "a", "a"]))

    def test_bootstrap_covers_and_pairs(self):
        values = [[1.0, 1.0], [0.0, 0.0], [1.0, 0.0], [1.0, 1.0]] * 25
        means = bootstrap.intervals(values)
        # Standard error of a share: sqrt(p (1 - p) / n); the interval is about 1.96 of it to each side.
        for found, p in zip(means, (0.75, 0.5)):
            self.assertAlmostEqual(p, found.mean)
            self.assertAlmostEqual(2 * 1.96 * (p * (1 - p) / 100) ** 0.5, found.high - found.low, delta=0.03)
        difference = bootstrap.paired_differences(values)[0, 1]
        self.assertAlmostEqual(0.25, difference.mean)
        self.assertGreater(difference.low, 0)
        same = bootstrap.paired_differences([[x, x] for x, _ in values])[0, 1]
        self.assertEqual((0, 0, 0), (same.mean, same.low, same.high))
        self.assertEqual(means, bootstrap.intervals(values))

    def test_progress_says_rate_and_remaining_time(self):
        now = [0.0]
        bar = progress.Progress("answers", 120, done=20, stream=io.StringIO(), clock=lambda: now[0])
        for _ in range(50):
            bar.step()
        now[0] = 25.0
        self.assertEqual("answers 70/120 58%, 2.0/s, 0:25 left", bar.text())


class JournalTest(Folder):
    def test_a_torn_last_line_is_dropped(self):
        path = self.folder / "journal.jsonl"
        with journal.Journal(path) as book:
            book.add("a", {"text": "1"})
            book.add("b", {"text": "2"})
        whole = path.read_bytes()
        for tail in (b'{"request": "c", "outc', b"\0\0\0\0", b"\0\0\n"):
            path.write_bytes(whole + tail)
            with journal.Journal(path) as book:
                self.assertEqual((2, "2", None), (len(book), book.get("b")["text"], book.get("c")))
                book.add("c", {"text": "3"})
            with journal.Journal(path) as book:
                self.assertEqual(3, len(book))

    def test_damage_in_the_middle_is_named(self):
        path = self.write("journal.jsonl", '{"request": "a"\n{"request": "b", "outcome": {}}\n')
        with self.assertRaisesRegex(journal.JournalError, "journal.jsonl:1: is damaged"):
            journal.Journal(path)

    def test_one_run_at_a_time(self):
        with journal.Journal(self.folder / "j"), self.assertRaisesRegex(journal.JournalError, "another run"):
            journal.Journal(self.folder / "j")

    def test_a_key_is_all_that_an_answer_depends_on(self):
        one = chorus.make_request("q", ["p"], method="vote", temperature=0.5)
        self.assertEqual(journal.request_key(one), journal.request_key(
            chorus.make_request("q", ("p",), method="vote", temperature=0.5)))
        for other in (chorus.make_request("q", ["P"], method="vote", temperature=0.5),
                      chorus.make_request("q", ["p"], method="vote", temperature=0.0),
                      chorus.make_request("q", ["p"], method="vote", temperature=0.5, prefix="")):
            self.assertNotEqual(journal.request_key(one), journal.request_key(other))


class PlanTest(Folder):
    def test_examples_stand_once_or_in_every_prompt(self):
        examples = plan.load_examples(self.write("e", '{"question": "a", "answer": "b"}\n'), "Q: {question}\nA: {answer}\n\n")
        shared = plan.Frame("Q: {prompt}", examples, suffix="\nA:").text_prompt(["x", "y"])
        self.assertEqual((["Q: x", "Q: y"], "Q: a\nA: b\n\n"), (shared.prompts, shared.prefix))
        repeated = plan.Frame("Q: {prompt}", examples, True, suffix="\nA:").text_prompt(["x"])
        self.assertEqual((["Q: a\nA: b\n\nQ: x"], None), (repeated.prompts, repeated.prefix))

    def test_malformed_examples_are_named(self):
        for text, words in (('{"question": "a"}\n', "e:1: answer"), ("{\n", "e:1: is not JSON"),
                            ("\n[]\n", "e:2: question")):
            with self.assertRaisesRegex(data.DataError, words):
                plan.load_examples(self.write("e", text), "{question}{answer}")

    def test_weights_go_to_the_methods_that_take_them(self):
        item = plan.Item(0, "q", "q", ("x", "y", "z"), ("a",))
        made = plan.Plan(plan.Frame(), chorus.Fusion(), chorus.Sampling(), chorus.Stopping(), weights={"q": [0.0, 1.0, 0.5]})
        for variant in plan.make_variants(list(chorus.Method), [chorus.Positions.OVERLAPPING]):
            weighted = variant.name in ("logit_mean", "prob_mean")
            self.assertEqual((0.0, 1.0, 0.5) if weighted else (), made.request(item, variant).fusion.weights)
            self.assertEqual((0.0, 0.5) if weighted else (), made.request(item, variant, 1).fusion.weights)

    def test_paraphrases_are_cleaned_and_new(self):
        question = data.Question("q", "Who is it?", ("Name them.",), ("x",), 1)
        texts = ['"Who is that?"', "Question: who IS it?", "", "name them?", "It is him.",
                 "Who " * 20 + "?", "\n- Who could it be?\nmore", "Extra?"]
        self.assertEqual(("Who is that?", "Who could it be?"), paraphrasing.choose(question, texts, 2))


def number_answer(request):
    """Right for the question's own wording and by every fused method, wrong for "Say ...": the last
    paraphrase."""
    return [prompt.rstrip("?.").rsplit(" ", 1)[-1] if "Say" not in prompt else "none" for prompt in prompts_of(request)]


class RunTest(Folder):
    def setUp(self):
        super().setUp()
        self.data = self.write("data.jsonl", lines(QUESTIONS))
        self.output = self.folder / "out"

    def run_eval(self, target, *arguments, output=None):
        return self.eval("--server", target, "--data", self.data, "--output", output or self.output, *arguments)

    def records(self, output=None):
        return [json.loads(line) for line in ((output or self.output) / "results.jsonl").read_text().splitlines()]

    def test_a_run_writes_everything(self):
        with serve(FakeService(number_answer)) as target:
            code, out, err = self.run_eval(target, "--methods", "attention,per_prompt", "--lemmatize",
                                           "--positions", "overlapping,sequential", "--consistency", "2")
        self.assertEqual(0, code, err)
        records = self.records()
        self.assertEqual([(m, i) for m in ("attention", "attention_sequential", "per_prompt") for i in range(12)],
                         [(record["method"], record["index"]) for record in records])
        document = json.loads((self.output / "summary.json").read_text())["methods"]
        self.assertEqual(1.0, document["attention"]["accuracy"]["exact"]["mean"])
        self.assertAlmostEqual(2 / 3, document["per_prompt"]["accuracy"]["lemma"]["mean"])
        self.assertAlmostEqual(1 / 3, document["per_prompt"]["consistency"])
        self.assertAlmostEqual(3 / 7, document["attention"]["cached_share"])
        self.assertIn("| attention | 1.000 [1.000, 1.000] |", out)
        self.assertIn("+0.333", (self.output / "summary.md").read_text())
        for name in ("accuracy", "differences", "cost"):
            self.assertTrue((self.output / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG"))
        page = (self.output / "report.html").read_text()
        self.assertEqual(3, page.count("<svg"))
        for fetch in ("<script", "src=", "href=\"http", "@import", "<link"):
            self.assertNotIn(fetch, page)

    def test_answers_of_other_options_are_not_taken_for_these(self):
        service = FakeService(number_answer)
        with serve(service) as target:
            asked = []
            for arguments in (("--limit", 4), ("--limit", 6), ("--limit", 6, "--max-new-tokens", 3), ("--limit", 6)):
                before = len(service.requests)
                self.assertEqual(0, self.run_eval(target, "--methods", "vote", "--no-figures", *arguments)[0])
                asked.append(sum(request.DESCRIPTOR.name == "GenerateRequest" for request in service.requests[before:]))
        self.assertEqual([4, 2, 6, 0], asked)
        self.assertEqual(6, len(self.records()))

    def test_another_model_is_refused(self):
        service = FakeService(number_answer)
        with serve(service) as target:
            self.run_eval(target, "--methods", "vote", "--limit", 1, "--no-figures")
            service.model_name = "other"
            code, _, err = self.run_eval(target, "--methods", "vote", "--no-figures")
        self.assertEqual(1, code)
        self.assertIn("name is 'other'", err)

    def test_malformed_data_is_refused_and_skipped(self):
        bad = ['{"question": "q"}\n', "{\n", lines([{**QUESTIONS[2], "id": "short", "paraphrases": []}])]
        self.data.write_text(bad[0] + lines(QUESTIONS[:2]) + bad[1] + bad[2])
        service = FakeService(number_answer)
        with serve(service) as target:
            code, _, err = self.run_eval(target, "--methods", "vote")
            self.assertEqual((2, []), (code, service.requests))
            for words in ("data.jsonl:1: answers: is missing", "data.jsonl:4: is not JSON",
                          "data.jsonl:5: paraphrases: 0 is not valid", "3 malformed"):
                self.assertIn(words, err)
            code, _, err = self.run_eval(target, "--methods", "vote", "--skip-bad", "--no-figures")
        self.assertEqual(0, code, err)
        self.assertIn("left out 3 malformed", err)
        self.assertEqual(3, json.loads((self.output / "run.json").read_text())["bad_records"])
        self.assertEqual(["q0", "q1"], [record["id"] for record in self.records()])

    def test_a_refused_request_is_counted_and_the_rest_answered(self):
        service = FakeService(number_answer)
        with serve(service) as target:
            self.run_eval(target, "--methods", "vote", "--limit", 1, "--no-figures")
            service.failures = [None, busy(), bad_field("prompt", "9000 tokens is not valid: 8192")]
            code, _, err = self.run_eval(target, "--methods", "vote", "--concurrency", 1, "--no-figures")
            self.assertEqual(1, code)
            self.assertIn("1 without an answer", err)
            self.assertEqual((11, "prompt"), (sum("answer" in r for r in self.records()),
                                              next(r for r in self.records() if "error" in r)["error"]["field"]))
            self.assertEqual(0, self.run_eval(target, "--methods", "vote", "--no-figures")[0])

    def test_confidence_weights(self):
        def unsure(request):
            right = number_answer(request)
            return right if not request.sampling.seed % 2 else [right[0], "x", *right[2:]]
        service = FakeService(unsure)
        with serve(service) as target:
            code, _, err = self.run_eval(target, "--methods", "logit_mean,attention", "--weights", "confidence",
                                         "--confidence-samples", 8, "--no-figures")
        self.assertEqual(0, code, err)
        weights = [record["weights"] for record in self.records() if record["method"] == "logit_mean"]
        self.assertEqual({(1.0, 1.0)}, {(w[0], w[2]) for w in weights})
        self.assertTrue(0 < sum(w[1] for w in weights) < 12)
        self.assertNotIn("weights", self.records()[-1])

    def test_paraphrases_by_the_model(self):
        self.data.write_text(lines([{**question, "paraphrases": []} for question in QUESTIONS]))

        def reword(request):
            [*prompts] = prompts_of(request)
            return [f"Rewording {request.sampling.seed % 1000}?"] if "other words" in prompts[0] else number_answer(request)
        with serve(FakeService(reword)) as target:
            code, _, err = self.run_eval(target, "--methods", "vote", "--make-paraphrases", 2, "--no-figures")
        self.assertEqual(0, code, err)
        self.assertEqual({3}, {len(record["prompts"]) for record in self.records()})
        made, errors = data.load_questions(self.output / "paraphrases.jsonl")
        self.assertEqual((12, []), (len(made), errors))

    def test_rescore_and_compare(self):
        with serve(FakeService(number_answer)) as target:
            self.run_eval(target, "--methods", "attention,per_prompt", "--no-figures")
        other = self.folder / "other"
        self.assertEqual(0, self.eval("rescore", self.output, "--lemmatize", "--output", other, "--no-figures")[0])
        self.assertEqual({"exact", "contains", "lemma", "f1"}, set(self.records(other)[0]["scores"]))
        self.assertNotIn("lemma", self.records()[0]["scores"])
        code, out, _ = self.eval("compare", self.output, other, "--json")
        found = json.loads(out)
        self.assertEqual((0, 12, 0.0), (code, found["questions"], found["rows"][0]["b_minus_a"]["mean"]))
        code, _, err = self.eval("compare", self.output, other, "--metric", "lemma")
        self.assertEqual(2, code)
        self.assertIn("rescore --lemmatize", err)
        self.assertEqual(2, self.eval("rescore", self.folder / "nowhere")[0])

    def test_bad_options_exit_2_and_name_themselves(self):
        for arguments in (["--methods", "mean"], ["--num-paraphrases", "-1"], ["--indexes", "0,0"], ["--weights", "a,b"],
                          ["--prompt-format", "Q"], ["--limit", "0"], ["--metric", "lemma"], ["--weights", "nan"],
                          ["--token-file", self.folder / "none"], ["--tls-key", "k"]):
            code, _, err = self.run_eval("127.0.0.1:1", *arguments)
            self.assertEqual(2, code, arguments)
            self.assertRegex(err, f"{arguments[0]}|private_key|No such file")
        with serve(FakeService()) as target:
            code, _, err = self.run_eval(target, "--weights", "1,2")
        self.assertEqual(2, code)
        self.assertIn("--weights: 2 numbers are not valid: question q0 has 3 prompts", err)

    def test_help_teaches_every_option(self):
        for command, parser in options.make_parser()._subparsers._group_actions[0].choices.items():
            self.assertEqual([], [action.dest for action in parser._actions if not action.help and action.option_strings])
            code, out, _ = self.eval(command, "--help")
            self.assertEqual((0, True), (code, "chorus-eval" in out))


class KillTest(Folder):
    """Real processes, really killed."""

    def command(self, target, output, data_file):
        return [sys.executable, "-m", "chorus_eval.cli", "--server", target, "--data", str(data_file), "--output",
                str(output), "--methods", "attention,vote", "--concurrency", "2", "--no-figures", "--make-paraphrases",
                "3", "--weights", "confidence"]

    def wait_for_lines(self, path, number, process):
        deadline = time.monotonic() + 60
        while not path.exists() or path.read_bytes().count(b"\n") < number:
            self.assertIsNone(process.poll(), "it ended before it could be killed")
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.01)

    def test_kill_9_and_again_gives_the_file_of_an_unbroken_run(self):
        data_file = self.write("data.jsonl", lines(QUESTIONS))
        with serve(FakeService(number_answer, delay=0.02)) as target:
            whole = self.folder / "whole"
            subprocess.run(self.command(target, whole, data_file), check=True, capture_output=True, timeout=120)
            broken = self.folder / "broken"
            for number in (3, 14, 23):
                process = subprocess.Popen(self.command(target, broken, data_file), stdout=subprocess.DEVNULL,
                                           stderr=subprocess.DEVNULL)
                self.wait_for_lines(broken / "journal.jsonl", number, process)
                process.send_signal(signal.SIGKILL)
                process.wait()
                self.assertFalse((broken / "results.jsonl").exists())
            subprocess.run(self.command(target, broken, data_file), check=True, capture_output=True, timeout=120)
        for name in ("results.jsonl", "run.json", "paraphrases.jsonl"):
            self.assertEqual((whole / name).read_bytes(), (broken / name).read_bytes(), name)
        keys = [json.loads(line)["request"] for line in (broken / "journal.jsonl").read_text().splitlines()]
        self.assertEqual(len(keys), len(set(keys)), "no answer twice")

    def test_a_server_that_dies_and_comes_back(self):
        data_file = self.write("data.jsonl", lines(QUESTIONS))
        output = self.folder / "out"
        with serve(FakeService(number_answer, delay=0.02)) as target:
            process = subprocess.Popen(self.command(target, output, data_file), stdout=subprocess.DEVNULL,
                                       stderr=subprocess.PIPE, text=True)
            self.wait_for_lines(output / "journal.jsonl", 10, process)
        with serve(FakeService(number_answer), port=int(target.rsplit(":", 1)[1])):
            _, err = process.communicate(timeout=120)
        self.assertEqual(0, process.returncode, err)
        self.assertIn("the server is gone", err)
        self.assertEqual(24, len((output / "results.jsonl").read_text().splitlines()))


if __name__ == "__main__":
    os.environ["NO_COLOR"] = "1"
    unittest.main(verbosity=2)
