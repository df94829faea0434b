"""What can be told of all models, here or not: gathered in threads that nobody waits for.

A disk may be slow or a network share silent, and a header takes a tenth of a second to read; what is known so far can
be asked for at any time.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from specee.app import error_log, model_catalogue
from specee.app.model_catalogue import CatalogueModel
from specee.app.options import DEFAULT_CTX, DEFAULT_KV_TYPE
from specee.app.paths import Paths
from specee.app.recommend import estimate, here, this_machine
from specee.app.recommend.candidate import LocalModel
from specee.app.recommend.machine import Machine
from specee.app.recommend.recommendation import Recommendation, recommend
from specee.app.settings import KVType
from specee.models import file_hash, registry, source
from specee.models.errors import ModelError

READERS = 2  # threads that read headers: a file that does not answer stops one
THREAD_NAME = "model survey"
PAUSE_SECONDS = 0.3  # between two rounds of estimates while headers come in


@dataclass(frozen=True)
class SurveyedModel:
    """A model with what can be said of it so far. `problem`: why its file cannot answer, empty for one that can;
    `read`: whether its header has been read, or there is none; `place`: where its file is, links followed."""

    model: CatalogueModel
    advice: Recommendation | None = None
    problem: str = ""
    read: bool = True
    place: Path | None = None

    @property
    def n_bytes(self) -> int:
        """Of its files, here or not; 0 where nobody knows."""
        if self.model.here:
            return self.model.n_bytes
        if self.advice is not None:
            return self.advice.file_bytes
        return self.model.entry.bytes if self.model.entry is not None else 0

    @property
    def argument(self) -> str:
        """What --model takes for it."""
        model = self.model
        if model.entry is None and model.here and source.parse(model.name) is None:
            return str(model.paths[0])
        return model.name


class ModelSurvey:
    """`changed` is called, from any thread, when there is more to tell."""

    def __init__(
        self,
        folders: Paths,
        changed: Callable[[], object],
        *,
        loaded: Path | None = None,
        window: int = DEFAULT_CTX,
        kv_type: KVType = DEFAULT_KV_TYPE,
        former: ModelSurvey | None = None,
    ) -> None:
        """`loaded`: the file of the model that is loaded now, whose memory another one would have, and whose folder may
        have others; `window`: tokens that memory is counted for, with keys and values as `kv_type`; `former`: the
        survey before, whose estimates hold until there are new ones."""
        self._folders, self._changed, self._loaded = folders, changed, loaded
        self._window, self._kv_type = window, kv_type
        self._lock = threading.Lock()
        self._named = {name: CatalogueModel(name, entry=entry) for name, entry in registry.entries().items()}
        self._files: dict[str, CatalogueModel] = {}
        self._places: dict[str, Path] = {}  # of those that are here, links followed
        self._local: dict[str, LocalModel] = {}
        self._problems: dict[str, str] = {}
        self._advice: dict[str, Recommendation] = dict(former._advice) if former is not None else {}
        self._machine: Machine | None = None
        self._unread: queue.Queue[CatalogueModel] = queue.Queue()
        self._searching = 0
        self._estimated = 0.0
        self._stopped = False

    # ---- what is known ---------------------------------------------------------------------------------------------

    @property
    def models(self) -> list[SurveyedModel]:
        """All models, those of the registry first. A file that has a name is there once, with that name."""
        with self._lock:
            named = [model for model in self._named.values() if model.here]
            known = {self._places[model.name] for model in named}
            hashes = {self._local[model.name].sha256 for model in named if model.name in self._local} - {None}
            files = [
                model
                for model in self._files.values()
                if self._places[model.name] not in known
                and (model.name not in self._local or self._local[model.name].sha256 not in hashes)
            ]
            return [self._surveyed(model) for model in (*self._named.values(), *files)]

    @property
    def searching(self) -> bool:
        """Whether there may be models here that were not found yet."""
        return self._searching > 0

    def advice(self, name: str) -> Recommendation | None:
        """What can be said of the model of this name so far."""
        return self._advice.get(name)

    @property
    def machine(self) -> Machine | None:
        """None until it is known."""
        return self._machine

    def _surveyed(self, model: CatalogueModel) -> SurveyedModel:
        name = model.name
        read = not model.here or name in self._local or name in self._problems
        place = self._places.get(name)
        return SurveyedModel(model, self._advice.get(name), self._problems.get(name, ""), read, place)

    # ---- threads ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Looks at everything, once."""
        self._searching = 2
        readers = [self._read_headers] * READERS
        for work in (self._find_named, self._find_files, self._know_machine, *readers):
            threading.Thread(target=self._run, args=(work,), name=THREAD_NAME, daemon=True).start()

    def stop(self) -> None:
        """Nothing more is told."""
        self._stopped = True

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # the rest goes on without it
            error_log.record(self._folders.logs, error)
        if not self._stopped:
            self._changed()

    def _find_named(self) -> None:
        try:
            for model in model_catalogue.models(self._folders):
                self._found(self._named, model)
        finally:
            self._searched()

    def _find_files(self) -> None:
        try:
            for path in file_hash.known_files(self._folders.cache):
                with suppress(OSError):
                    if (model := model_catalogue.of_file(path)) is not None:
                        self._found(self._files, model)
            if self._loaded is not None:
                for model in model_catalogue.beside(self._loaded):
                    self._found(self._files, model)
        finally:
            self._searched()

    def _searched(self) -> None:
        with self._lock:
            self._searching -= 1

    def _found(self, models: dict[str, CatalogueModel], model: CatalogueModel) -> None:
        place = model.paths[0].resolve() if model.here else None
        with self._lock:
            is_new = model.name not in models or models[model.name].paths != model.paths
            models[model.name] = model
            if place is not None:
                self._places[model.name] = place
        if is_new and model.here:
            self._unread.put(model)
        if not self._stopped:
            self._changed()

    def _know_machine(self) -> None:
        self._machine = this_machine.look(self._folders)
        self._estimate(at_once=True)

    def _read_headers(self) -> None:
        while not self._stopped:
            try:
                model = self._unread.get(timeout=0.1)
            except queue.Empty:
                if self._searching == 0:
                    break
                continue
            self._read(model)
            self._estimate()
        self._estimate(at_once=True)

    def _read(self, model: CatalogueModel) -> None:
        try:
            local = here.local_model(model.paths[0], model.where, self._folders)
        except ModelError as error:
            with self._lock:
                self._problems[model.name] = f"{error.title}: {error.message}"
        except Exception as error:  # it has gone, for example
            with self._lock:
                self._problems[model.name] = f"it cannot be read: {error}"
        else:
            with self._lock:
                self._local[model.name] = local

    def _estimate(self, *, at_once: bool = False) -> None:
        """What the machine can do with the models that are known by now."""
        machine, now = self._machine, time.monotonic()
        if machine is None or (now - self._estimated < PAUSE_SECONDS and not at_once):
            return
        self._estimated = now
        with self._lock:
            local = dict(self._local)
            held = next((name for name, place in self._places.items() if place == self._loaded and name in local), None)
        if held is not None and machine.free_ram is not None:
            in_use = estimate.needed_memory(local[held].facts, self._window, self._kv_type)
            machine = self._machine = replace(machine, free_ram=machine.free_ram + in_use)
            self._loaded = None
        found = recommend(
            machine,
            registry.entries().values(),
            local,
            here.experience(self._folders, machine),
            here.draft_heads(self._folders, local),
            window=self._window,
            kv_type=self._kv_type,
        )
        with self._lock:
            self._advice = {one.name: one for one in found}
        if not self._stopped:
            self._changed()
