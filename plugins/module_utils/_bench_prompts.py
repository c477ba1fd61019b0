# Copyright (c) 2026, hx_infra.llm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to hx_infra.llm: may change without notice.

"""The prompts of a benchmark, without a tokenizer.

A server that has seen the beginning of a prompt doesn't evaluate it again but counts it, which
flatters its first token. So each prompt begins with a text of its own, unless told otherwise.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

NONCE = "{nonce}"
# Everyday words: one token each, with the space before it, in most vocabularies.
WORDS = (
    "time",
    "year",
    "people",
    "way",
    "day",
    "man",
    "thing",
    "woman",
    "life",
    "child",
    "world",
    "school",
    "state",
    "family",
    "student",
    "group",
    "country",
    "problem",
    "hand",
    "part",
    "place",
    "case",
    "week",
    "company",
    "system",
    "program",
    "question",
    "work",
    "government",
    "number",
    "night",
    "point",
    "home",
    "water",
    "room",
    "mother",
    "area",
    "money",
    "story",
    "fact",
    "month",
    "lot",
    "right",
    "study",
    "book",
    "eye",
    "job",
    "word",
    "business",
    "issue",
    "side",
    "kind",
    "head",
    "house",
    "service",
    "friend",
    "father",
    "power",
    "hour",
    "game",
    "line",
    "end",
    "member",
    "law",
)


@dataclass(frozen=True)
class Prompts:
    """What to ask.

    Attributes:
        texts: templates, used in turn; ``{nonce}`` stands for a text unique to the request.
        tokens: instead of them, synthetic prompts of about this many tokens; 0 for none.
        run_id: the part of the unique text that is unique to the run.
        unique: whether prompts differ from request to request.
        words_per_token: words that make a token, as the server has counted so far.
        extra_tokens: tokens that the server counts besides, for its template and the unique text.
    """

    texts: Sequence[str] = ()
    tokens: int = 0
    run_id: str = ""
    unique: bool = True
    words_per_token: float = 1.0
    extra_tokens: float = 0.0

    def text(self, model: str, phase: str, number: int) -> str:
        """Return the prompt of a request."""
        nonce = f"{self.run_id}-{model}-{phase}-{number}" if self.unique else "benchmark"
        if self.tokens:
            return f"[{nonce}]{self._words(nonce)}"
        template = self.texts[(number - 1) % len(self.texts)]
        if NONCE in template:
            return template.replace(NONCE, nonce)
        return f"[{nonce}] {template}" if self.unique else template

    @property
    def words(self) -> int:
        """Return how many words a synthetic prompt has."""
        return max(1, round((self.tokens - self.extra_tokens) * self.words_per_token))

    def _words(self, nonce: str) -> str:
        draw = random.Random(nonce)  # noqa: S311 - filler, nothing secret
        return "".join(f" {word}" for word in draw.choices(WORDS, k=self.words))


def fitted(prompts: Prompts, probes: Sequence[tuple[int, int]]) -> Prompts:
    """Return prompts whose length fits what the server counted.

    Args:
        prompts: the prompts so far.
        probes: words sent and tokens counted, of one or two requests; two of different length
            separate what a word costs from what every prompt costs.
    """
    usable = [(words, tokens) for words, tokens in probes if words > 0 and tokens > 0]
    if not prompts.tokens or not usable:
        return prompts
    if len(usable) > 1 and usable[0][0] != usable[-1][0]:
        (few, least), (many, most) = min(usable), max(usable)
        per_word = (most - least) / (many - few)
        if per_word > 0:
            return replace(
                prompts,
                words_per_token=1 / per_word,
                extra_tokens=max(0.0, least - few * per_word),
            )
    words, tokens = usable[-1]
    return replace(prompts, words_per_token=words / tokens)
