"""Opens a model with its engine and its calibration: the one place where native, predictors and models meet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from specee.app import machine, memory, paths
from specee.app.engine import thinking
from specee.app.engine.chat_template import ChatTemplate
from specee.app.engine.datastore import HISTORY, EarlierChats
from specee.app.engine.draft_model import DraftModel
from specee.app.engine.grammar import BAD_GRAMMAR
from specee.app.engine.protocol import Message, ModelInfo
from specee.app.errors import MODEL_MISSING, USAGE, AppError
from specee.app.options import LoadOptions, PolicyChoice, Sampling
from specee.app.settings import KVType
from specee.predictors.cost_model import CostModel
from specee.predictors.decoding.policy import Policy
from specee.predictors.drafters.datastore import Lookup
from specee.predictors.types import Sampler

MEMORY_SHARE = 0.9
"""Of the free memory, for the windows of several slots."""


@dataclass
class NativeBackend:
    """The real Backend. Make it with `open_backend`."""

    info: ModelInfo
    engine: Any
    model: Any
    calibration: Any
    """A predictors Calibration, None without one."""
    sha256: str
    template: ChatTemplate
    markers: tuple[str, ...]
    """Names of tokens that only the template may write, beside the control tokens."""
    thinking: thinking.Thinking
    bos_text: str
    datastores: dict[str, Lookup]
    """What drafts are retrieved from, by the name of the drafter."""
    draft_model: DraftModel | None = None
    notices: tuple[str, ...] = ()
    """What the user should know of the model as it is loaded."""
    turn_stops: tuple[str, ...] = ()
    """Texts with which the user's next turn begins."""

    def format(
        self, messages: Sequence[Message], tools: str | None = None, variables: Mapping[str, Any] | None = None, /
    ) -> str:
        return self.template(messages, tools, variables)

    @property
    def control_tokens(self) -> Sequence[str]:
        return (*self.model.control_tokens, *self.markers)

    def tokenize(self, text: str, *, bos: bool, special: bool = True, is_rest: bool = False) -> list[int]:
        if not special and text in self.markers:  # halves of it are no marker
            return self.tokenize(text[:1], bos=bos, special=False, is_rest=is_rest) + self.tokenize(
                text[1:], bos=False, special=False, is_rest=True
            )
        if is_rest:
            return list(self.model.tokenize_rest(text, special=special))
        return list(self.model.tokenize(text, special=special, bos=bos))

    def piece(self, token: int, *, special: bool = False) -> bytes:
        return bytes(self.model.piece(token, special=special))

    def sampler(self, sampling: Sampling, grammar: str | None = None, top_logprobs: int | None = None) -> Sampler:
        from specee.native.engine import Sampler as NativeSampler
        from specee.native.errors import NativeError

        n_vocab = self.engine.n_vocab
        for token, _ in sampling.logit_bias:
            if not 0 <= token < n_vocab:
                why = f"there is no token {token}; this model's tokens are 0 to {n_vocab - 1}"
                raise AppError("bad logit_bias", why, USAGE)
        try:
            made: Sampler = NativeSampler(
                self.model,
                temperature=sampling.temperature,
                top_k=sampling.top_k,
                top_p=sampling.top_p,
                min_p=sampling.min_p,
                repeat_penalty=sampling.repeat_penalty,
                repeat_last_n=sampling.repeat_last_n,
                presence_penalty=sampling.presence_penalty,
                frequency_penalty=sampling.frequency_penalty,
                logit_bias=sampling.logit_bias,
                grammar=grammar,
                top_logprobs=top_logprobs,
            )
        except NativeError as error:
            raise AppError(BAD_GRAMMAR, error.message, USAGE) from error
        return made

    def exit_rule_names(self) -> tuple[str, ...]:
        if self.calibration is None:
            return ()
        return ("predictor", "margin") if self.calibration.margin_layers else ("predictor",)

    def policy(self, choice: PolicyChoice, cost: CostModel | None = None, *, history: bool = True) -> Policy:
        from specee.predictors.decoding import build_policy as build

        self.info.check(choice)
        most = self.engine.max_equal_rows - 1  # with the row that follows, or the one before the drafts
        if choice.draft_length is not None and choice.draft_length > most:
            why = f"so many rows at once would not get the bits of single ones; take 1 to {most}"
            raise AppError(f"--draft-length {choice.draft_length}", why, USAGE)
        costly = self.draft_model.guesser(self._drafts(choice)) if self.draft_model is not None else None
        datastores = {name: store for name, store in self.datastores.items() if history or name != HISTORY}
        sources = (cost or CostModel({1: 1.0}), datastores, costly, choice.draft_length)
        if choice.name == "chain":
            early = build.make_early_rejection(self.calibration) if choice.early_rejection else None
            return build.build_chain(build.make_chain_drafter(*sources), choice.acceptance, early)
        if choice.name == "tree":
            return build.build_tree(build.make_tree_drafter(*sources), choice.acceptance)
        if choice.name == "pipelined" and self._drafts(choice):
            stages = self.engine.stages
            length = (choice.draft_length or build.PIPELINED_ROWS) * len(stages)
            drafter = build.make_chain_drafter(*sources[:3], length)
            return build.build_pipelined(stages, self.calibration, drafter, choice.draft_length)
        rules = exit_rules(choice, self.calibration)
        if rules.max_pending > most and not choice.runs_whole_rows:
            why = f"so many rows at once would not get the bits of single ones; take 1 to {most}"
            raise AppError(f"--max-pending {rules.max_pending}", why, USAGE)
        chain = build.make_chain_drafter(*sources) if choice.drafts else None
        return build.build_policy(choice.name, self.calibration, rules, self.engine.draft, chain)

    def _drafts(self, choice: PolicyChoice) -> bool:
        return choice.drafts or self.info.pipelines(choice)

    def begin_chat(self) -> None:
        earlier = self.datastores.get(HISTORY)
        if isinstance(earlier, EarlierChats):
            earlier.read()

    def prepare(self, choice: PolicyChoice) -> None:
        """Before an answer by a policy of this choice, where other policies were made since: see DraftModel."""
        if self.draft_model is not None:
            self.draft_model.need_states(self._drafts(choice))

    def advance_together(self, batches: Sequence[tuple[Any, Sequence[int]]], end: int, logits: bool = False) -> None:
        from specee.native.engine import advance_together

        advance_together(batches, end, logits)

    def close(self) -> None:
        if self.draft_model is not None:
            self.draft_model.close()
        self.engine.close()
        self.model.close()


