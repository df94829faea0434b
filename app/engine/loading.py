"""The model, the engine and the algorithms, put together: the one place where the packages meet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from specee.app import machine, paths
from specee.app.engine.chat_template import Formatter
from specee.app.engine.protocol import Message, ModelInfo
from specee.app.errors import AppError
from specee.app.options import DEFAULT_CTX, LoadOptions, PolicyChoice, Sampling
from specee.predictors.decoding import Policy
from specee.predictors.types import Engine, Sampler


class ChatEngine(Engine, Protocol):
    """An engine that also reads prompts."""

    tokens: list[int]
    """What the cache holds."""
    n_threads: int

    @property
    def active_threads(self) -> int:
        """Threads of the next computation: fewer than n_threads while other processes keep cores busy."""
        ...

    def fix_threads(self, n: int) -> None:
        """Exactly n threads from now on; 0: as the machine allows."""
        ...

    def limit_single(self, n: int) -> None:
        """At most n threads for one row."""
        ...

    def prefill(self, tokens: Sequence[int], on_chunk: Callable[[int, int], None] | None = None) -> int:
        """Read the prompt, keeping the common prefix with the cache; returns how many tokens were reused."""
        ...

    def logits(self, row: int) -> Any:
        """float32 [n_vocab]: a copy of one row of logits."""
        ...

    def cancel(self) -> None: ...

    def resume(self) -> None: ...


class Backend(Protocol):
    """All that the runtime needs; tests bring a fake."""

    info: ModelInfo
    engine: ChatEngine
    sha256: str
    bos_text: str

    def format(self, messages: Sequence[Message], /) -> str:
        """The conversation as the prompt that the model was trained on."""
        ...

    def tokenize(self, text: str, *, bos: bool) -> list[int]: ...

    def piece(self, token: int) -> bytes: ...

    def sampler(self, sampling: Sampling) -> Sampler: ...

    def rules(self) -> tuple[str, ...]:
        """The exit rules that this model is calibrated for, the default one first."""
        ...

    def policy(self, choice: PolicyChoice) -> Policy:
        """Raises AppError when the policy cannot run on this model."""
        ...

    def close(self) -> None: ...


@dataclass
class NativeBackend:
    """The real one. Build it with `open_backend`."""

    info: ModelInfo
    engine: Any
    model: Any
    artifact: Any
    sha256: str
    formatter: Formatter
    bos_text: str

    def format(self, messages: Sequence[Message], /) -> str:
        return self.formatter(messages)

    def tokenize(self, text: str, *, bos: bool) -> list[int]:
        return [int(t) for t in self.model.tokenize(text, special=True, bos=bos)]

    def piece(self, token: int) -> bytes:
        return bytes(self.model.piece(token))

    def sampler(self, sampling: Sampling) -> Sampler:
        from specee.native.engine import Sampler as NativeSampler

        made: Sampler = NativeSampler(
            self.model,
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
            min_p=sampling.min_p,
            repeat_penalty=sampling.repeat_penalty,
            repeat_last_n=sampling.repeat_last_n,
        )
        return made

    def rules(self) -> tuple[str, ...]:
        if self.artifact is None:
            return ()
        return ("predictor", "margin") if self.artifact.margin_layers else ("predictor",)

    def policy(self, choice: PolicyChoice) -> Policy:
        from specee.predictors import decoding

        if choice.name != "dense" and self.info.dense_only:
            raise AppError("dense only", f"policy {choice.name} cannot run: {self.info.dense_only}; use --policy dense")
        return decoding.build(choice.name, self.artifact, exit_rules(choice, self.artifact))

    def close(self) -> None:
        self.engine.close()
        self.model.close()


def exit_rules(choice: PolicyChoice, artifact: Any) -> Any:
    """The paper's rules with the calibration's thresholds and what the user chose."""
    from specee.predictors.exits.rules import ExitRules

    rule = choice.rule or "predictor"
    rules = artifact.rules(rule) if artifact is not None else ExitRules().with_(rule=rule)
    wanted = {"threshold": choice.threshold, "kv": choice.kv, "max_pending": choice.max_pending}
    return rules.with_(**{name: value for name, value in wanted.items() if value is not None})


def open_backend(
    options: LoadOptions, on_progress: Callable[[str, float | None], None], *, calibration: bool = True
) -> NativeBackend:
    """Finds, checks and loads the model, with its calibration. Raises errors with a title and a message."""
    from specee.models import calibrations, file_hash, gguf_header, resolve

    where = paths.find(options.data_dir)
    found = resolve.resolve(options.model)
    gguf_header.read_model(found.path)  # before llama.cpp sees it

    from specee.native import engine as native

    def tell(fraction: float) -> bool:
        on_progress("loading the model", fraction)
        return True

    model = native.Model(found.path, gpu_layers=options.gpu_layers, on_progress=tell)
    n_ctx = min(options.n_ctx or DEFAULT_CTX, model.n_ctx_train or options.n_ctx or DEFAULT_CTX)
    threads = options.threads or machine.default_threads()
    engine = native.RowEngine(model, n_ctx=n_ctx, n_threads=threads)
    sha256 = file_hash.sha256(found.path, where.cache)
    artifact = None
    if calibration and not model.unsupported:
        artifact = _install(calibrations.find(where.calibrations, sha256, embedded=found.embedded), engine, sha256)

    from specee.app.engine.chat_template import chat_formatter

    return NativeBackend(
        info=ModelInfo(
            name=found.name,
            path=str(found.path),
            arch=model.arch,
            n_layers=model.n_layer,
            n_ctx=engine.n_ctx,
            threads=threads,
            dense_only=model.unsupported,
            calibrated=artifact is not None,
        ),
        engine=engine,
        model=model,
        artifact=artifact,
        sha256=sha256,
        formatter=chat_formatter(model.chat_template, bos=model.bos_text, eos=model.eos_text),
        bos_text=model.bos_text,
    )


def _install(path: Path | None, engine: Any, sha256: str) -> Any:
    """Reads a calibration, checks that it is this model's, and hands it to the engine."""
    if path is None:
        return None
    from specee.predictors.calibration import file as files

    artifact = files.read(path)
    artifact.check_base(sha256, engine.n_layer, engine.n_embd, engine.n_vocab)
    artifact.install(engine)
    return artifact
