"""The served OpenAPI document describes the server: schemathesis sends what it allows, and what it does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS
from serving import Make, running

from specee.app.serve.server import Server

EXAMPLES = 100  # of each operation and mode
COMPLETIONS = "/v1/chat/completions"
OPERATIONS = (
    *((path, "GET", GenerationMode.POSITIVE) for path in ("/health", "/v1/models", "/v1/models/{model}")),
    *((COMPLETIONS, "POST", mode) for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)),
)
# a request that the schema allows may still be refused: a prompt too long, parameters that exclude each other
NOT_PROMISED = ("positive_data_acceptance",)


@pytest.fixture
def server(make_backend: Make, make_link: Make) -> Iterator[Server]:
    backend = make_backend(n_ctx=400, n_slots=2)
    backend.info = replace(backend.info, takes_tools=True, takes_calls=True)
    with running(backend, make_link) as made:
        yield made


@pytest.fixture
def document(server: Server) -> Any:
    return schemathesis.openapi.from_url(f"http://127.0.0.1:{server.port}/openapi.json")


def is_allowed(document: dict[str, Any], body: Any) -> bool:
    """Whether the document allows a body of a completion."""
    path = COMPLETIONS.replace("/", "~1")
    schema = {**document, "$ref": f"#/paths/{path}/post/requestBody/content/application~1json/schema"}
    try:
        return jsonschema_rs.Draft202012Validator(schema).is_valid(body)
    except (TypeError, ValueError):  # what is generated is no JSON at all
        return False


@pytest.mark.parametrize(("path", "method", "mode"), OPERATIONS)
def test_the_server_is_as_its_document_says(document: Any, path: str, method: str, mode: GenerationMode) -> None:
    operation = document[path][method]
    checks = CHECKS.get_by_names([name for name in CHECKS.get_all_names() if name not in NOT_PROMISED])

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def send(case: Any) -> None:
        # what breaks one form of a message can be right as another one
        assume(mode is GenerationMode.POSITIVE or not is_allowed(document.raw_schema, case.body))
        case.call_and_validate(checks=checks, timeout=60)

    send()
