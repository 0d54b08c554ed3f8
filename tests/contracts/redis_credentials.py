"""Credentials as an identity provider streams them, for clients that authenticate again while they are connected."""

from __future__ import annotations

from typing import Any

from redis.credentials import StreamingCredentialProvider


class Streaming(StreamingCredentialProvider):
    """Renews its token when ``renew`` is called, from whatever thread that is."""

    def __init__(self) -> None:
        self.renew: Any = None

    def on_next(self, callback: Any) -> None:
        self.renew = callback

    def on_error(self, callback: Any) -> None:
        pass

    def is_streaming(self) -> bool:
        return True

    def get_credentials(self) -> tuple[str, str]:
        return "default", "pw"

    async def get_credentials_async(self) -> tuple[str, str]:
        return "default", "pw"
