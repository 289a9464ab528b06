"""The command chorus-lm-eval: lm_eval's own, which then knows the model `chorus`."""
from __future__ import annotations

import sys

import chorus_client as chorus

HELP = """\
chorus-lm-eval is lm-evaluation-harness's own command, lm_eval, with one model more: `chorus`, a Chorus
server. Everything that lm_eval takes may follow; `chorus-lm-eval run --help` lists it.

  chorus-lm-eval --model chorus --model_args target=127.0.0.1:50051 --tasks hellaswag
  chorus-lm-eval --model chorus --model_args method=attention,paraphrase_tasks=_prompt-[0-9]+ \\
      --tasks evalita-mp_te_prompt-1,evalita-mp_te_prompt-2

model_args, NAME=VALUE with commas between them; \\n and \\t are what they are in C:
  target=HOST:PORT        the server; default 127.0.0.1:50051
  method=NAME             attention (default), logit_mean, prob_mean, prob_max, logit_max, vote;
                          per_prompt: nothing is fused
  paraphrase_tasks=REGEX  tasks whose names differ only in what REGEX matches are wordings of one
                          question: asked as one, and each reports the fused answer. Without it every
                          request is a prompt of its own, and all methods say the same
  shared_prefix=true      what all wordings begin with (examples, say) stands once, seen by each
  shared_suffix=true      what all wordings end in stands once, and sees everything
  separator=TEXT          between wordings (attention)
  positions, separators, first_token, attention_temperature, attention_scale, segment_log_bias
                          of method=attention, as in the contract
  weights=2:1:1           one a wording, in the order of --tasks
  max_gen_toks=N          tokens of an answer whose task does not say; default 256
  max_length=N            longer contexts lose tokens on the left; default: what model and server take
  prefix_token_id=N       stands where there is no context; default: BOS, else EOS
  add_bos_token=BOOL      BOS before every text; default: as the model's tokenizer does
  tokenizer=FOLDER        the served model's folder: its template, for --apply_chat_template
  seed=N                  of drawn answers, each with one of its own; default 1234
  concurrency=N           requests at a time; default 16
  server_timeout=SECONDS  how long to wait for a server that is away; default 300
  tls=true, tls_roots=PEM, tls_key=PEM, tls_chain=PEM, token_file=FILE

--batch_size and --device mean nothing here. With --use_cache FILE a run that was stopped goes on where
it was; lm_eval knows an answer by its request's text alone, so another method needs another FILE. Exit codes: 0 done, 1 it failed, 2 an option is not valid.
"""


def main():
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(HELP, end="")
        return 0
    try:
        from lm_eval.__main__ import cli_evaluate

        import chorus_lm_eval.model  # noqa: F401 - registers the model
        from chorus_lm_eval.errors import OptionError
    except ModuleNotFoundError as error:
        if error.name != "lm_eval":
            raise
        print("error: lm_eval is not installed: python3 -m pip install 'chorus-client[lm-eval]'", file=sys.stderr)
        return 2
    try:
        cli_evaluate()
    except OptionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except chorus.ChorusError as error:
        print(f"error: {error}. With --use_cache, what is answered is kept", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
