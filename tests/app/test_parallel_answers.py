"""Several answers at once on the embedded model: each is what it is alone."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from real_engine import missing_model

from specee.app.engine.client import EngineClient
from specee.app.engine.protocol import ChatEvent, Done, Message
from specee.app.options import PLAIN_GREEDY, ChatOptions, LoadOptions, PolicyChoice, Sampling
from specee.app.serve.addresses import listen
from specee.app.serve.server import Access, Server

NO_MODEL = missing_model()
pytestmark = pytest.mark.skipif(NO_MODEL is not None, reason=f"no model: {NO_MODEL}")

N_TOKENS = 40
QUESTIONS = (
    "Name three rivers and say where each one ends.",
    "Explain in two sentences why bread rises.",
    "Hi",
    "Summarize this: " + "The cat sat on the mat, and the dog ran in the park all day long. " * 12,
)
SAMPLINGS = (
    PLAIN_GREEDY,
    Sampling(temperature=0.7, seed=5),
    Sampling(temperature=0.9, seed=6, repeat_penalty=1.0),
    Sampling(temperature=0.0, repeat_penalty=1.2),
)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineClient]:
    data: Path = tmp_path_factory.mktemp("data")
    client = EngineClient(LoadOptions(n_ctx=1024, data_dir=str(data), n_slots=4))
    for _ in client.open():
        pass
    assert client.info is not None and client.info.n_slots == 4
    yield client
    client.close()


def ask(client: EngineClient, question: str, options: ChatOptions) -> tuple[str, Done]:
    text = ""
    for event in client.generate((Message("user", question),), options):
        if isinstance(event, ChatEvent) and event.state == "verified":
            text += event.text
    assert isinstance(event, Done)
    return text, event


def at_once(asking: list[Any]) -> list[Any]:
    results: list[Any] = [None] * len(asking)

    def run(i: int) -> None:
        results[i] = asking[i]()

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(asking))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return results


@pytest.mark.parametrize(
    "policies", [("dense",) * 4, ("exact",) * 4, ("chain",) * 4, ("auto", "chain", "dense", "exact")]
)
def test_each_answer_is_what_it_is_alone(client: EngineClient, policies: tuple[str, ...]) -> None:
    """Also when the slots hold other chats: each round leaves them to the next one."""
    options = [
        ChatOptions(PolicyChoice(policy), sampling, N_TOKENS)
        for policy, sampling in zip(policies, SAMPLINGS, strict=True)
    ]
    pairs = list(zip(QUESTIONS, options, strict=True))
    alone = [ask(client, question, chosen)[0] for question, chosen in pairs]
    for order in (pairs, pairs[::-1]):
        answers = at_once([lambda pair=pair: ask(client, *pair)[0] for pair in order])
        assert dict(zip(order, answers, strict=True)) == dict(zip(pairs, alone, strict=True))
    assert len(set(alone)) == 4


def test_a_cancelled_one_and_one_that_fails_disturb_nobody(client: EngineClient) -> None:
    options = ChatOptions(PolicyChoice("exact"), PLAIN_GREEDY, 60)
    expected = ask(client, QUESTIONS[0], options)[0]

    def cancelled() -> str:
        answer = client.generate((Message("user", QUESTIONS[1]),), options)
        for event in answer:
            if isinstance(event, ChatEvent) and event.index == 4:
                answer.cancel()
        assert isinstance(event, Done)
        return event.stats.stop_reason

    def left() -> None:
        answer = client.generate((Message("user", QUESTIONS[3]),), options)
        next(answer)
        answer.close()

    def failing() -> str:
        try:
            ask(client, "word " * 2000, options)
        except Exception as error:
            return str(error)
        return ""

    whole, reason, failure, _ = at_once([lambda: ask(client, QUESTIONS[0], options)[0], cancelled, failing, left])
    assert whole == expected and reason == "cancelled" and "prompt too long" in failure


def test_two_clients_of_the_server_keep_their_prefixes(client: EngineClient) -> None:
    sockets = listen(("127.0.0.1",), 0)
    server = Server(client, ChatOptions(PolicyChoice("auto"), PLAIN_GREEDY, 12), Access(0), sockets)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        chats: list[list[dict[str, str]]] = [[{"role": "user", "content": f"My name is {n}."}] for n in ("Ann", "Bob")]
        for turn in range(3):
            for chat in chats:
                usage = post(server, {"messages": chat})
                cached = usage["usage"]["prompt_tokens_details"]["cached_tokens"]
                if turn:
                    assert cached > usage["usage"]["prompt_tokens"] - 25, "all but the new question"
                chat.append({"role": "assistant", "content": usage["choices"][0]["message"]["content"]})
                chat.append({"role": "user", "content": "And what is it like to be called that?"})
    finally:
        server.stop()
        thread.join()


def test_the_command_with_the_official_client(tmp_path: Path) -> None:
    openai = pytest.importorskip("openai")
    program = "from specee.app.cli.main import main; main()"
    arguments = ["serve", "--port", "0", "--parallel", "3", "--ctx", "512", "--data-dir", str(tmp_path)]
    served = subprocess.Popen([sys.executable, "-c", program, *arguments], stderr=subprocess.PIPE, text=True)
    assert served.stderr is not None
    try:
        lines = iter(served.stderr.readline, "")
        url = next(line.split()[3].rstrip(",") for line in lines if line.startswith("serving"))
        with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as api:

            def stream(question: str) -> str:
                chunks = api.chat.completions.create(
                    model="any",
                    messages=[{"role": "user", "content": question}],
                    stream=True,
                    temperature=0.8,
                    seed=7,
                    max_tokens=N_TOKENS,
                )
                return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)

            alone = [stream(question) for question in QUESTIONS]
            asking = [partial(stream, question) for question in QUESTIONS]
            assert at_once(asking) == alone and all(alone)
    finally:
        served.terminate()
        served.wait(10)
        served.stderr.close()


def post(server: Server, body: Any) -> Any:
    url = f"http://127.0.0.1:{server.port}/v1/chat/completions"
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.loads(response.read())
