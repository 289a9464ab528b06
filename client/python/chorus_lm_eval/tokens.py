"""Token ids by the server's own tokenizer, by the rules of lm_eval's Hugging Face model."""
from __future__ import annotations

import bisect
import concurrent.futures


class ServerTokenizer:
    """Spellings of special tokens become those tokens, as Hugging Face tokenizers do it. Ids are kept
    between `load` and `forget`."""

    def __init__(self, client, concurrency):
        self._client, self._concurrency = client, concurrency
        self._ids: dict[str, list[int]] = {}

    def load(self, texts):
        """Asks for many texts side by side."""
        missing = sorted({text for text in texts if text not in self._ids})
        with concurrent.futures.ThreadPoolExecutor(self._concurrency) as pool:
            self._ids.update(zip(missing, pool.map(self._ask, missing)))

    def forget(self):
        self._ids.clear()

    def encode(self, text) -> list[int]:
        ids = self._ids.get(text)
        return self._ask(text) if ids is None else list(ids)

    def special_token(self, text):
        """The id of the special token that `text` spells, or None."""
        ids = self.encode(text)
        plain = self._client.tokenize(text, recognize_special=False).token_ids if len(ids) == 1 else ids
        return None if list(plain) == ids else ids[0]

    def decode(self, ids) -> str:
        return self._client.detokenize(ids)

    def _ask(self, text):
        return list(self._client.tokenize(text, recognize_special=True).token_ids) if text else []


def fit(contexts, room, total_room):
    """`contexts`, each cut on the left to its last tokens: as many as each may have, the same number for
    all, so that none has more than `room` and all together not more than `total_room`. None if
    not even one token each fits."""
    limit = bisect.bisect_right(range(1, room + 1), total_room,
                                key=lambda limit: sum(min(len(context), limit) for context in contexts))
    return [context[-limit:] for context in contexts] if limit > 0 else None


def common_length(sequences):
    """How many leading tokens all sequences share."""
    length = 0
    for column in zip(*sequences):
        if len(set(column)) > 1:
            break
        length += 1
    return length
