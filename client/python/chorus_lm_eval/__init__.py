"""Chorus as a model of EleutherAI's lm-evaluation-harness.

    chorus-lm-eval --model chorus --model_args target=127.0.0.1:50051,method=attention --tasks ...

or `lm_eval.simple_evaluate(model="chorus", model_args=...)` after `import chorus_lm_eval.model`,
which registers it. `chorus-lm-eval --help` teaches the options.
"""
