"""Is an answer right: by four metrics, each 0..1, the best over the gold answers.

exact     the same text, but for case, punctuation, articles and space
contains  a gold answer is contained in it, ignoring case
lemma     the lemmas of a gold answer follow one another among its lemmas
f1        harmonic mean of precision and recall of its words, normalised as for exact
"""
from __future__ import annotations

import collections
import functools
import re
import unicodedata

METRICS = ("exact", "contains", "lemma", "f1")
_ARTICLES = {"a", "an", "the"}
_WORD = re.compile(r"\w+(?:['’]\w+)*")


class LemmatizerMissing(Exception):
    pass


class Lemmatizer:
    """Lemmas by simplemma's dictionary of one language, which lies in its package: no download."""

    def __init__(self, language="en"):
        try:
            import simplemma
        except ImportError:
            raise LemmatizerMissing("--lemmatize needs simplemma: python3 -m pip install 'chorus-client[eval]'") from None
        self._lemmatize = simplemma.lemmatize
        try:
            self._lemmatize("test", lang=language)
        except (ValueError, TypeError) as error:
            raise LemmatizerMissing(f"--language: {language!r} is not valid: {error}") from None
        self._language = language
        self.lemma = functools.lru_cache(maxsize=1 << 16)(self._lemma)

    def _lemma(self, word):
        return self._lemmatize(word, lang=self._language).casefold()

    def lemmas(self, text):
        return [self.lemma(word) for word in words(text)]


def first_line(text):
    """What of an answer counts: its first line that is not empty."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def words(text):
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def _content(text):
    """Words without articles; a text of articles alone keeps them."""
    everything = words(text)
    return [word for word in everything if word not in _ARTICLES] or everything


def exact(answer, gold):
    return float(_content(answer) == _content(gold))


def contains(answer, gold):
    return float(gold.lower() in answer.lower())


def f1(answer, gold):
    said, wanted = _content(answer), _content(gold)
    shared = sum((collections.Counter(said) & collections.Counter(wanted)).values())
    if not shared:
        return float(said == wanted)
    precision, recall = shared / len(said), shared / len(wanted)
    return 2 * precision * recall / (precision + recall)


def lemma_match(answer, gold, lemmatizer):
    said, wanted = lemmatizer.lemmas(answer), lemmatizer.lemmas(gold)
    if not wanted:
        return contains(answer, gold)
    return float(any(said[i:i + len(wanted)] == wanted for i in range(len(said) - len(wanted) + 1)))


class Scorer:
    """Scores by all metrics; lemma only with a lemmatizer. `whole` looks at the whole answer, not at
    its first line."""

    def __init__(self, lemmatizer=None, whole=False):
        self._lemmatizer, self._whole = lemmatizer, whole

    @property
    def metrics(self):
        return tuple(m for m in METRICS if m != "lemma" or self._lemmatizer is not None)

    def scored_text(self, text):
        return text.strip() if self._whole else first_line(text)

    def scores(self, text, answers):
        """{metric: 0..1} of one answer."""
        said = self.scored_text(text)
        functions = {"exact": exact, "contains": contains, "f1": f1,
                     "lemma": lambda answer, gold: lemma_match(answer, gold, self._lemmatizer)}
        return {metric: max(functions[metric](said, gold) for gold in answers) for metric in self.metrics}

    def form(self, text):
        """Two answers agree if their forms are equal: words (lemmas, with a lemmatizer) without
        articles, case and punctuation."""
        said = _content(self.scored_text(text))
        return tuple(said if self._lemmatizer is None else map(self._lemmatizer.lemma, said))


def agreement(forms):
    """Share of pairs of answers that agree, 0..1; None for fewer than two answers."""
    total = len(forms) * (len(forms) - 1) // 2
    if not total:
        return None
    return sum(n * (n - 1) // 2 for n in collections.Counter(forms).values()) / total


def confidence(greedy_form, sampled_forms):
    """Share of sampled answers that agree with the greedy one, 0..1."""
    return sum(form == greedy_form for form in sampled_forms) / len(sampled_forms)
