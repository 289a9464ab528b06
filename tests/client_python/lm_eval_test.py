#!/usr/bin/env python3
"""The model `chorus` of lm-evaluation-harness, with the real lm_eval, against a service in Python.

    PYTHONPATH=client/python .venv-lm-eval/bin/python tests/client_python/lm_eval_test.py
"""
import dataclasses
import json
import os
import pathlib
import sqlite3
import tempfile
import time
import types
import unittest

CACHE = tempfile.TemporaryDirectory()
os.environ.update(HF_HOME=CACHE.name, HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")  # nothing is downloaded

import lm_eval
from lm_eval.tasks import TaskManager

import chorus_client as chorus
from chorus_client.v1 import inference_pb2 as pb
from chorus_lm_eval.chat import ChatTemplate
from chorus_lm_eval.errors import OptionError
from chorus_lm_eval.generation import make_generation
from chorus_lm_eval.model import ChorusLM
from chorus_lm_eval.options import parse_options
from chorus_lm_eval.tokens import common_length, fit
from chorus_lm_eval.wordings import Questions, group_wordings
from fake_server import FakeService, fail, rpc_status, serve

ROOT = pathlib.Path(__file__).resolve().parents[2]
TASKS = ROOT / "tests" / "data" / "lm_eval"
QUESTIONS = [json.loads(line) for line in (ROOT / "tests" / "data" / "qa.jsonl").read_text().splitlines()]
CHOICES = ["qa_choice_wording-0", "qa_choice_wording-1", "qa_choice_wording-2"]
WORDINGS = "paraphrase_tasks=_wording-[0-9]+"


def text_of(segment):
    return "".join(map(chr, segment.token_ids))


class Service(FakeService):
    """Token ids are characters. Knows the right answers; `broken_after`: calls until it breaks."""

    def __init__(self, broken_after=None, **options):
        super().__init__(answer=lambda request: [self.answer_to(request)], **options)
        self.broken_after = broken_after
        self.right = {wording: record["answers"][0] for record in QUESTIONS
                      for wording in (record["question"], *record["paraphrases"])}

    def question_of(self, prompt):
        last = text_of(prompt.segments[0]).rpartition("Q: ")[2]
        return last.partition("\n")[0]

    def answer_to(self, request):
        return f" {self.right[self.question_of(request.prompt.tokens)].upper()}\nQ: more"

    def take(self, request, context):
        failure = super().take(request, context)
        if self.broken_after is not None and len(self.requests) > self.broken_after:
            return rpc_status(13, "broken by plan")
        return failure

    def Score(self, request, context):
        failure = self.take(request, context)
        if failure is not None:
            fail(context, failure)
        time.sleep(self.delay)
        right = self.right.get(self.question_of(request.prompt.tokens))
        response = pb.ScoreResponse()
        for item in request.continuations:
            is_right = text_of(item.tokens) == f" {right}"
            response.scores.add(logprob=-1.0 if is_right else -2.0 - len(item.tokens.token_ids), is_greedy=is_right)
        return response

    def Tokenize(self, request, context):
        if request.recognize_special and request.text == "<end>":
            return pb.TokenizeResponse(token_ids=[2])
        return super().Tokenize(request, context)

    def GetModelInfo(self, request, context):
        return pb.GetModelInfoResponse(name="fake", vocab_size=1 << 16, eos_token_ids=[2], named_bos_token_id=1,
                                       context_length=2048, max_request_tokens=4096, kv_slots=4096, max_continuations=3)


def evaluate(target, tasks, model_args="", limit=6, **options):
    manager = TaskManager(include_path=str(TASKS), include_defaults=False)
    return lm_eval.simple_evaluate(model="chorus", model_args=f"target={target},{model_args}", tasks=tasks, limit=limit,
                                   task_manager=manager, bootstrap_iters=0, **options)


def instance(task, doc_id, args, idx=0):
    return types.SimpleNamespace(task_name=task, doc_id=doc_id, idx=idx, args=args)


class EvaluateTest(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)

    def test_choices_of_one_question_go_in_few_calls(self):
        service = Service()
        with serve(service) as target:
            results = evaluate(target, [CHOICES[0]], "method=logit_mean")
        self.assertEqual(1.0, results["results"][CHOICES[0]]["acc,none"])
        self.assertEqual(12, len(service.requests), "four choices, three a call")
        self.assertEqual({1, 3}, {len(request.continuations) for request in service.requests})
        self.assertEqual({pb.FUSION_METHOD_LOGIT_MEAN}, {request.fusion.method for request in service.requests})
        context = text_of(service.requests[0].prompt.tokens.segments[0])
        self.assertTrue(context.startswith("Q: What is the capital of Norway?\nA: Oslo\n\n") and context.endswith("\nA:"))

    def test_tasks_are_wordings_of_one_question(self):
        service = Service()
        with serve(service) as target:
            results = evaluate(target, ["qa_choice"], f"{WORDINGS},shared_prefix=true,shared_suffix=true")
        self.assertEqual({1.0}, {results["results"][task]["acc,none"] for task in (*CHOICES, "qa_choice")})
        self.assertEqual(12, len(service.requests))
        for request in service.requests:
            prompt = request.prompt.tokens
            wordings = [text_of(prompt.prefix) + text_of(s) + text_of(prompt.suffix) for s in prompt.segments]
            record = next(r for r in QUESTIONS if f"Q: {r['question']}\nA:" in wordings[0])
            self.assertEqual([record["question"], *record["paraphrases"][:2]],
                             [wording.rpartition("Q: ")[2].removesuffix("\nA:") for wording in wordings])
            self.assertTrue(text_of(prompt.prefix).startswith("Q: What is the capital of Norway?"))
            self.assertTrue(text_of(prompt.suffix).endswith("\nA:"))

    def test_per_prompt_fuses_nothing(self):
        service = Service()
        with serve(service) as target:
            evaluate(target, CHOICES, f"{WORDINGS},method=per_prompt", limit=2)
        self.assertEqual(12, len(service.requests))
        self.assertEqual({1}, {len(request.prompt.tokens.segments) for request in service.requests})

    def test_answers_end_where_the_task_says(self):
        service = Service()
        with serve(service) as target:
            results = evaluate(target, ["qa_answer"], f"{WORDINGS},method=vote")
        self.assertEqual({1.0}, {results["results"][f"qa_answer_wording-{n}"]["exact_match,stripped"] for n in (0, 1, 2)})
        self.assertEqual((6, 1), (len(service.requests), service.num_streams))
        stopping = service.requests[0].stopping
        self.assertEqual((12, ["\n"]), (stopping.max_new_tokens, list(stopping.stop)))
        self.assertFalse(service.requests[0].sampling.HasField("temperature"))

    def test_rolling_windows_are_those_of_lm_eval(self):
        service = Service()
        with serve(service) as target:
            results = evaluate(target, ["qa_perplexity"], f"max_length=16,{WORDINGS}", limit=3)
        texts = {sample["arguments"][0][0] for sample in results["samples"]["qa_perplexity"]}
        self.assertEqual(3, len(texts))
        num_tokens = sum(len(item.tokens.token_ids) for request in service.requests for item in request.continuations)
        self.assertEqual(sum(map(len, texts)), num_tokens, "each character is scored once")
        for request in service.requests:
            context = request.prompt.tokens.segments[0].token_ids
            for item in request.continuations:
                self.assertLessEqual(len(context) + len(item.tokens.token_ids), 17)
        self.assertIn([1], [list(request.prompt.tokens.segments[0].token_ids) for request in service.requests])

    def test_a_stopped_run_goes_on_where_it_was(self):
        for task, arguments, total in ((CHOICES[0], "concurrency=1", 18), ("qa_choice", f"{WORDINGS},concurrency=1", 18),
                                       ("qa_answer_wording-0", "concurrency=1", 9)):
            with self.subTest(task), serve(service := Service(broken_after=7, delay=0.02)) as target:
                cache = str(self.folder / task)
                with self.assertRaisesRegex(chorus.Internal, "broken by plan"):
                    evaluate(target, [task], arguments, limit=9, use_cache=cache)
                service.broken_after, asked = None, len(service.requests)
                results = evaluate(target, [task], arguments, limit=9, use_cache=cache)
                self.assertEqual(total - 7, len(service.requests) - asked)
                whole = evaluate(target, [task], arguments, limit=9)
                self.assertEqual(whole["results"], results["results"])

    def test_a_question_half_in_the_cache_is_not_asked_again(self):
        service, cache = Service(), str(self.folder / "cache")
        with serve(service) as target:
            whole = evaluate(target, ["qa_choice"], WORDINGS, limit=2, use_cache=cache)
            answered = len(service.requests)
            with sqlite3.connect(f"{cache}_rank0.db") as database:
                # The last wording of the last choice, as if the run had been killed before it.
                database.execute("DELETE FROM unnamed WHERE rowid = (SELECT max(rowid) FROM unnamed)")
            again = evaluate(target, ["qa_choice"], WORDINGS, limit=2, use_cache=cache)
        self.assertEqual(answered, len(service.requests))
        self.assertEqual(whole["results"], again["results"])


class ModelTest(unittest.TestCase):
    def model(self, service, **model_args):
        return ChorusLM(target=self.enterContext(serve(service)), **model_args)

    def test_spaces_and_empty_contexts_go_as_in_the_hugging_face_model(self):
        service = Service()
        model = self.model(service)
        model.loglikelihood([instance("t", 0, ("a b ", "c")), instance("t", 1, ("", "xy")), instance("t", 2, ("", "\1z"))],
                            disable_tqdm=True)
        asked = {(text_of(request.prompt.tokens.segments[0]), text_of(item.tokens))
                 for request in service.requests for item in request.continuations}
        self.assertEqual({("a b", " c"), ("\1", "xy"), ("\1", "z")}, asked)

    def test_long_contexts_lose_their_left_end(self):
        service = Service()
        model = self.model(service, max_length=8)
        model.loglikelihood([instance("t", 0, ("0123456789", " ab"))], disable_tqdm=True)
        self.assertEqual("456789", text_of(service.requests[0].prompt.tokens.segments[0]))
        with self.assertRaisesRegex(OptionError, "max_length is 8"):
            model.loglikelihood([instance("t", 0, ("0", "123456789"))], disable_tqdm=True)

    def test_a_continuation_without_tokens_is_named(self):
        with self.assertRaisesRegex(OptionError, "t: document 4: the continuation ''"):
            self.model(Service()).loglikelihood([instance("t", 4, ("a", ""))], disable_tqdm=True)

    def test_wordings_must_agree(self):
        model = self.model(Service(), paraphrase_tasks="-[0-9]")
        for requests, words in (
                ([instance("t-1", 0, ("a", " b")), instance("t-2", 0, ("c", " d"))], "continuation of document 0 is ' b'"),
                ([instance("t-1", 0, ("a", " b")), instance("t-2", 1, ("c", " b"))], "in t-1, not in t-2")):
            with self.assertRaisesRegex(OptionError, words):
                model.loglikelihood(requests, disable_tqdm=True)
        with self.assertRaisesRegex(OptionError, "generation_kwargs of document 0"):
            model.generate_until([instance("t-1", 0, ("a", {"until": ["x"]})), instance("t-2", 0, ("b", {"until": ["y"]}))],
                                 disable_tqdm=True)

    def test_space_may_stand_on_either_side(self):
        service = Service()
        model = self.model(service, paraphrase_tasks="-[0-9]")
        model.loglikelihood([instance("t-1", 0, ("a: ", "b")), instance("t-2", 0, ("c", " b"))], disable_tqdm=True)
        self.assertEqual(["a:", "c"], [text_of(s) for s in service.requests[0].prompt.tokens.segments])

    def test_repeated_draws_differ_and_can_be_repeated(self):
        seeds = []
        for _ in range(2):
            service = Service()
            self.model(service, seed=3).generate_until(
                [instance("t", 0, (f"Q: {QUESTIONS[0]['question']}\nA:", {"do_sample": True, "temperature": 0.7}))] * 3,
                disable_tqdm=True)
            seeds.append(sorted(request.sampling.seed for request in service.requests))
        self.assertEqual(seeds[0], seeds[1])
        self.assertEqual(3, len(set(seeds[0])))

    def test_weights_need_a_number_for_each_wording(self):
        model = self.model(Service(), method="logit_mean", weights="2:1:1", paraphrase_tasks="-[0-9]")
        with self.assertRaisesRegex(OptionError, "weights: 3 numbers are not valid for 2 wordings"):
            model.loglikelihood([instance("t-1", 0, ("a", " b")), instance("t-2", 0, ("c", " b"))], disable_tqdm=True)

    def test_chat_templates_need_a_folder(self):
        with self.assertRaisesRegex(OptionError, "tokenizer: needed for --apply_chat_template"):
            self.model(Service()).apply_chat_template([{"role": "user", "content": "hi"}])

    def test_no_server_is_said_at_once(self):
        with self.assertRaises(chorus.Unavailable):
            ChorusLM(target="127.0.0.1:1")


class OptionsTest(unittest.TestCase):
    def test_refused_ones_are_named(self):
        for arguments, words in (
                ({"methd": "vote"}, "methd: no option of the model chorus; did you mean method?"),
                ({"method": "mean"}, "method: 'mean' is not valid: one of attention, logit_mean"),
                ({"method": "vote", "positions": "sequential"}, "positions: sequential is not valid: method=attention alone"),
                ({"method": "vote", "weights": "1:1", "paraphrase_tasks": "x"}, "weights: not valid with method=vote"),
                ({"weights": "1:x"}, "weights: '1:x' is not valid"), ({"weights": "1:1"}, "without paraphrase_tasks"),
                ({"attention_temperature": 0}, "attention_temperature: 0 is not valid: a finite number above 0"),
                ({"concurrency": "many"}, "concurrency: 'many' is not valid: an integer from 1"),
                ({"paraphrase_tasks": "("}, "paraphrase_tasks: '(' is not valid: a regular expression"),
                ({"shared_prefix": "perhaps"}, "shared_prefix: 'perhaps' is not valid: true or false"),
                ({"tokenizer": "/nowhere"}, "tokenizer: '/nowhere' is not valid")):
            with self.subTest(arguments), self.assertRaises(OptionError) as caught:
                parse_options(arguments)
            self.assertIn(words, str(caught.exception))

    def test_values_may_be_text_or_typed(self):
        for weights in ("2:1", [2, 1]):
            options = parse_options({"weights": weights, "method": "PROB_MEAN", "paraphrase_tasks": "x", "separator": "\\n",
                                     "batch_size": 1, "device": None})
            self.assertEqual(([2.0, 1.0], chorus.Method.PROB_MEAN), (options.fusion.weights, options.fusion.method))
            self.assertEqual("\n", options.separator)


class PartsTest(unittest.TestCase):
    def test_gen_kwargs_are_mapped_or_refused(self):
        def made(**kwargs):
            return make_generation(kwargs, 99, lambda text: 2 if text == "<end>" else None)

        drawn = made(do_sample=True, top_p=0.9, top_k=5, max_new_tokens=7, until=["\n", "<end>", ""], num_beams=1)
        self.assertEqual((1.0, 0.9, 5), (drawn.sampling.temperature, drawn.sampling.top_p, drawn.sampling.top_k))
        self.assertEqual((7, ["\n"], [2]), (drawn.stopping.max_new_tokens, drawn.stopping.stop, drawn.stopping.stop_token_ids))
        greedy = made(do_sample=False, temperature=0.7, top_p=0.5, repetition_penalty=1.2)
        self.assertEqual((None, None, 1.2), dataclasses.astuple(greedy.sampling)[:2] + (greedy.sampling.repetition_penalty,))
        self.assertEqual((99, False, True), (greedy.stopping.max_new_tokens, greedy.is_drawn, made(temperature=0.3).is_drawn))
        many = made(until=[f"stop{n}" for n in range(20)])
        self.assertEqual((16, "a "), (len(many.stopping.stop), many.cut("a stop19 b")))
        for kwargs, name in (({"num_beams": 4}, "num_beams: 4"), ({"typical_p": 0.5}, "typical_p: 0.5")):
            with self.assertRaisesRegex(OptionError, f"gen_kwargs: {name} is not valid"):
                made(**kwargs)

    def test_fit_cuts_the_longest_first(self):
        contexts = [list(range(9)), list(range(4)), list(range(3))]
        self.assertEqual(contexts, fit(contexts, 9, 16))
        self.assertEqual([[4, 5, 6, 7, 8], [0, 1, 2, 3], [0, 1, 2]], fit(contexts, 5, 100))
        self.assertEqual([3, 3, 3], [len(context) for context in fit(contexts, 9, 10)])
        self.assertIsNone(fit(contexts, 9, 2))

    def test_common_length(self):
        self.assertEqual([2, 0, 1], [common_length(s) for s in (([1, 2, 3], [1, 2, 4, 5]), ([1], [2]), ([1], [1, 2]))])

    def test_repeats_are_questions_of_their_own(self):
        asked = [instance("t-1", 0, ("a",))] * 2 + [instance("t-2", 0, ("b",))] * 2
        questions = group_wordings(asked, parse_options({"paraphrase_tasks": "-[0-9]"}).paraphrase_tasks)
        self.assertEqual([((0, 2), 0), ((1, 3), 1)], [(question.indexes, question.repeat) for question in questions])

    def test_answers_come_back_in_the_order_of_requests(self):
        hook = types.SimpleNamespace(dbdict=None, add_partial=lambda *_: None)
        questions = Questions("generate_until", [instance("t", n, (str(n),)) for n in range(3)], None, hook)
        for index in (2, 0, 1):
            self.assertEqual(1, questions.answer(index, f"answer {index}"))
        self.assertEqual(["answer 0", "answer 1", "answer 2"], questions.answers)

    def test_chat_templates_are_rendered_as_transformers_does(self):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            template = ("{%- for m in messages %}\n    {%- if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
                        "<{{ m['role'] }}>{{ m['content'] }}{{ eos_token }}\n{% endfor %}"
                        "{% if add_generation_prompt %}<assistant>{% endif %}")
            (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template, "eos_token": {"content": "$"}}))
            chat = ChatTemplate(folder)
            messages = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}]
            self.assertEqual("<user>hi$\n<assistant>", chat.render(messages, True))
            messages.append({"role": "assistant", "content": "The answer is "})
            self.assertEqual("<user>hi$\n<assistant>The answer is ", chat.render(messages, False))
            (folder / "tokenizer_config.json").write_text("[]")
            with self.assertRaisesRegex(OptionError, "tokenizer: .* an object is needed"):
                ChatTemplate(folder)


if __name__ == "__main__":
    os.chdir(ROOT)  # the tasks name their data from here
    unittest.main(verbosity=2)
