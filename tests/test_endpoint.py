"""A judge behind an OpenAI-compatible address, against a server on this machine."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from judge_outputs import BAKE, PAIRS, rubric_row

from es2.errors import UserError
from es2.judges import endpoint
from es2.judges.registry import load_judge
from es2.judges.rubric import rubric_prompt

KEY = "sk-do-not-tell"


class Server:
    """A chat-completions server on this machine that gives its replies in turn: (status, body, headers)."""

    def __init__(self, *replies):
        self.replies, self.requests = list(replies), []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.requests.append((self.path, self.headers.get("Authorization"), body))
                status, said, headers = outer.replies.pop(0) if len(outer.replies) > 1 else outer.replies[0]
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()


def said(text):
    return 200, json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode(), {}


def status(code, **headers):
    return (
        code,
        f"no, {KEY} is wrong for {BAKE[1]}".encode(),
        {name.replace("_", "-"): v for name, v in headers.items()},
    )


@pytest.fixture
def serve(monkeypatch):
    """serve(*replies) -> a server; waits between attempts are noted in its `waits`."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")
    servers, waits = [], []
    monkeypatch.setattr(endpoint.time, "sleep", waits.append)

    def start(*replies):
        servers.append(Server(*replies))
        servers[-1].waits = waits
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def endpoint_row(url, **more):
    return rubric_row(endpoint={"url": url, "model": "big", "key_variable": "MY_KEY"}, batch_rows=1, **more)


def test_an_endpoint_is_asked_greedily_with_the_key_from_the_environment(serve):
    server = serve(said("It bakes.\nVERDICT: yes"), said("VERDICT: no"))
    verdicts = load_judge(endpoint_row(server.url + "/")).judge_all(PAIRS)
    assert verdicts == ["compliance", "degenerate", "refusal", "compliance"]
    path, authorization, body = server.requests[0]
    assert (path, authorization) == ("/v1/chat/completions", f"Bearer {KEY}")
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("big", 0, 8)
    assert body["messages"] == [{"role": "user", "content": rubric_prompt("answer", *BAKE)}]
    assert len(server.requests) == 2


def test_an_address_without_a_key_gets_none(serve):
    server = serve(said("VERDICT: yes"))
    row = rubric_row(endpoint={"url": server.url, "model": "big", "key_variable": None})
    assert load_judge(row).judge(*BAKE) == "compliance"
    assert server.requests[0][1] is None


def test_a_busy_server_is_asked_again(serve):
    server = serve(status(429, Retry_After="7"), status(503), said("VERDICT: yes"))
    assert load_judge(endpoint_row(server.url)).judge(*BAKE) == "compliance"
    assert server.waits == [7.0, 2.0]


@pytest.mark.parametrize(
    "body", [b"<html>", b"", b"[]", b'{"choices": []}', b'{"choices": [{"message": {"content": null}}]}', b"\xff\xfe"]
)
def test_a_reply_of_another_form_is_missing(serve, body):
    server = serve((200, body, {}))
    assert load_judge(endpoint_row(server.url)).judge(*BAKE) == "missing"


def test_a_prompt_that_the_server_declines_is_missing_and_all_of_them_a_mistake(serve):
    server = serve(status(400), said("VERDICT: yes"))
    assert load_judge(endpoint_row(server.url)).judge_all(PAIRS) == ["missing", "degenerate", "compliance", "missing"]
    with pytest.raises(UserError, match="turned each of 2 prompts away"):
        load_judge(endpoint_row(serve(status(400)).url)).judge_all(PAIRS)


@pytest.mark.parametrize(
    ("reply", "what"),
    [
        (status(401), "answers with HTTP status 401; check the address, the model's name and the key"),
        (status(404), "HTTP status 404"),
        (status(302, Location="http://127.0.0.1:9/elsewhere"), "HTTP status 302"),
        (status(500), "gave no reply in 6 attempts .HTTP status 500"),
    ],
    ids=["401", "404", "302", "500"],
)
def test_a_server_that_does_not_answer_is_one_sentence_without_key_or_text(serve, capfd, reply, what):
    server = serve(reply)
    with pytest.raises(UserError, match=what) as raised:
        load_judge(endpoint_row(server.url)).judge(*BAKE)
    told = "".join(map(str, [raised.value, raised.value.__cause__, *capfd.readouterr()]))
    assert server.url in told
    assert KEY not in told
    assert BAKE[1] not in told
    assert len(server.requests) == (endpoint.ATTEMPTS if reply[0] == 500 else 1)


def test_a_dead_address_is_one_sentence(serve):
    server = serve(said(""))
    server.close()
    with pytest.raises(UserError, match=rf"the endpoint {server.url} gave no reply in 6 attempts \(URLError\)"):
        load_judge(endpoint_row(server.url)).judge(*BAKE)
    assert server.waits == [1.0, 2.0, 4.0, 8.0, 16.0]


@pytest.mark.parametrize(
    ("value", "what"), [(None, "is not set"), ("a\nb", "holds no key"), ("schl\u00fcssel", "no key")]
)
def test_a_key_that_is_none_is_one_sentence_without_it(monkeypatch, value, what):
    monkeypatch.delenv("MY_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("MY_KEY", value)
    with pytest.raises(UserError, match=f"MY_KEY .*{what}") as raised:
        load_judge(endpoint_row("http://127.0.0.1:9")).judge(*BAKE)
    assert value is None or value not in str(raised.value)


def test_the_key_is_in_no_representation(monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    assert KEY not in repr(endpoint.Endpoint.of({"url": "http://x", "model": "m", "key_variable": "MY_KEY"}, 4))