def exit_rules(choice: PolicyChoice, calibration: Any) -> Any:
    """The paper's rules with the calibration's thresholds and what the user chose."""
    from specee.predictors.exits.rules import ExitRules

    rule = choice.rule or "predictor"
    rules = calibration.exit_rules(rule) if calibration is not None else ExitRules().with_(rule=rule)
    wanted = {"threshold": choice.threshold, "kv": choice.kv, "max_pending": choice.max_pending}
    return rules.with_(**{name: value for name, value in wanted.items() if value is not None})


def open_backend(
    options: LoadOptions, on_progress: Callable[[str, float | None], None], *, with_calibration: bool = True
) -> NativeBackend:
    """Finds, checks and loads the model, with its calibration. Raises errors with a title and a message."""
    from specee.app.engine import draft_file, placement, window_size
    from specee.models import (
        calibrations,
        gguf_header,
        heads,
        layer_bytes,
        model_hash,
        model_structure,
        resolve,
        split_file,
    )
    from specee.models.model_kind import check_answers

    where = paths.find(options.data_dir)
    found = resolve.resolve(options.model)
    header = gguf_header.read_model(found.path)  # before llama.cpp sees it
    check_answers(header)
    sha256 = model_hash.of_model(header, where.cache)
    head = heads.find(where.heads, sha256, header)
    structure = model_structure.read(header, options.kv_type)
    free = None if options.has_devices else memory.free_ram()  # a GPU has a memory of its own
    window = window_size.choose(options.n_ctx, structure.context, structure.kv_bytes_per_token, free, options.kv_type)
    drafter = draft_file.find(options, header, window.n_ctx, head)
    if drafter is not None:
        drafter = replace(drafter, path=str(split_file.for_llama_cpp(drafter.files, where.cache)))

    from specee.native import engine as native
    from specee.native.layer_states import LayerStatesEngine, NoLayerStatesError

    def loaded(fraction: float) -> bool:
        on_progress("loading the model", fraction)
        return True  # continue loading

    path = split_file.for_llama_cpp(header.files, where.cache)
    n_ctx = window.n_ctx
    need = placement.needs(structure, layer_bytes.read(header), n_ctx, options.n_slots)
    placed = placement.choose(options, need)
    model = native.Model(
        path, gpu_layers=placed.n_layers, devices=placed.devices, tensor_split=placed.split, on_progress=loaded
    )
    _check_vocabulary(model)
    threads = options.threads or machine.default_threads(structure.file_bytes)
    n_slots = affordable_slots(options.n_slots, n_ctx * structure.kv_bytes_per_token)
    engine: native.RowEngine | None = None
    if drafter is not None and drafter.layers:  # whose states are kept of one chat
        try:
            engine = LayerStatesEngine(model, drafter.layers, n_ctx=n_ctx, n_threads=threads, kv_type=options.kv_type)
        except NoLayerStatesError:
            if drafter.is_wanted:
                raise
            drafter = None
    engine = engine or _open_engine(model, n_ctx, threads, n_slots, options.kv_type)
    calibration = None
    if with_calibration and not engine.no_exits:
        calibration = _install(calibrations.find(where.calibrations, sha256, embedded=found.embedded), engine, sha256)

    from specee.app.engine.datastore import open_datastores
    from specee.app.engine.model_template import open_model_template
    from specee.app.engine.turn_markers import learn_markers

    def tokenize(text: str) -> Sequence[int]:
        return model.tokenize(text, special=False, bos=False)

    opened = open_model_template(header, {"bos_token": model.bos_text, "eos_token": model.eos_text})
    markers = learn_markers(model, opened)
    names = {*model.control_tokens, *model.user_defined_tokens}
    thinks = thinking.find(opened.template, names.__contains__)
    tokens_of = {name: _token_of(model, name) for name in model.control_tokens}
    thinks = thinks.with_tokens({name: token for name, token in tokens_of.items() if token is not None})
    return NativeBackend(
        info=ModelInfo(
            name=found.name,
            path=str(found.path),
            arch=model.arch,
            n_layers=model.n_layer,
            n_ctx=engine.n_ctx,
            trained_ctx=structure.context,
            threads=threads,
            dense_only=engine.no_exits,
            calibrated=calibration is not None,
            drafter=drafter.name if drafter is not None else None,
            drafter_is_for_others=drafter is not None and drafter.trained_for not in (None, sha256),
            n_slots=len(engine.slots),
            n_stages=len(engine.stages),
            takes_tools=opened.template.takes_tools,
            takes_calls=opened.template.takes_calls,
            folds_system=opened.template.form.folds_system,
            gpu_layers=model.gpu_layers,
            places=placement.describe(placement.labels(model.places, placed.devices)) if model.gpu_layers else "",
            kv_type=options.kv_type,
            thinks=thinks.kind,
        ),
        engine=engine,
        model=model,
        calibration=calibration,
        sha256=sha256,
        template=opened.template,
        markers=markers,
        thinking=thinks,
        bos_text=model.bos_text,
        datastores=open_datastores(tokenize, sha256, where, chats=options.chats),
        draft_model=DraftModel(drafter, engine) if drafter is not None else None,
        turn_stops=opened.guess.stops if opened.guess is not None else (),
        notices=tuple(each for each in (opened.note, window.notice, placed.notice) if each is not None),
    )


