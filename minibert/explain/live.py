"""The page with a small server behind it that runs the model: parts taken out together, words replaced.

In:  a Model, a text.   Out: http://127.0.0.1:PORT, until Ctrl-C.

It listens on this machine alone, gives out the one page, and answers one question: what comes out with this
change? A request that another site makes the browser send is refused by its Host and Origin.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch

from ..batch import PackedBatch, pack
from ..errors import ConfigError, DataError, EnvironmentProblem, MiniBertError
from ..model import Model, evaluating
from . import explain, lens
from .changes import Change, applied, check
from .outcome import Outcome, plain, values
from .story import numbers, read

HOST = "127.0.0.1"
LARGEST = 100_000  # bytes of a question
KEYS = {"heads", "layers", "positions", "tokens"}


class Asked:
    """A model and its text, and what comes out when something of either is changed."""

    def __init__(self, model: Model, text: str, pair: str | None, max_tokens: int):
        self.model, self.lock = model, threading.Lock()
        self.batch, _ = read(model, text, pair, max_tokens)
        with evaluating(model):
            self.first: Outcome = plain(model, self.batch)

    def change(self, told: dict) -> dict:
        """{heads, layers, positions, tokens} -> {values, change, tokens, fills}; MiniBertError if it can't be."""
        asked = change_of(told)
        check(asked, self.model.encoder)
        batch = self.replaced(told.get("tokens", {}))
        with self.lock, evaluating(self.model), torch.inference_mode():
            with applied(self.model.encoder, asked):
                hidden = self.model.engine(batch)
            [found] = values(self.model, batch, self.first, hidden)
            return {
                "values": numbers(found),
                "change": self.first.change(found),
                "tokens": self.model.tokenizer.tokens(batch.token_ids.tolist()),
                "fills": lens.fills(self.model, batch, hidden),
            }

    def replaced(self, words: dict[str, str]) -> PackedBatch:
        """The text with other words at some places, each a single token of the vocabulary."""
        ids = self.batch.token_ids.tolist()
        if not isinstance(words, dict):
            raise DataError('tokens must be a table of places and words, {"3": "river"}')
        for place, word in words.items():
            if not str(place).isdecimal() or int(place) >= len(ids):
                raise DataError(
                    f"the text has no token {place!r}", f"Its tokens count from 0 to {len(ids) - 1}."
                )
            ids[int(place)] = self.token(word)
        return pack([ids], [self.batch.segments.tolist()]).to(self.model.device)

    def token(self, word: str) -> int:
        """The id of a word that is one token: as it is written in the vocabulary, or as a text gives it."""
        if not isinstance(word, str) or not word.strip():
            raise DataError("a word must be given for the token")
        tokenizer = self.model.tokenizer
        known = tokenizer.backend.token_to_id(word.strip())
        if known is not None:
            return known
        [ids] = tokenizer.batch([word])
        if len(ids) != 1:
            pieces = " ".join(tokenizer.tokens(ids))
            raise DataError(f"{word!r} is {len(ids)} tokens: {pieces}", "Take a word that is one.")
        return ids[0]


def change_of(told: object) -> Change:
    """A question as it comes, checked: ConfigError where it is none."""
    if not isinstance(told, dict) or set(told) - KEYS:
        raise ConfigError(f"a change has the keys {', '.join(sorted(KEYS))}")
    heads, layers, positions = told.get("heads", []), told.get("layers", []), told.get("positions", False)
    whole = isinstance(heads, list) and isinstance(layers, list) and isinstance(positions, bool)
    pairs = whole and all(isinstance(pair, list) and len(pair) == 2 for pair in heads)
    counted = pairs and all(type(x) is int for x in [*layers, *(x for pair in heads for x in pair)])
    if not counted:
        raise ConfigError(
            'a change is {"heads": [[layer, head], ...], "layers": [...], "positions": true or false}'
        )
    return Change(tuple((layer, head) for layer, head in heads), tuple(layers), positions)


def serve(
    model: Model,
    text: str,
    pair: str | None = None,
    *,
    max_tokens: int,
    port: int = 0,
    say: Callable[[str], None],
) -> None:
    """Serve until Ctrl-C."""
    page = partial(explain, model, text, pair, max_tokens=max_tokens, live=True)
    with server(model, text, pair, page, max_tokens=max_tokens, port=port) as found:
        say(f"http://{HOST}:{found.server_address[1]}   (Ctrl-C ends it)")
        with contextlib.suppress(KeyboardInterrupt):  # the ordinary end
            found.serve_forever()


def server(
    model: Model, text: str, pair: str | None, page: Callable[[], str], *, max_tokens: int, port: int = 0
) -> ThreadingHTTPServer:
    """A server for one page, not yet running; port 0: any that is free. EnvironmentProblem where it is taken."""
    asked = Asked(model, text, pair, max_tokens)
    shown = page().encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.from_here():
                found = self.path == "/"
                self.give(200 if found else 404, "text/html; charset=utf-8", shown if found else b"")

        def do_POST(self) -> None:
            if not self.from_here():
                return
            try:
                size = int(self.headers.get("Content-Length", "0"))
                if self.path != "/change" or not 0 < size <= LARGEST:
                    raise ConfigError(f"POST /change takes up to {LARGEST:,} bytes of JSON")
                code, told = 200, asked.change(json.loads(self.rfile.read(size)))
            except MiniBertError as problem:
                code, told = 400, {"error": str(problem)}
            except (ValueError, RecursionError) as problem:
                code, told = 400, {"error": f"no JSON: {problem}"}
            self.give(code, "application/json", json.dumps(told).encode())

        def from_here(self) -> bool:
            """Whether the page itself asks: another site's request names another host or origin."""
            here = f"{HOST}:{self.server.server_address[1]}"
            mine = (
                self.headers.get("Host") == here
                and self.headers.get("Origin", f"http://{here}") == f"http://{here}"
            )
            if not mine:
                self.give(403, "text/plain", b"")
            return mine

        def give(self, code: int, kind: str, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing is printed of a request."""

    try:
        return ThreadingHTTPServer((HOST, port), Handler)
    except (OSError, OverflowError) as problem:
        raise EnvironmentProblem(f"port {port} can't be opened: {problem}", "Take another --port.") from None
