"""The chat template of a model's folder. Transformers would do it too, but is 100 MB that nothing else
here needs; Jinja comes with lm_eval."""
from __future__ import annotations

import datetime
import json

import jinja2
import jinja2.ext
import jinja2.sandbox

from chorus_lm_eval.errors import OptionError


class ChatTemplate:
    """Of `folder`: chat_template.jinja, or chat_template of tokenizer_config.json."""

    def __init__(self, folder):
        self._config = self._read_config(folder)
        self.bos_token, self.eos_token = self._token("bos_token"), self._token("eos_token")
        path = folder / "chat_template.jinja"
        self.text = path.read_text(encoding="utf-8") if path.is_file() else self._from_config()
        self._template = None

    def _read_config(self, folder):
        path = folder / "tokenizer_config.json"
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise OptionError(f"model_args: tokenizer: {str(path)!r} is not valid: {error}") from None
        if not isinstance(config, dict):
            raise OptionError(f"model_args: tokenizer: {str(path)!r} is not valid: an object is needed")
        return config

    def _token(self, name):
        token = self._config.get(name)
        return (token.get("content") if isinstance(token, dict) else token) or ""

    def _from_config(self):
        found = self._config.get("chat_template")
        if isinstance(found, list):
            named = {item["name"]: item["template"] for item in found}
            found = named.get("default")
        return found

    def render(self, messages, add_generation_prompt):
        """The conversation as text. Without `add_generation_prompt` its last message is left open: the
        text ends with it."""
        if self.text is None:
            raise OptionError("model_args: tokenizer: the folder holds no chat template")
        if self._template is None:
            try:
                self._template = _environment().from_string(self.text)
            except jinja2.exceptions.TemplateError as error:
                raise OptionError(f"model_args: tokenizer: the chat template cannot be used: {error}") from None
        try:
            text = self._fill(messages, add_generation_prompt)
        except jinja2.exceptions.TemplateError:
            # As lm_eval's Hugging Face model: some templates refuse a system message.
            text = self._fill([m for m in messages if m["role"] != "system"], add_generation_prompt)
        return text if add_generation_prompt else _open_end(text, messages[-1]["content"])

    def _fill(self, messages, add_generation_prompt):
        return self._template.render(messages=messages, add_generation_prompt=add_generation_prompt,
                                     bos_token=self.bos_token, eos_token=self.eos_token)


def _open_end(text, last):
    """`text` up to the end of the last message, its trailing space with it where the template kept it."""
    begin, whole = text.rindex(last.strip()), last.lstrip()
    kept = whole if text[begin:].startswith(whole) else last.strip()
    return text[:begin + len(kept)]


def _environment():
    """As Transformers sets it up for templates: sandboxed, blocks trimmed, and what templates call."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols])

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return environment
