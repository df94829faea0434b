"""The type and the bounds of every value a user can set: command line, config.toml, /set and HTTP check by these."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Temperature = Annotated[float, Field(ge=0.0, le=10.0, allow_inf_nan=False)]
TopK = Annotated[int, Field(ge=0, le=1_000_000)]  # 0: all
TopP = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
MinP = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
RepeatPenalty = Annotated[float, Field(gt=0.0, le=10.0, allow_inf_nan=False)]
AdditivePenalty = Annotated[float, Field(ge=-2.0, le=2.0, allow_inf_nan=False)]  # presence and frequency
RepeatLastN = Annotated[int, Field(ge=0, le=8192)]  # tokens
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
MaxTokens = Annotated[int, Field(ge=1, le=1_000_000)]
ContextTokens = Annotated[int, Field(ge=128, le=10_000_000)]
Threads = Annotated[int, Field(ge=1, le=1024)]
Slots = Annotated[int, Field(ge=1, le=64)]
Port = Annotated[int, Field(ge=0, le=65535)]
Threshold = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
DraftLength = Annotated[int, Field(ge=1, le=7)]  # tokens a step
