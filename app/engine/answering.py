"""Answers requests with a loaded model: waiting, reading their prompts, decoding. Runs in the engine process."""

from __future__ import annotations

import random
import time
import traceback
from collections import deque

from specee.app.engine.answer import Answer, stats_of_none
from specee.app.engine.backend import Backend
from specee.app.engine.cancellation import Cancellation
from specee.app.engine.decode import begin
from specee.app.engine.grammar import BAD_GRAMMAR, gbnf
from specee.app.engine.measurements import Measurements
from specee.app.engine.policy_chooser import PolicyChooser
from specee.app.engine.prompt import Prompt, make_prompt
from specee.app.engine.prompt_length import prompt_too_long
from specee.app.engine.protocol import Done, Emit, Failed, Generate, Notice, OfRequest
from specee.app.engine.schema_error import SchemaError
from specee.app.engine.slot import Slot, choose_slot, open_slots
from specee.app.engine.thread_limit import limit_threads
from specee.app.errors import AppError, as_app_error
from specee.app.options import ChatOptions, PolicyChoice
from specee.predictors.decoding.policy import Policy
from specee.predictors.decoding.scheduler import Running, Scheduler
from specee.predictors.types import Sampler

CHUNK_BESIDE = 128
"""Tokens of a prompt that are read at once while other answers wait for their next tokens."""


FOLDED = "the model's chat template has no place for a system message: it is sent with the question that follows it"


