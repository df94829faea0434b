"""A request of the chat completions API: every parameter with its type. What is not here is refused by its name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from specee.app.settings import (
    AdditivePenalty,
    Bias,
    MaxTokens,
    MinP,
    RepeatLastN,
    RepeatPenalty,
    Seed,
    StopSequence,
    Temperature,
    Think,
    ThinkTokens,
    TopK,
    TopLogprobs,
    TopP,
)

Unsupported = Annotated[None, Field(default=None, description="not supported: null only")]
ToolName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
TokenId = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,8})$")]  # in one spelling, so that none comes twice


def _is_false(value: bool) -> bool:
    if value:
        raise ValueError("Input should be false")
    return value


No = Annotated[bool, AfterValidator(_is_false), Field(json_schema_extra={"const": False})]
Identifier = Annotated[str, Field(max_length=1000)]


class Strict(BaseModel):
    """An object without further keys, whose values have exactly the types that it says."""

    model_config = ConfigDict(strict=True, extra="forbid")


# ---- messages ------------------------------------------------------------------------------------------------------


Unread = Annotated[Any, Field(default=None, description="changes nothing")]
"""What other servers and client libraries add to messages, which come back in the next request of a chat."""


class TextPart(Strict):
    type: Literal["text"]
    text: str
    cache_control: Unread


class RefusalPart(Strict):
    type: Literal["refusal"]
    refusal: str


Content = str | Annotated[list[TextPart], Field(fail_fast=True, min_length=1)]
AnswerPart = Annotated[TextPart | RefusalPart, Field(discriminator="type")]
AnswerContent = str | Annotated[list[AnswerPart], Field(fail_fast=True, min_length=1)]


class SystemMessage(Strict):
    role: Literal["system", "developer"]
    content: Content
    name: Identifier | None = None


class UserMessage(Strict):
    role: Literal["user"]
    content: Content
    name: Identifier | None = None


class CalledFunction(Strict):
    name: Annotated[Identifier, Field(min_length=1)]
    arguments: str
    """A JSON object; empty: one without members. Anything else is what a model wrote, and the next one reads."""
    parsed_arguments: Unread


class ToolCall(Strict):
    id: Identifier
    type: Literal["function"] | None = None
    function: CalledFunction
    index: Unread


class AssistantMessage(Strict):
    """It has content, a refusal, tool calls, or several of them."""

    role: Literal["assistant"]
    content: AnswerContent | None = None
    refusal: str | None = None
    """Read where there is no content."""
    name: Identifier | None = None
    tool_calls: Annotated[list[ToolCall], Field(fail_fast=True)] | None = None
    audio: Unsupported
    function_call: Unsupported
    annotations: Unread
    parsed: Unread
    reasoning_content: str | None = None
    """What it thought before. The model reads it only between calls of tools, if its template has a place for it."""
    reasoning: Unread
    reasoning_details: Unread
    provider_specific_fields: Unread


class ToolMessage(Strict):
    """What a tool gave back."""

    role: Literal["tool"]
    content: Content
    tool_call_id: Identifier
    name: Identifier | None = None
    status: Unread


Message = Annotated[SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]

# ---- tools ---------------------------------------------------------------------------------------------------------


class Function(Strict):
    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """A JSON schema of an object."""
    strict: bool | None = None


class Tool(Strict):
    type: Literal["function"]
    function: Function


class ChosenFunction(Strict):
    name: ToolName


class ChosenTool(Strict):
    type: Literal["function"]
    function: ChosenFunction


# ---- the form of the answer ----------------------------------------------------------------------------------------


class TextFormat(Strict):
    type: Literal["text"]


class AnyJson(Strict):
    type: Literal["json_object"]


class Schema(Strict):
    name: ToolName
    description: str | None = None
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    strict: bool | None = None


class JsonOfSchema(Strict):
    type: Literal["json_schema"]
    json_schema: Schema


class TemplateVariables(Strict):
    """Whether the model thinks, as other servers are told."""

    enable_thinking: bool | None = None
    thinking: bool | None = None


class StreamOptions(Strict):
    include_usage: bool | None = None
    include_obfuscation: No | None = None


class ChatCompletionRequest(Strict):
    """Null, and what is left out, stand for the defaults that `specee-chat serve` was started with."""

    messages: Annotated[list[Message], Field(fail_fast=True, min_length=1, max_length=10_000)]
    model: Annotated[str, Field(max_length=1000, description="any name: the loaded model answers")] | None = None

    # as in settings.py
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: TopK | None = None
    min_p: MinP | None = None
    repeat_penalty: RepeatPenalty | None = None
    repeat_last_n: RepeatLastN | None = None
    presence_penalty: AdditivePenalty | None = None
    frequency_penalty: AdditivePenalty | None = None
    logit_bias: Annotated[dict[TokenId, Bias], Field(max_length=1024)] | None = None
    seed: Seed | None = None

    think: Think | None = None
    think_tokens: ThinkTokens | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    chat_template_kwargs: TemplateVariables | None = None

    max_tokens: MaxTokens | None = None
    max_completion_tokens: MaxTokens | None = None
    stop: StopSequence | Annotated[list[StopSequence], Field(fail_fast=True, max_length=4)] | None = None

    n: Annotated[int, Field(ge=1, le=1, description="1, the only number supported")] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: TopLogprobs | None = None
    response_format: Annotated[TextFormat | AnyJson | JsonOfSchema, Field(discriminator="type")] | None = None

    tools: Annotated[list[Tool], Field(fail_fast=True, max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ChosenTool | None = None
    parallel_tool_calls: bool | None = None

    # these name the caller, or say what is so here
    user: Identifier | None = None
    safety_identifier: Identifier | None = None
    prompt_cache_key: Identifier | None = None
    modalities: Annotated[list[Literal["text"]], Field(min_length=1, max_length=1)] | None = None
    service_tier: Literal["auto", "default"] | None = None
    store: No | None = None
    verbosity: Literal["medium"] | None = None

    audio: Unsupported
    function_call: Unsupported
    functions: Unsupported
    metadata: Unsupported
    prediction: Unsupported
    prompt_cache_retention: Unsupported
    web_search_options: Unsupported
