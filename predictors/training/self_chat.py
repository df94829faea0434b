"""The model talks to itself: given only the beginning of a user's turn it writes a question, and answers it.

After "Magpie: Alignment Data Synthesis from Scratch by Prompting Aligned LLMs with Nothing" (Xu et al., 2024), with
what small models need besides: beginnings of questions, and questions about texts that it wrote before.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

import numpy as np

from specee.predictors.repetition import NGRAM
from specee.predictors.training import openers
from specee.predictors.training.conversations import Conversation
from specee.predictors.training.settings import Settings, TrainedModel, TrainingEngine
from specee.predictors.types import Floats, Sampler

QUESTION, ANSWER = (1.0, 0.98), (0.7, 0.95)  # temperature, top-p
GREEDY_SHARE = 0.5
"""Of the answers; the others are drawn."""
MATERIAL_SHARE = 0.2
"""Of the questions: about earlier answers."""
MIN_QUESTION, MIN_ANSWER, MIN_MATERIAL = 3, 8, 40  # tokens
N_EARLIER = 64  # answers that questions may be about

Chat = Generator[list[int], None, Conversation | None]
"""Yields tokens that it wants appended: it reads the last one's logits then. Ends with what is worth keeping."""


class SelfChat:
    """Conversations in all slots of the engine, in one batch."""

    def __init__(self, model: TrainedModel, settings: Settings, seed: int, known: Iterable[list[int]] = ()) -> None:
        """`known`: questions that were asked before; they are not asked again."""
        self._model, self._settings = model, settings
        self._chance, self._rng = random.Random(seed), np.random.default_rng(seed)
        self._question, self._answer, self._plain = (model.make_sampler(*how) for how in (QUESTION, ANSWER, (0.0, 1.0)))
        self._asked = {_key(question) for question in known}
        self._earlier: deque[list[int]] = deque(maxlen=N_EARLIER)

    def close(self) -> None:
        for sampler in (self._question, self._answer, self._plain):
            sampler.close()

    def run(self) -> Iterator[Conversation | None]:
        """Conversations without end; None between two steps, for whoever counts the time."""
        return self._run(self._free_chat)

    def answers(self, questions: Sequence[str]) -> Iterator[Conversation | None]:
        """The model's greedy answers to these questions."""
        return self.read([(question, None) for question in questions])

    def read(self, exchanges: Sequence[tuple[str, str | None]]) -> Iterator[Conversation | None]:
        """Questions with answers that were given to them, or, where there are none, the model's greedy ones."""
        left = deque(exchanges)

        def chat(engine: TrainingEngine) -> Chat | None:
            while left:
                question, answer = (None if text is None else self._model.encode(text) for text in left.popleft())
                room = engine.n_ctx - len(self._model.before_question) - len(self._model.after_question)
                if question and len(question) + self._settings.answer_tokens < room:
                    return self._given_chat(engine, question, answer)
            return None

        return self._run(chat)

    def _run(self, new_chat: Callable[[TrainingEngine], Chat | None]) -> Iterator[Conversation | None]:
        """Each step gives every slot's chat the tokens that it wants, those of all slots in one batch."""
        slots = list(self._model.slots)
        chats = [new_chat(engine) for engine in slots]
        wanted = [next(chat) if chat is not None else [] for chat in chats]
        while any(chat is not None for chat in chats):
            batches = []
            for engine, chat, tokens in zip(slots, chats, wanted, strict=True):
                if chat is None:
                    continue
                if len(tokens) > 1:  # no logits of other slots are wanted any more
                    engine.prefill([*engine.tokens, *tokens[:-1]])
                batches.append((engine, (engine.append(tokens[-1]),)))
            self._model.advance_together(batches, slots[0].n_layer, logits=True)
            for engine, (row,) in batches:
                engine.commit(row)
            yield None
            for i, engine in enumerate(slots):
                chat = chats[i]
                while chat is not None:
                    try:
                        wanted[i] = next(chat)
                        break
                    except StopIteration as ended:
                        if ended.value is not None:
                            yield ended.value
                        chat = chats[i] = new_chat(engine)

    # ---- one conversation

    def _begin(self, engine: TrainingEngine) -> list[int]:
        """What is to be read before the question: nothing where the slot has read it for the chat before."""
        prefix = self._model.before_question
        keep = len(prefix) - 1 if engine.tokens[: len(prefix) - 1] == prefix[:-1] else 0
        engine.roll_back(keep)
        return prefix[keep:]

    def _free_chat(self, engine: TrainingEngine) -> Chat:
        question = yield from self._ask(engine)
        if question is None:
            return None
        key = _key(question)
        if len(question) < MIN_QUESTION or key in self._asked:
            return None
        self._asked.add(key)
        greedy = self._chance.random() < GREEDY_SHARE
        return (yield from self._reply(engine, _best if greedy else lambda best: self._draw(engine, self._answer)))

    def _given_chat(self, engine: TrainingEngine, question: list[int], answer: list[int] | None) -> Chat:
        yield [*self._begin(engine), *question]
        if answer is None:
            return (yield from self._reply(engine, _best))
        given = iter(answer[: self._settings.answer_tokens])
        return (yield from self._reply(engine, lambda best: next(given, None)))

    def _ask(self, engine: TrainingEngine) -> Generator[list[int], None, list[int] | None]:
        """Writes a question: its tokens, None for one that does not end."""
        if self._earlier and self._chance.random() < MATERIAL_SHARE:
            question = self._about_a_text()
            yield [*self._begin(engine), *question]
            return question
        question = self._model.encode(openers.beginning(self._chance))
        yield [*self._begin(engine), *question]
        while len(question) < self._settings.question_tokens:
            token = self._draw(engine, self._question)
            if engine.is_stop(token) or token == self._model.after_question[0]:
                return question
            question.append(token)
            yield [token]
        return None

    def _about_a_text(self) -> list[int]:
        """An instruction and some earlier answers."""
        material: list[int] = []
        for answer in self._chance.sample(self._earlier, min(len(self._earlier), self._chance.choice((1, 1, 2, 3)))):
            material += answer
        instruction = self._chance.choice(openers.ABOUT_A_TEXT) + "\n\n"
        return self._model.encode(instruction) + material[: self._settings.material_tokens]

    def _reply(self, engine: TrainingEngine, choose: Callable[[int], int | None]) -> Chat:
        """Answers the question that the slot has read, up to the first repeated n-gram. `choose`: the next token, where
        the model's best one is this; None at the end of the answer."""
        yield list(self._model.after_question)
        begin, best, final = engine.length, [], []
        answer: list[int] = []
        seen: set[tuple[int, ...]] = set()
        while True:
            expected = engine.greedy(0, self._plain)
            token = choose(expected)
            if token is None:
                break
            best.append(expected)
            final.append(_normalised(engine.hidden(engine.tip)))
            answer.append(token)
            gram = tuple(answer[-NGRAM:])
            ended = engine.is_stop(token) or gram in seen or len(answer) >= self._settings.answer_tokens
            yield [token]
            if ended or engine.length >= engine.n_ctx:
                break
            if len(gram) == NGRAM:
                seen.add(gram)
        if len(answer) < MIN_ANSWER:
            return None
        if len(answer) >= MIN_MATERIAL:
            self._earlier.append(answer[:-1])
        start = len(self._model.before_question)
        return Conversation(
            engine.tokens[start:],
            begin - start,
            best,
            engine.states(start, engine.length).astype(np.float16),
            np.stack(final).astype(np.float16),
        )

    def _draw(self, engine: TrainingEngine, sampler: Sampler) -> int:
        tokens, probs = engine.distribution(0, sampler)
        at = int(np.searchsorted(np.cumsum(probs), self._rng.random() * float(probs.sum())))
        return int(tokens[min(at, len(tokens) - 1)])


def _best(best: int) -> int:
    """Greedy."""
    return best


def _key(question: Sequence[int]) -> frozenset[int]:
    """Questions with the same tokens in whatever order are the same."""
    return frozenset(question)


def _normalised(state: Floats) -> Floats:
    """Divided by its root mean square: what the LM head's rows are made for."""
    result: Floats = state / np.sqrt(np.mean(np.square(state, dtype=np.float64)) + 1e-12).astype(np.float32)
    return result