def _token_of(model: Any, text: str) -> int | None:
    """The token that this text is; None where it is none, or several."""
    from specee.native.errors import UnusableModelError

    try:
        tokens = model.tokenize(text)
    except UnusableModelError:  # a vocabulary without the tokens for its letters
        return None
    return int(tokens[0]) if len(tokens) == 1 else None


def _check_vocabulary(model: Any) -> None:
    """Raises AppError where every answer would be empty."""
    if not any(model.piece(token) for token in range(model.n_vocab)):
        why = f"{model.path}: no token of its vocabulary is text; take another model, or another file of this one"
        raise AppError("damaged model", why, MODEL_MISSING)


def affordable_slots(wanted: int, window_bytes: int) -> int:
    """How many windows fit into the memory that is free, at least one."""
    free = memory.free_ram()
    if free is None or window_bytes == 0:
        return wanted
    return max(1, min(wanted, int(MEMORY_SHARE * free) // window_bytes))


def _open_engine(model: Any, n_ctx: int, threads: int, n_slots: int, kv_type: KVType) -> Any:
    """An engine with n_slots slots, or with fewer where there is no memory for them after all, as on a GPU."""
    from specee.native.engine import RowEngine
    from specee.native.errors import NativeError

    try:
        return RowEngine(model, n_ctx=n_ctx, n_threads=threads, n_slots=n_slots, kv_type=kv_type)
    except NativeError:
        if n_slots == 1:
            raise
        return _open_engine(model, n_ctx, threads, n_slots // 2, kv_type)


def _install(path: Path | None, engine: Any, sha256: str) -> Any:
    """Reads a calibration, checks that it is this model's, and hands it to the engine."""
    if path is None:
        return None
    from specee.predictors.calibration import calibration_file

    calibration = calibration_file.read(path)
    calibration.check_base(sha256, engine.n_layer, engine.n_embd, engine.n_vocab)
    calibration.install(engine)
    return calibration
