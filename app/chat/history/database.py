"""The file behind the history: one thread that writes it, reads beside that, migrations, and plain errors."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from specee.app.chat.history import inline_thoughts
from specee.app.chat.history.folding import fold_stored
from specee.app.chat.history.reading import heal
from specee.app.chat.history.schema import MIGRATIONS
from specee.app.errors import AppError
from specee.models import local_file

T = TypeVar("T")
DO_WITHOUT = "; --no-history does without"
BUSY_SECONDS = 10.0  # another specee-chat may be writing
HURRIED_SECONDS = 0.5  # the same in the thread of a screen, whose keys wait meanwhile
ATTEMPT_SECONDS = 0.1  # after which another write of this program may come first
NO_OWNER = """(owner IS NULL OR typeof(owner) <> 'text' OR owner = '' OR owner GLOB '*[^0-9a-f]*'
              OR instr(owner, char(0)))"""
"""What others may have written there; it must not become the name of a file."""
LOST = ("no such", "already exists", "duplicate column", "has no column")
"""What SQLite says where tables are not as our migrations leave them."""
READ_BUSY_SECONDS = 1.0  # reads wait for nobody who writes, only where the file is being recovered


class BusyError(AppError):
    """Another program writes."""


class Database:
    """An open history file; None is one in memory that nobody sees. Safe to use from any thread.

    Raises AppError when the file cannot be used; it is never deleted or replaced. `to_read`: for a command that writes
    nothing, so that a folder where nothing can be written will do. `otherwise` ends errors.
    """

    def __init__(self, path: Path | None, *, to_read: bool = False, otherwise: str = DO_WITHOUT) -> None:
        self.path = path
        self._otherwise = otherwise
        self._reads_beside = path is not None  # there is no other way to a history in memory
        self.owner = uuid.uuid4().hex
        self._alive: FileLock | None = None
        self._hurried: int | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="history")
        try:
            try:
                self._connection = self._thread.submit(self._with_plain_errors, self._open).result()
            except AppError as error:
                if not to_read or not _is_of_writing(error.__cause__):
                    raise
                self._connection = self._thread.submit(self._with_plain_errors, self._open_to_read).result()
        except BaseException:
            self._thread.shutdown()
            raise

    def do(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Runs `job`, which writes, in a transaction and returns its result; a job that fails changes nothing.

        While another program writes, it is tried again.
        """
        hurried = threading.get_ident() == self._hurried
        ends = time.monotonic() + (HURRIED_SECONDS if hurried else BUSY_SECONDS)
        while True:
            try:
                return self._thread.submit(
                    self._with_plain_errors, lambda: _transaction(self._connection, "BEGIN IMMEDIATE", job)
                ).result()
            except BusyError:
                if time.monotonic() >= ends:
                    raise

    def hurry_here(self) -> None:
        """The calling thread has no time to wait for another program."""
        self._hurried = threading.get_ident()

    def read(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Runs `job`, which only reads, in this thread: it waits for nobody who writes or reads, here or elsewhere."""
        path = self.path
        if path is None or not self._reads_beside:
            return self._thread.submit(
                self._with_plain_errors, lambda: _transaction(self._connection, "BEGIN", job)
            ).result()

        def work() -> T:
            with closing(_reader(path)) as connection:
                return _transaction(connection, "BEGIN", job)

        return self._with_plain_errors(work)

    def check(self) -> str:
        """What SQLite's integrity check says; "ok" when all is well."""
        return str(self.read(lambda db: db.execute("PRAGMA integrity_check(1)").fetchone()[0]))

    def mark_interrupted(self, db: sqlite3.Connection) -> None:
        """Marks answers whose program is gone: a running program holds a lock, which the system frees when it ends."""
        if self.path is None:  # nobody else sees it
            return
        nobody = "UPDATE turns SET state = 'interrupted', owner = NULL WHERE state = 'streaming' AND " + NO_OWNER
        db.execute(nobody)
        for (owner,) in db.execute("SELECT DISTINCT owner FROM turns WHERE state = 'streaming'").fetchall():
            lock = self._owner_lock(owner)
            try:
                lock.acquire(timeout=0)
            except (Timeout, OSError):  # it runs, or somebody has put something else there
                continue
            sql = "UPDATE turns SET state = 'interrupted', owner = NULL WHERE state = 'streaming' AND owner = ?"
            db.execute(sql, (owner,))
            _give_up(lock)

    def close(self) -> None:
        """Ends the thread once it has done what it was given."""
        with suppress(RuntimeError):  # closed before
            self._thread.submit(self._connection.close).result()
        self._thread.shutdown()
        if self._alive is not None:
            _give_up(self._alive)
            self._alive = None

    # ---- in the thread ---------------------------------------------------------------------------------------------

    def _with_plain_errors(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except sqlite3.OperationalError as error:
            if "locked" in str(error):  # Python 3.10 has no codes of errors
                why = f"another program is writing to it; try again{self._otherwise}"
                raise BusyError("the history is busy", f"{self.path}: {why}") from error
            if any(why in str(error) for why in LOST):
                raise self._damaged(f"its tables are not as they should be ({error})") from error
            full = "; is its disk full?" if any(why in str(error) for why in ("full", "disk I/O")) else ""
            raise AppError("the history cannot be used", f"{self.path}: {error}{full}{self._otherwise}") from error
        except sqlite3.DatabaseError as error:
            if type(error) is not sqlite3.DatabaseError:  # a broken constraint or the like: our mistake
                raise
            raise self._damaged(str(error)) from error
        except OSError as error:
            what = error.strerror or error
            where = error.filename or self.path  # a file beside it, perhaps
            raise AppError("the history cannot be used", f"{where}: {what}{self._otherwise}") from error

    def _damaged(self, what: str) -> AppError:
        why = f"{self.path}: {what}; it is left as it is: move it away to begin a new one{self._otherwise}"
        return AppError("the history is damaged", why)

    def _open_to_read(self) -> sqlite3.Connection:
        """Beside the file nothing can be written; without one, or in one that a full disk left without our tables,
        nothing was ever kept."""
        assert self.path is not None
        self._reads_beside = False
        if self.path.exists():
            _refuse_strangers(self.path)
            connection = _reader(self.path)
            if {name for name, _ in MIGRATIONS} == _applied(connection):
                return connection
            begun = _tables(connection)
            connection.close()
            if begun - {"migrations"}:
                why = f"{self.path} cannot be brought up to date where nothing can be written: copy it elsewhere"
                raise AppError("the history is from another version", why)
        connection = _connect(":memory:")
        _migrate(connection, None)
        return connection

    def _open(self) -> sqlite3.Connection:
        if self.path is None:
            connection = _connect(":memory:")
            _migrate(connection, None)
            return connection
        local_file.make_folder(self.path.parent)
        try:
            lock = FileLock(f"{self.path}.lock").acquire(BUSY_SECONDS)
        except Timeout as error:
            why = f"another specee-chat has been opening {self.path} for {BUSY_SECONDS:.0f} s; end it"
            raise AppError("the history cannot be used", f"{why}{self._otherwise}") from error
        with lock:  # two programs that start at once must not both migrate
            _refuse_strangers(self.path)
            _make_private(self.path)
            connection = _connect(str(self.path))
            try:
                _migrate(connection, self.path)
                self._alive = self._owner_lock(self.owner)
                self._alive.acquire()
                self._forget_the_dead()
                _set_timeout(connection, READ_BUSY_SECONDS)
                with suppress(sqlite3.OperationalError):  # somebody writes for long: the next start marks them
                    self.mark_interrupted(connection)
                _set_timeout(connection, ATTEMPT_SECONDS)
            except BaseException:
                connection.close()
                raise
        return connection

    def _forget_the_dead(self) -> None:
        """Deletes the locks of programs that were killed. Whoever makes one has the lock of the file, as we have."""
        assert self._alive is not None
        own = Path(self._alive.lock_file)
        for path in own.parent.glob("*.lock"):
            with suppress(Timeout, OSError):  # it runs, or it is something else
                if path != own:
                    (lock := FileLock(path, thread_local=False)).acquire(timeout=0)
                    _give_up(lock)

    def _owner_lock(self, owner: str) -> FileLock:
        assert self.path is not None
        folder = self.path.with_name("running")
        local_file.make_folder(folder)
        return FileLock(folder / f"{owner}.lock", thread_local=False)


def _give_up(lock: FileLock) -> None:
    """Where its file cannot be deleted, it stays."""
    lock.release()
    with suppress(OSError):
        Path(lock.lock_file).unlink()


def _transaction(connection: sqlite3.Connection, begin: str, job: Callable[[sqlite3.Connection], T]) -> T:
    connection.execute(begin)
    try:
        result = job(connection)
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # SQLite has rolled back some errors by itself
            connection.execute("ROLLBACK")
        raise
    return result


def _reader(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=READ_BUSY_SECONDS, isolation_level=None)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        connection.close()
        if not _is_of_writing(error):
            raise
        # the files that programs share cannot be made, so no other program has it open either
        uri = f"{path.resolve().as_uri()}?immutable=1"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA query_only = ON")
    heal(connection)
    return connection


def _is_of_writing(error: BaseException | None) -> bool:
    """Whether something failed because nothing can be written there."""
    if isinstance(error, sqlite3.OperationalError):
        return any(why in str(error) for why in ("readonly", "unable to open", "full", "disk I/O"))
    return isinstance(error, OSError) and error.errno in (
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.ENOSPC,
        errno.EDQUOT,
    )


def _connect(target: str) -> sqlite3.Connection:
    connection = sqlite3.connect(target, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    # a killed program loses nothing with NORMAL, a power cut at most the last transactions; the file stays sound
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA secure_delete = ON")  # what is deleted is gone from the file, with any build of SQLite
    connection.execute("PRAGMA trusted_schema = ON")  # triggers call our function
    heal(connection)
    connection.create_function("fold", 1, fold_stored, deterministic=True)
    inline_thoughts.register(connection)
    return connection


def _set_timeout(connection: sqlite3.Connection, seconds: float) -> None:
    connection.execute(f"PRAGMA busy_timeout = {seconds * 1000:.0f}")


def _refuse_strangers(path: Path) -> None:
    """Raises AppError for the file of another program, or of a newer version, before anything is changed in it."""
    if not path.exists():
        return
    local_file.require_regular(path)
    if not path.stat().st_size:
        return
    with closing(_reader(path)) as connection:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        tables = _tables(connection)
        named = "SELECT count(*) FROM pragma_table_info('migrations') WHERE name IN ('name', 'applied')"
        ours = "migrations" in tables and connection.execute(named).fetchone()[0] == 2
    if application or (tables and not ours):
        why = f"{path} is another program's; it is left as it is: take another --data-dir"
        raise AppError("not our history", why)
    if version:
        raise AppError("the history is from a newer version", f"{path} has version {version}; upgrade")


def _migrate(connection: sqlite3.Connection, path: Path | None) -> None:
    connection.execute("CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY, applied REAL NOT NULL)")
    applied = _applied(connection)
    if unknown := applied - {name for name, _ in MIGRATIONS}:
        raise AppError("the history is from a newer version", f"{path} has {', '.join(sorted(unknown))}; upgrade")
    for name, statements in MIGRATIONS:
        if name in applied:
            continue
        if applied and path is not None:
            _back_up(connection, path.with_name(f"{path.stem}-before-{name}{path.suffix}"))
        record = f"INSERT INTO migrations VALUES ('{name}', strftime('%s', 'now'));"
        try:
            connection.executescript(f"BEGIN IMMEDIATE; {statements} {record} COMMIT;")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _make_private(path: Path) -> None:
    """Makes the file, where it is not there, for this user alone; SQLite gives those beside it the same mode.

    Earlier versions did not: what they left becomes private, copies before migrations too.
    """
    if not path.exists():
        os.close(local_file.open_private(path, append=True))
    for each in (path, *path.parent.glob(f"{path.stem}-before-*{path.suffix}")):
        for beside in ("", "-wal", "-shm"):
            with suppress(OSError):  # another user's
                local_file.make_private(each.with_name(f"{each.name}{beside}"))


def _tables(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _applied(connection: sqlite3.Connection) -> set[str]:
    """The migrations that were done."""
    if "migrations" not in _tables(connection):
        return set()
    return {name for (name,) in connection.execute("SELECT name FROM migrations")}


def _back_up(connection: sqlite3.Connection, target: Path) -> None:
    _make_private(target)
    copy = sqlite3.connect(target)
    try:
        connection.backup(copy)
    finally:
        copy.close()
