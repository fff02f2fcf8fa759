"""A chat model behind an OpenAI-compatible address: prompts in, texts out.

The key is read from the environment; it stands in no file, parameter or message.
"""

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from es2.errors import UserError
from es2.progress import progress

ATTEMPTS = 6
LONGEST_WAIT = 60.0  # seconds between two attempts
TIMEOUT = 180.0  # seconds for one reply
BUSY = (408, 429, 500, 502, 503, 504)
DECLINED = (400, 413, 422)  # what servers say to one prompt that is too long, or that a filter stops
CHECK = "check the address, the model's name and the key"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follow no redirect: the key is meant for one host."""

    def redirect_request(self, *_: Any) -> None:
        return None


@dataclass(frozen=True)
class Endpoint:
    """One chat model: `url` of the interface (without /chat/completions), its name there, the length of its texts."""

    url: str
    model: str
    max_new_tokens: int
    key: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, row: Mapping[str, Any], max_new_tokens: int) -> "Endpoint":
        """The endpoint of a config row; UserError where the environment variable that it names holds no key."""
        variable = row.get("key_variable")
        return cls(row["url"].rstrip("/"), row["model"], max_new_tokens, read_key(variable) if variable else None)

    def say_all(self, prompts: Sequence[str], at_once: int) -> list[str]:
        """The model's text to each prompt, in their order, `at_once` requests at a time; "" where a reply has none.

        UserError where the address cannot be reached or turns every prompt away.
        """
        texts = []
        with ThreadPoolExecutor(at_once) as pool, progress("verdicts", len(prompts)) as advance:
            for text in pool.map(self.say, prompts):
                texts.append(text)
                advance(1)
        if texts and all(text is None for text in texts):
            raise self._error(f"turned each of {len(texts)} prompts away; {CHECK}, and max_new_tokens")
        return [text or "" for text in texts]

    def say(self, prompt: str) -> str | None:
        """The model's text to one prompt; "" where the reply has none, None where the server declines the prompt."""
        why = ""
        for attempt in range(ATTEMPTS):
            try:
                with _OPENER.open(self._request(prompt), timeout=TIMEOUT) as reply:
                    return _text(reply.read())
            except urllib.error.HTTPError as error:
                error.close()
                if error.code in DECLINED:
                    return None
                if error.code not in BUSY:
                    raise self._error(f"answers with HTTP status {error.code}; {CHECK}") from None
                wait, why = _seconds(error.headers.get("Retry-After")), f"HTTP status {error.code}"
            except (OSError, http.client.HTTPException) as error:
                wait, why = None, type(error).__name__
            if attempt + 1 < ATTEMPTS:
                time.sleep(min(2.0**attempt if wait is None else wait, LONGEST_WAIT))
        raise self._error(f"gave no reply in {ATTEMPTS} attempts ({why}); {CHECK}, or try again later")

    def _request(self, prompt: str) -> urllib.request.Request:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": self.max_new_tokens,
            "temperature": 0,
        }
        headers = {"Content-Type": "application/json"}
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key}"
        return urllib.request.Request(f"{self.url}/chat/completions", json.dumps(body).encode(), headers)

    def _error(self, what: str) -> UserError:
        # What a server says may hold the prompt or the key; it is never passed on.
        return UserError(f"judges: the endpoint {self.url} {what}.")


_OPENER = urllib.request.build_opener(_NoRedirect)


def read_key(variable: str) -> str:
    """The key that an environment variable holds; UserError, without its text, where there is none or it is no key."""
    key = os.environ.get(variable, "").strip()
    if not (key and key.isascii() and key.isprintable()):
        state = "holds no key that could be sent" if key else "is not set"
        raise UserError(f"judges: the environment variable {variable} {state}; set it to the endpoint's key.")
    return key


def _text(reply: bytes) -> str:
    """The text of a reply; "" where it is not of the form that the interface promises."""
    try:
        text = json.loads(reply)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError):
        return ""
    return text if isinstance(text, str) else ""


def _seconds(header: str | None) -> float | None:
    """How long a server asks to wait, where it says so in seconds."""
    return float(header) if header is not None and header.strip().isdecimal() else None
