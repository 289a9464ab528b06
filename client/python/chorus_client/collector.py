"""Gathers the events of one answer: prompt_info, chunks, finish."""
from __future__ import annotations

from chorus_client import types as t
from chorus_client.convert import from_message
from chorus_client.errors import Internal


class Collector:
    def __init__(self):
        self.prompt_info: t.PromptInfo | None = None
        self.chunks: list[t.TokenChunk] = []
        self.finish: t.FinishInfo | None = None

    def add(self, response) -> t.TokenChunk | None:
        """Takes a GenerateResponse; its chunk if it is one. A kind of event that this client does not
        know yet is passed over."""
        event = response.WhichOneof("event")
        if event == "chunk":
            chunk = from_message(t.TokenChunk, response.chunk)
            self.chunks.append(chunk)
            return chunk
        if event == "prompt_info":
            self.prompt_info = from_message(t.PromptInfo, response.prompt_info)
        elif event == "finish":
            self.finish = from_message(t.FinishInfo, response.finish)
        return None

    def answer(self) -> t.Answer:
        if self.prompt_info is None or self.finish is None:
            raise Internal("the stream ended without its first or last message")
        return t.Answer(self.prompt_info, tuple(self.chunks), self.finish)
