"""The model talks to itself: given only the beginning of a user's turn it writes a question, and answers it.

After "Magpie: Alignment Data Synthesis from Scratch by Prompting Aligned LLMs with Nothing" (Xu et al., 2024), with
what small models need besides: beginnings of questions, and questions about texts that it wrote before.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

from specee.predictors.repetition import NGRAM
from specee.predictors.training import openers
from specee.predictors.training.conversations import Conversation
from specee.predictors.training.settings import Settings, Slot, TrainedModel

QUESTION, ANSWER = (1.0, 0.98), (0.7, 0.95)  # temperature, top-p
GREEDY_SHARE = 0.5
"""Of the answers; the others are drawn."""
MATERIAL_SHARE = 0.2
"""Of the questions: about earlier answers."""
MIN_QUESTION, MIN_ANSWER, MIN_MATERIAL = 3, 8, 40  # tokens
READ_SHARE = 0.06
"""Of the slots; while fewer have more than a token to read, they wait."""
N_EARLIER = 64  # answers that questions may be about

Chat = Generator[list[int], None, Conversation | None]
"""Yields tokens that it wants appended: it reads the last one's logits then. Ends with what is worth keeping."""


class SelfChat:
    """Conversations in all slots of the engine, in one batch."""

    def __init__(self, model: TrainedModel, settings: Settings, seed: int, known: Iterable[list[int]] = ()) -> None:
        """`known`: questions that were asked before; they are not asked again."""
        self._model, self._settings = model, settings
        self._chance = random.Random(seed)
        self._asked = {_key(question) for question in known}
        self._earlier: deque[list[int]] = deque(maxlen=N_EARLIER)

    def run(self) -> Iterator[Conversation | None]:
        """Conversations without end; None between two steps, for whoever counts the time."""
        return self._run(self._free_chat)

    def answers(self, questions: Sequence[str]) -> Iterator[Conversation | None]:
        """The model's greedy answers to these questions."""
        return self.read([(question, None) for question in questions])

    def read(self, exchanges: Sequence[tuple[str, str | None]]) -> Iterator[Conversation | None]:
        """Questions with answers that were given to them, or, where there are none, the model's greedy ones."""
        left = deque(exchanges)

        def chat(slot: Slot) -> Chat | None:
            while left:
                question, answer = (None if text is None else self._model.encode(text) for text in left.popleft())
                room = slot.n_ctx - len(self._model.before_question) - len(self._model.after_question)
                if question and len(question) + self._settings.answer_tokens < room:
                    return self._given_chat(slot, question, answer)
            return None

        return self._run(chat)

    def _run(self, new_chat: Callable[[Slot], Chat | None]) -> Iterator[Conversation | None]:
        """Each step gives every slot's chat the tokens that it wants, those of all slots in one batch."""
        slots = list(self._model.slots)
        chats = [new_chat(slot) for slot in slots]
        wanted = [next(chat) if chat is not None else [] for chat in chats]
        while any(chat is not None for chat in chats):
            live = [i for i, chat in enumerate(chats) if chat is not None]
            going_on = [i for i in live if len(wanted[i]) == 1]
            # a second pass over the model for those that have more to read: not for a few of many
            if len(live) - len(going_on) > READ_SHARE * len(slots) or not going_on:
                going_on = live
            self._model.read([(slots[i], wanted[i]) for i in going_on])
            yield None
            for i in going_on:
                chat = chats[i]
                while chat is not None:
                    try:
                        wanted[i] = next(chat)
                        break
                    except StopIteration as ended:
                        if ended.value is not None:
                            yield ended.value
                        chat = chats[i] = new_chat(slots[i])

    # ---- one conversation

    def _begin(self, slot: Slot) -> list[int]:
        """What is to be read before the question: nothing where the slot has read it for the chat before."""
        prefix = self._model.before_question
        keep = len(prefix) - 1 if slot.tokens[: len(prefix) - 1] == prefix[:-1] else 0
        slot.roll_back(keep)
        return prefix[keep:]

    def _free_chat(self, slot: Slot) -> Chat:
        question = yield from self._ask(slot)
        if question is None:
            return None
        key = _key(question)
        if len(question) < MIN_QUESTION or key in self._asked:
            return None
        self._asked.add(key)
        if self._chance.random() < GREEDY_SHARE:
            return (yield from self._reply(slot, _best))
        return (yield from self._reply(slot, lambda best: slot.draw(*ANSWER, self._chance.random())))

    def _given_chat(self, slot: Slot, question: list[int], answer: list[int] | None) -> Chat:
        yield [*self._begin(slot), *question]
        if answer is None:
            return (yield from self._reply(slot, _best))
        given = iter(answer[: self._settings.answer_tokens])
        return (yield from self._reply(slot, lambda best: next(given, None)))

    def _ask(self, slot: Slot) -> Generator[list[int], None, list[int] | None]:
        """Writes a question: its tokens, None for one that does not end."""
        if self._earlier and self._chance.random() < MATERIAL_SHARE:
            question = self._about_a_text()
            yield [*self._begin(slot), *question]
            return question
        question = self._model.encode(openers.beginning(self._chance))
        yield [*self._begin(slot), *question]
        while len(question) < self._settings.question_tokens:
            token = slot.draw(*QUESTION, self._chance.random())
            if self._model.is_stop(token) or token == self._model.after_question[0]:
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

    def _reply(self, slot: Slot, choose: Callable[[int], int | None]) -> Chat:
        """Answers the question that the slot has read, up to the first repeated n-gram. `choose`: the next token, where
        the model's best one is this; None at the end of the answer."""
        yield list(self._model.after_question)
        begin, best = len(slot.tokens), []
        answer: list[int] = []
        seen: set[tuple[int, ...]] = set()
        while True:
            expected = slot.best()
            token = choose(expected)
            if token is None:
                break
            best.append(expected)
            answer.append(token)
            gram = tuple(answer[-NGRAM:])
            ended = self._model.is_stop(token) or gram in seen or len(answer) >= self._settings.answer_tokens
            yield [token]
            if ended or len(slot.tokens) >= slot.n_ctx:
                break
            if len(gram) == NGRAM:
                seen.add(gram)
        if len(answer) < MIN_ANSWER:
            return None
        if len(answer) >= MIN_MATERIAL:
            self._earlier.append(answer[:-1])
        start, end = len(self._model.before_question), len(slot.tokens)
        return Conversation(
            slot.tokens[start:], begin - start, best, slot.states(start, end), slot.final(begin - 1, end - 1)
        )


def _best(best: int) -> int:
    """Greedy."""
    return best


def _key(question: Sequence[int]) -> frozenset[int]:
    """Questions with the same tokens in whatever order are the same."""
    return frozenset(question)