class Answerer:
    """One loaded model with its slots. A request waits for a slot, its prompt is read, its answer is decoded."""

    def __init__(self, backend: Backend, measurements: Measurements) -> None:
        self.backend = backend
        self.cancellation = Cancellation(backend.engine.cancel, backend.engine.resume)
        self._slots = open_slots(backend)
        self._scheduler = Scheduler(backend.advance_together)
        self._waiting: deque[tuple[Generate, Emit, float]] = deque()
        self._reading: deque[Answer] = deque()
        self._decoding: dict[Running, Answer] = {}
        self._n_answers = 0
        self._measurements, self._chooser = measurements, PolicyChooser(measurements)
        limit_threads(backend, measurements, measure=False)

    def add(self, request: Generate, send: Emit) -> None:
        """A new request; it is answered in turns with PromptProgress..., Started, TokenEvents..., then Done or Failed.

        All of them travel as `OfRequest`.
        """
        self._waiting.append((request, lambda message: send(OfRequest(request.request, message)), time.perf_counter()))

    @property
    def busy(self) -> bool:
        """Whether there is something to do."""
        return bool(self._waiting or self._reading or self._decoding)

    def turn(self) -> None:
        """A chunk of one prompt, and a computation for each answer that decodes."""
        try:
            self._end_cancelled()
            self._admit()
            has_read = self._read_chunk()
            for running, event in self._scheduler.turn(alone=not has_read):
                self._decoding[running].stream.add(event)
            for running, answer in list(self._decoding.items()):
                if running.error is not None:
                    self._fail(answer, running.error)
                elif answer.must_go_on and answer.tokens_left > 0:
                    self._go_on(answer, running)
                elif running.ended or answer.stream.stopped or answer.stream.turn is not None:
                    self._finish(answer)
        except BrokenPipeError:  # nobody listens any more
            raise
        except Exception as error:
            for answer in self._answers:
                self._fail(answer, error)
        if not self.busy:
            self._measure_threads()

    @property
    def _answers(self) -> list[Answer]:
        """Those that have a slot."""
        return [*self._reading, *self._decoding.values()]

    # ---- from waiting to reading -----------------------------------------------------------------------------------

    def _admit(self) -> None:
        """Requests get free slots, in their order."""
        while self._waiting and (free := self._free_slots()):
            request, emit, began = self._waiting.popleft()
            try:
                answer = self._begin(request, emit, began, free)
                answer.take_up()
                self._reading.append(answer)
            except Exception as error:  # this request's alone
                self.cancellation.forget(request.request)
                emit(_failed(error))

    def _free_slots(self) -> list[Slot]:
        taken = {answer.slot for answer in self._answers}
        return [slot for slot in self._slots if slot not in taken]

    def _begin(self, request: Generate, emit: Emit, began: float, free: list[Slot]) -> Answer:
        prompt = self._prompt(request, free)
        slot = choose_slot(free, prompt.tokens)
        options = request.options
        decision = self._chooser.decide(slot.backend, options.policy)
        policy = self._policy(slot, decision.choice, is_comparison=request.is_comparison)
        grammar = gbnf(options)
        sampler = self._sampler(options, grammar)
        waits = None  # the grammar, for what comes behind a thought
        if grammar is not None and prompt.place != "answer" and self.backend.thinking.may_think(options.think):
            sampler.close()
            sampler, waits = self._sampler(options, None), grammar
        if sum(m.role == "user" for m in request.messages) <= 1 or not slot.goes_on(prompt.tokens):
            policy.reset()
            self.backend.begin_chat()
        self._n_answers += 1
        slot.last_used = self._n_answers
        seed = options.sampling.seed
        seed = seed if seed is not None else random.SystemRandom().randrange(2**31)
        if self.backend.info.folds_system and any(message.role == "system" for message in request.messages):
            emit(Notice(FOLDED))
        return Answer(request, emit, slot, prompt, policy, decision, sampler, seed, began, waits)

    def _sampler(self, options: ChatOptions, grammar: str | None) -> Sampler:
        try:
            return self.backend.sampler(options.sampling, grammar, options.top_logprobs)
        except AppError as error:
            if options.json_schema is None or error.title != BAD_GRAMMAR:
                raise
            raise SchemaError("llama.cpp refuses its grammar; make the schema smaller, or plainer") from error

    def _prompt(self, request: Generate, free: list[Slot]) -> Prompt:
        """The chat as tokens; those of an answer in a free slot are kept where the chat goes on from there."""
        previous = [slot.previous for slot in free if slot.previous is not None]
        prompt = make_prompt(
            self.backend,
            request.messages,
            continue_answer=request.continue_answer,
            tools=request.tools,
            previous=previous,
            think=request.options.think,
        )
        if len(prompt.tokens) >= self.backend.engine.n_ctx:
            n = len(prompt.tokens)
            why = f"it has {n} tokens, the context window holds {self.backend.engine.n_ctx}"
            given = self.backend.thinking.given(request.options.think)
            raise prompt_too_long(self.backend, request.messages, request.tools, given, why, n)
        return prompt

    def _policy(self, slot: Slot, choice: PolicyChoice, *, is_comparison: bool) -> Policy:
        if is_comparison:
            return self._chooser.build_policy(slot.backend, choice, history=False)
        if choice not in slot.policies:
            slot.policies[choice] = self._chooser.build_policy(slot.backend, choice)
        return slot.policies[choice]

    # ---- from reading to decoding ----------------------------------------------------------------------------------

    def _read_chunk(self) -> bool:
        """A chunk of a prompt; those that are not read yet take turns. Whether there was one."""
        if not self._reading:
            return False
        answer = self._reading[0]
        self._reading.rotate(-1)
        size = CHUNK_BESIDE if len(self._answers) > 1 else answer.slot.engine.n_batch
        try:
            with self.cancellation.interruptible(answer.id):
                answer.read_chunk(size)
            if answer.prefill.is_complete:
                self._decode(answer)
        except BrokenPipeError:
            raise
        except Exception as error:
            if self.cancellation.is_cancelled(answer.id):
                self._finish(answer, cancelled=True)  # the slot keeps what was read before
            else:
                self._fail(answer, error)
        return True

    def _decode(self, answer: Answer) -> None:
        seed = (answer.seed, answer.n_runs) if answer.n_runs else answer.seed
        given = () if answer.n_runs else answer.given
        n_left = answer.tokens_left + len(given)
        state = begin(answer.slot.backend, answer.prompt.tokens, answer.sampler, seed, n_left, given)
        answer.start(state)
        self._reading.remove(answer)
        self._decoding[self._scheduler.start(answer.policy, answer.slot.engine, state)] = answer

    def _go_on(self, answer: Answer, running: Running) -> None:
        """Its thought has ended, or must: the rest of it is another run, with the grammar that it must keep to."""
        self._scheduler.stop(running)
        del self._decoding[running]
        answer.sampler.close()
        try:
            answer.go_on(self._sampler(answer.request.options, answer.grammar))
            if len(answer.prompt.tokens) >= answer.slot.engine.n_ctx:
                self._finish(answer)
            else:
                self._reading.append(answer)
        except Exception as error:
            self._fail(answer, error)

    # ---- the end ---------------------------------------------------------------------------------------------------

    def _end_cancelled(self) -> None:
        """Between two turns, so that no row is left with layers undone."""
        if not self.cancellation.is_wanted:
            return
        for waiting in [w for w in self._waiting if self.cancellation.is_cancelled(w[0].request)]:
            request, emit, began = waiting
            self._waiting.remove(waiting)
            self.cancellation.forget(request.request)
            emit(Done(stats_of_none(request, self.backend.info.n_layers, began)))
        for answer in self._answers:
            if self.cancellation.is_cancelled(answer.id):
                self._finish(answer, cancelled=True)

    def _finish(self, answer: Answer, *, cancelled: bool = False) -> None:
        self._free(answer)
        stats = answer.finish(cancelled=cancelled)
        if answer.state is not None and not answer.request.is_comparison:
            self._chooser.learn(self.backend, answer.counted)
            if stats.policy == "dense" and self.backend.info.n_slots == 1:
                self._chooser.learn_rate(self.backend, stats.tokens, stats.tokens_per_second)
        answer.emit(Done(stats))

    def _fail(self, answer: Answer, error: Exception) -> None:
        try:
            self._free(answer)
            answer.slot.clear()
        finally:
            answer.emit(_failed(error))

    def _free(self, answer: Answer) -> None:
        """Its slot can answer another request."""
        self.cancellation.forget(answer.id)
        if answer in self._reading:
            self._reading.remove(answer)
        for running in [running for running, other in self._decoding.items() if other is answer]:
            del self._decoding[running]
            self._scheduler.stop(running)
        answer.sampler.close()

    def _measure_threads(self) -> None:
        try:
            limit_threads(self.backend, self._measurements, measure=True)
        except Exception:
            traceback.print_exc()  # to the log: the answers are out, and an error now would be the next one's


def _failed(error: Exception) -> Failed:
    if not isinstance(error, AppError):  # those are answers to what was asked; they would fill the log of a server
        traceback.print_exception(error)  # to the log
    failure = as_app_error(error)
    return Failed.by(failure, fatal=failure.of_device)  # then the engine is of no use any more
