"""Bearer tokens with scopes. Only their digests are kept, and they are compared in constant time.

A line of the tokens' file is ``SCOPES TOKEN``, as in ``predict,feedback 3q2-7w…``; the environment variable holds the
same, separated by semicolons. Without any token predictions and feedback are open to all, and administration is closed.
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from slimline.endpoint.exchange import CLOSE, Exchange, RefusedError
from slimline.errors import ParamsError

SCOPES = ("predict", "feedback", "admin")
MIN_LENGTH = 16
CHALLENGE = {b"www-authenticate": b"Bearer"} | CLOSE


class Tokens:
    """Who may do what."""

    def __init__(self, text: str = "", file: str = "") -> None:
        self._scopes: list[tuple[bytes, frozenset[str]]] = []
        for number, line in enumerate(text.split(";"), 1):
            self._add(line, f"SLIMLINE_TOKENS, token {number}")
        if file:
            try:
                lines = Path(file).read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise ParamsError(f"SLIMLINE_TOKENS_FILE: {file}: can't be read ({type(error).__name__})") from None
            for number, line in enumerate(lines, 1):
                self._add(line.partition("#")[0], f"{file}, line {number}")

    def _add(self, line: str, where: str) -> None:
        """Take one ``SCOPES TOKEN``; no message shows the token."""
        if not line.strip():
            return
        scopes, _, token = line.strip().partition(" ")
        token = token.strip()
        if unknown := sorted(set(scopes.split(",")) - set(SCOPES)):
            known = ", ".join(SCOPES)
            hint = "" if token else "; expected SCOPES TOKEN"
            raise ParamsError(f"{where}: {len(unknown)} of its scopes are unknown; the scopes are {known}{hint}")
        if len(token) < MIN_LENGTH or not token.isascii() or " " in token:
            raise ParamsError(f"{where}: a token is one ASCII word of at least {MIN_LENGTH} characters")
        self._scopes.append((_digest(token.encode()), frozenset(scopes.split(","))))

    def require(self, exchange: Exchange, scope: str) -> None:
        """Raise RefusedError 401 without a known token, 403 when it lacks ``scope``."""
        if not self._scopes:
            if scope == "admin":
                raise RefusedError(403, "administration needs a token with the scope admin, and none is set", CLOSE)
            return
        kind, _, token = exchange.headers.get(b"authorization", b"").partition(b" ")
        granted: frozenset[str] | None = None
        given = _digest(token.strip()) if kind.lower() == b"bearer" else b""
        for known, scopes in self._scopes:  # all of them, so that the time says nothing
            if hmac.compare_digest(known, given):
                granted = scopes
        if granted is None:
            raise RefusedError(401, "a bearer token is needed in the header authorization", CHALLENGE)
        if scope not in granted:
            raise RefusedError(403, f"the token lacks the scope {scope}", CLOSE)


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
