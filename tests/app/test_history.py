"""The history: a tree of turns that survives what happens to programs."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from specee.app.chat.history import database, export, schema
from specee.app.chat.history.folding import fold_stored
from specee.app.chat.history.recent import recent_answers, recent_exchanges
from specee.app.chat.history.recorder import Recorder
from specee.app.chat.history.records import StoredToken, pack, unpack
from specee.app.chat.history.store import Store
from specee.app.engine.protocol import ChatEvent, Stats
from specee.app.errors import AppError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data" / "history.sqlite"


def event(index: int, text: str, layer: int = 30, **more: Any) -> ChatEvent:
    return ChatEvent(index, text, 1, layer, more.pop("state", "verified"), 0.0, **more)


def grow(recorder: Recorder, *texts: str, state: Any = "complete") -> int:
    for index, text in enumerate(texts):
        recorder.add(event(index, text, 24 if index % 2 else 30))
    recorder.finish(state)
    return recorder.turn.id


def test_a_tree_of_turns(file: Path) -> None:
    store = Store(file)
    chat = store.new_chat("Why is the sky blue?\nPlease say.", "Be kind.", {"temperature": 0.5})
    assert chat.title == "Why is the sky blue?" and chat.options == {"temperature": 0.5}
    question = store.add_question(chat.id, None, "Why?")
    first = grow(store.add_answer(chat.id, question), "Be", "cause")
    assert [t.content for t in store.branch(chat.id)] == ["Why?", "Because"]
    assert store.branch(chat.id)[1].tokens == (StoredToken(30, 2), StoredToken(24, 5))
    second = grow(store.add_answer(chat.id, question), "Light")
    assert [(t.content, t.place, t.siblings) for t in store.branch(chat.id)] == [("Why?", 1, 1), ("Light", 2, 2)]
    assert store.siblings(second) == [first, second]
    store.switch_branch(first)
    assert store.branch(chat.id)[-1].id == first and len(store.tree(chat.id)) == 3
    store.close()
    again = Store(file)
    assert [t.content for t in again.branch(chat.id)] == ["Why?", "Because"]
    assert again.chats()[0].turns == 3 and again.check() == "ok"
    again.delete_chat(chat.id)
    assert again.chats() == [] and again.search("Because") == []
    with pytest.raises(AppError, match="no such chat"):
        again.chat(chat.id)
    again.close()


def test_an_answer_is_written_while_it_grows(file: Path) -> None:
    store, other = Store(file), Store(file)
    chat = store.new_chat("x", None, {})
    recorder = store.add_answer(chat.id, store.add_question(chat.id, None, "x"))
    recorder.add(event(0, "Hello"))
    recorder.add(event(1, "?", state="provisional"))
    time.sleep(0.5)  # longer than the interval; nothing else comes
    turn = other.branch(chat.id)[-1]
    assert (turn.content, turn.state) == ("Hello", "streaming")
    recorder.finish("stopped")
    assert other.branch(chat.id)[-1].state == "stopped"
    store.close()
    other.close()


def test_the_rest_of_a_character_belongs_to_its_token() -> None:
    store = Store()
    chat = store.new_chat("x", None, {})
    recorder = store.add_answer(chat.id, store.add_question(chat.id, None, "x"))
    for item in (event(0, "a"), event(1, ""), event(1, "\ufffd"), event(2, "", stop=True)):
        recorder.add(item)
    recorder.finish("complete")
    turn = store.branch(chat.id)[-1]
    assert turn.tokens == (StoredToken(30, 1), StoredToken(30, 1)) and turn.content == "a\ufffd"
    grow(store.continue_answer(turn.id), "b", "c")
    assert store.branch(chat.id)[-1].tokens == (
        StoredToken(30, 1),
        StoredToken(30, 1),
        StoredToken(30, 1),
        StoredToken(24, 1),
    )
    assert store.search("bc") != []
    store.close()


def test_what_another_program_writes_is_not_interrupted_and_what_a_dead_one_wrote_is(file: Path) -> None:
    store = Store(file)
    chat = store.new_chat("x", None, {})
    recorder = store.add_answer(chat.id, store.add_question(chat.id, None, "x"))
    recorder.add(event(0, "growing words"))
    Store(file).close()
    assert store.branch(chat.id)[-1].state == "streaming"
    recorder.finish("complete")
    turn = recorder.turn.id
    store._database.do(
        lambda db: db.execute("UPDATE turns SET state = 'streaming', owner = 'gone' WHERE id = ?", (turn,))
    )
    store.close()
    again = Store(file)
    assert again.branch(chat.id)[-1].state == "interrupted"
    assert [hit.turn for hit in again.search("growing")] == [turn]
    again.close()
    assert not any((file.parent / "running").iterdir())


def test_search_finds_words_in_all_chats(file: Path) -> None:
    store = Store(file)
    for text in ('the "quick" fox', "a slow fox", "nothing of it"):
        chat = store.new_chat(text, None, {})
        grow(store.add_answer(chat.id, store.add_question(chat.id, None, text)), "I see.")
    assert {hit.title for hit in store.search("fox")} == {'the "quick" fox', "a slow fox"}
    assert [hit.role for hit in store.search('"quick" fo')] == ["user"]
    assert store.search("  ") == [] and store.search('NOT " AND') == []
    assert len(store.search("see", limit=2)) == 2
    store.close()


@pytest.mark.parametrize(
    ("text", "search"),
    [
        ("what is C++17?", "C++"),
        ("what is C++17?", "c++17"),
        ("is F# or C# older", "F#"),
        ("東京の天気はどうですか", "天気"),
        ("東京の天気はどうですか", "東京の天"),
        ("今天天气怎么样", "天"),
        ("서울의 날씨", "날씨"),
        ("the parliamentarians", "ament"),
        ("an ÜBUNG", "übung"),
        ("an Übung", "ÜB"),
        ("x = a->b && c", "->b &&"),
        ("smile 🙂 please", "🙂"),
        ("100% of it", "100% it"),
        ("snake_case and 'quotes'", "_case 'quo"),
        ('say "hi" (now)', '"hi" (now)'),
        ("a*b OR c NOT d", "OR NOT a*b"),
        ("path /usr/lib64", "usr/lib"),
        ("caf\u00e9", "cafe\u0301"),
        ("a CAF\u00c9.", "cafe"),
        ("a cafe.", "CAFE\u0301"),
        ("Stra\u00dfe", "STRASSE"),
        ("in Łódź", "lodz"),
        ("Việt Nam", "viet nam"),
        ("\u0130stanbul", "istanbul"),
        ("Ёлка", "елка"),
        ("ΟΔΟΣ", "οδός"),
        ("a ﬁne day", "FINE"),
        ("ＡＢＣ", "abc"),  # noqa: RUF001
        ("ｶﾞｽ", "ガス"),
        ("\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd", "\u05e9\u05dc\u05d5\u05dd"),
        ("\u0643\u0650\u062a\u0627\u0628", "\u0643\u062a\u0627\u0628"),
        ("हिन्दी में", "न्दी"),
        ("ราคาเท่าไหร่", "เท่า"),
        ("co\u00adoperate", "coop"),
        ("ž", "Z"),
    ],
)
def test_search_finds_any_part_of_a_text(text: str, search: str) -> None:
    store = Store()
    for content in (text, "something else"):
        chat = store.new_chat(content, None, {})
        store.add_question(chat.id, None, content)
    (hit,) = store.search(search)
    assert (hit.title, hit.excerpt) == (text, text)
    assert store.search(search + " nowhere") == [] and store.search(search + " zz") == []
    store.close()


@pytest.mark.parametrize(
    ("text", "search"),
    [("हिन्दी", "हनद"), ("ต้น", "ตน"), ("ガス", "カス"), ("날씨", "나"), ("кот", "kot"), ("ab", "a b c")],
)
def test_marks_that_are_letters_are_no_accents(text: str, search: str) -> None:
    store = Store()
    store.add_question(store.new_chat(text, None, {}).id, None, text)
    assert store.search(search) == [] and store.search(text) != []
    store.close()


def test_an_excerpt_is_around_the_match() -> None:
    store = Store()
    chat = store.new_chat("x", None, {})
    store.add_question(chat.id, None, "before " * 100 + "Needle\n" + "after " * 100)
    (hit,) = store.search("needle")
    assert hit.excerpt.startswith("…") and " Needle after " in hit.excerpt and hit.excerpt.endswith("…")
    assert len(hit.excerpt) < 110
    store.add_question(chat.id, None, "Ünd ß ﬁ " * 100 + "dás Cafe\u0301 ist zu " + "Ünd " * 100)
    (hit,) = store.search("DAS CAFÉ")
    assert "dás Cafe\u0301 ist" in hit.excerpt and len(hit.excerpt) < 110
    store.close()


@pytest.mark.parametrize("steps", range(2, len(schema.MIGRATIONS)))
def test_an_older_history_is_searched_as_well(file: Path, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    monkeypatch.setattr(database, "MIGRATIONS", schema.MIGRATIONS[:steps])
    file.parent.mkdir()
    with sqlite3.connect(file) as old:
        old.create_function("fold", 1, fold_stored, deterministic=True)
        database._migrate(old, file)
        old.execute("INSERT INTO chats (title, created, updated) VALUES ('x', 1, 1)")
        for content in ("'東京のカフェ Café'", "CAST(x'436166c3' AS TEXT)", "'growing café'", "''"):
            state = "streaming" if "growing" in content else "complete"
            sql = "INSERT INTO turns (chat_id, role, content, state, created, owner) VALUES (1, 'user', "
            old.execute(f"{sql}{content}, '{state}', 1, 'nobody')")
        before = old.execute("SELECT id, hex(content) FROM turns").fetchall()
    old.close()
    monkeypatch.undo()
    store = Store(file)
    assert [hit.excerpt for hit in store.search("京のカ")] == ["東京のカフェ Café"]
    assert {hit.turn for hit in store.search("CAFE")} == {1, 3}
    assert {hit.turn for hit in store.search("caf")} == {1, 2, 3}
    assert store._database.read(lambda db: db.execute("SELECT id, hex(content) FROM turns").fetchall()) == before
    store.delete_chat(1)
    assert store.search("京のカ") == [] and store.search("cafe") == []
    assert store._database.read(lambda db: db.execute("SELECT count(*) FROM words").fetchone()) == (0,)
    store.close()


def test_thoughts_in_older_answers_stand_apart(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are shown folded, and neither sent, exported nor found."""
    monkeypatch.setattr(database, "MIGRATIONS", schema.MIGRATIONS[:-1])
    store = Store(file)
    chat = store.new_chat("x", None, {})
    question = store.add_question(chat.id, None, "<think>typed</think> 2 + 2?")
    contents = {
        "<think>\nfirst, add\n</think>\n\nIt is four.": ("first, add", "It is four."),
        "still adding\n</think>\n\nFour it is.": ("still adding", "Four it is."),
        "<think>cut of": ("cut of", ""),
        "<seed:think>a</seed:think>Four": ("a", "Four"),
        "The tag `</think>` ends a thought.\n": ("", "The tag `</think>` ends a thought.\n"),
        "Write <think>\na\n</think>\n\nand b.": ("", "Write <think>\na\n</think>\n\nand b."),
        "": ("", ""),
    }
    sql = "INSERT INTO turns (chat_id, parent_id, role, content, state, created, depths)"
    for content in contents:
        values = (chat.id, question, "assistant", content, "complete", 1.0, bytes((3, len(content))))
        store._database.do(lambda db, values=values: db.execute(f"{sql} VALUES (?, ?, ?, ?, ?, ?, ?)", values))
    store.close()
    monkeypatch.undo()
    store = Store(file)
    turns = [turn for turn in store.tree(chat.id) if turn.role == "assistant"]
    assert [(turn.thought, turn.content) for turn in turns] == list(contents.values())
    for turn in turns:
        assert sum(token.characters for token in turn.tokens) == len(turn.thought) + len(turn.content)
    assert store.tree(chat.id)[0].content == "<think>typed</think> 2 + 2?"
    assert store.search("adding") == [] and [hit.turn for hit in store.search("four it")] == [turns[1].id, turns[0].id]
    store.close()
    assert file.with_name("history-before-inline-thoughts.sqlite").exists()


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_a_history_of_before_becomes_private(file: Path) -> None:
    Store(file).close()
    copy = file.with_name("history-before-search.sqlite")
    copy.touch()
    for each in (file, copy):
        each.chmod(0o644)
    Store(file).close()
    assert [each.stat().st_mode & 0o777 for each in (file, copy)] == [0o600, 0o600]


def test_reads_wait_for_nobody_who_writes(file: Path) -> None:
    """Another program holds the write lock for long, and a write of our own waits for it."""
    store = Store(file)
    chat = store.new_chat("sky", None, {})
    answer = grow(store.add_answer(chat.id, store.add_question(chat.id, None, "Why is the sky blue?")), "Because")
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("UPDATE chats SET title = 'not committed'")
    ours = threading.Thread(target=store.update_chat, args=(chat.id,), kwargs={"title": "ours"})
    ours.start()
    time.sleep(0.1)
    began = time.monotonic()
    assert [c.title for c in store.chats()] == ["sky"] and store.chat(chat.id).turns == 2
    assert [t.id for t in store.branch(chat.id)][-1] == answer and len(store.tree(chat.id)) == 2
    assert store.siblings(answer) == [answer] and [hit.turn for hit in store.search("Because")] == [answer]
    assert store.check() == "ok"
    again = Store(file)  # also to open it
    assert again.chats()[0].title == "sky"
    again.close()
    assert time.monotonic() - began < 3, "none of them waited for a lock"
    assert ours.is_alive()
    other.execute("ROLLBACK")
    other.close()
    ours.join()
    assert store.chat(chat.id).title == "ours"
    store.close()


def test_a_file_with_interrupted_answers_opens_while_somebody_writes(file: Path) -> None:
    store = Store(file)
    chat = store.new_chat("x", None, {})
    turn = grow(store.add_answer(chat.id, store.add_question(chat.id, None, "x")), "half")
    sql = "UPDATE turns SET state = 'streaming', owner = 'gone' WHERE id = ?"
    store._database.do(lambda db: db.execute(sql, (turn,)))
    store.close()
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    again = Store(file)
    assert again.branch(chat.id)[-1].content == "half"
    again.close()
    other.execute("ROLLBACK")
    other.close()
    again = Store(file)
    assert again.branch(chat.id)[-1].state == "interrupted"
    again.close()


def test_a_read_cannot_write(file: Path) -> None:
    store = Store(file)
    with pytest.raises(AppError, match="readonly"):
        store._database.read(lambda db: db.execute("DELETE FROM chats"))
    store.close()


def test_a_program_that_hangs_while_it_opens_the_file_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.2)
    file.parent.mkdir()
    with FileLock(f"{file}.lock"), pytest.raises(AppError, match="another specee-chat"):
        Store(file)
    Store(file).close()


def test_a_question_is_deleted() -> None:
    store = Store()
    chat = store.new_chat("x", None, {})
    question = store.add_question(chat.id, None, "x")
    answer = grow(store.add_answer(chat.id, question), "y")
    other = store.add_question(chat.id, answer, "z")
    store.add_answer(chat.id, other).finish("interrupted")
    store.delete_turn(other, answer)
    assert [t.content for t in store.branch(chat.id)] == ["x", "y"]
    store.delete_turn(question, None)
    assert store.chats() == []
    store.close()


@pytest.mark.parametrize("content", [b"this is no database, whatever its name", b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_damaged_file_is_reported_and_kept(file: Path, content: bytes) -> None:
    file.parent.mkdir()
    file.write_bytes(content)
    with pytest.raises(AppError, match="damaged") as caught:
        Store(file)
    assert str(file) in caught.value.line and "\n" not in caught.value.line
    assert file.read_bytes() == content


def test_damage_in_the_middle_is_reported(file: Path) -> None:
    store = Store(file)
    for _ in range(50):
        chat = store.new_chat("x" * 40, None, {})
        grow(store.add_answer(chat.id, store.add_question(chat.id, None, "words " * 200)), "y")
    store.close()
    whole = bytearray(file.read_bytes())
    whole[8192:-4096] = b"\xa5" * (len(whole) - 12288)
    file.write_bytes(whole)
    with pytest.raises(AppError, match="damaged"):
        store = Store(file)
        try:
            [store.branch(chat.id) for chat in store.chats()]
        finally:
            store.close()
    assert file.read_bytes()[8192:16384] == whole[8192:16384]


def test_a_backup_before_a_migration_and_a_failed_one_leaves_nothing(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(file)
    store.new_chat("kept", None, {})
    store.close()
    broken = (*schema.MIGRATIONS, ("stars", "ALTER TABLE chats ADD star INTEGER; SELECT nonsense;"))
    monkeypatch.setattr(database, "MIGRATIONS", broken)
    with pytest.raises(AppError, match="nonsense"):
        Store(file)
    good = (*schema.MIGRATIONS, ("stars", "ALTER TABLE chats ADD star INTEGER;"))
    monkeypatch.setattr(database, "MIGRATIONS", good)
    Store(file).close()
    backup = sqlite3.connect(file.with_name("history-before-stars.sqlite"))
    assert backup.execute("SELECT title FROM chats").fetchall() == [("kept",)]
    backup.close()
    monkeypatch.setattr(database, "MIGRATIONS", schema.MIGRATIONS)
    with pytest.raises(AppError, match="newer version"):
        Store(file)


def test_tokens_are_packed_in_two_bytes() -> None:
    tokens = (StoredToken(30, 4), StoredToken(300, 999))
    assert unpack(pack(tokens), {}) == (StoredToken(30, 4), StoredToken(255, 255)) and unpack(None, {}) == ()


def test_what_drafted_a_token_is_kept_with_the_figures(file: Path) -> None:
    store = Store(file)
    chat = store.new_chat("x", None, {})
    recorder = store.add_answer(chat.id, store.add_question(chat.id, None, "x"))
    for index, drafter in enumerate((None, "suffix", "retrieval", None)):
        recorder.add(event(index, "a", drafter=drafter))
    recorder.finish("stopped", make_stats())
    again = store.continue_answer(recorder.turn.id)
    again.add(event(0, "b", drafter="suffix"))
    again.finish("complete", make_stats())
    store.close()
    store = Store(file)
    turn = store.branch(chat.id)[-1]
    assert [token.drafter for token in turn.tokens] == [None, "suffix", "retrieval", None, "suffix"]
    assert turn.stats == asdict(make_stats())
    # what earlier versions wrote, and what they read of it
    packed, stats = store._database.do(lambda db: db.execute("SELECT depths, stats FROM turns WHERE id = 2").fetchone())
    assert packed == bytes([30, 1] * 5) and json.loads(stats)["policy"] == "chain"
    store._database.do(lambda db: db.execute('UPDATE turns SET stats = \'{"policy": "chain"}\' WHERE id = 2'))
    assert [token.drafter for token in store.branch(chat.id)[-1].tokens] == [None] * 5
    store.close()


def make_stats() -> Stats:
    return Stats(1, 0, 5, 0.1, 0.2, 50.0, 30.0, 30, "chain", "drafting tokens", "stop", 1)


def test_the_engine_reads_the_last_answers(tmp_path: Path) -> None:
    path = tmp_path / "it's #1 %41?.sqlite"
    assert recent_answers(path) == []
    store = Store(path)
    chat = store.new_chat("one", None, {})
    for text in ("first", "second", "third"):
        grow(store.add_answer(chat.id, store.add_question(chat.id, None, "q")), text)
    assert recent_answers(path) == ["third", "second", "first"], "also while it is open"
    assert recent_answers(path, 11) == ["third", "second"]
    store.close()
    for damaged in (b"no database", b""):
        path.write_bytes(damaged)
        assert recent_answers(path) == []


def test_turns_in_a_circle_are_read_to_an_end(tmp_path: Path) -> None:
    store = Store(tmp_path / "history.sqlite")
    chat = store.new_chat("a", None, {})
    first = store.add_question(chat.id, None, "a")
    second = store.add_question(chat.id, first, "b")
    store.close()
    with closing(sqlite3.connect(tmp_path / "history.sqlite")) as damaged:
        damaged.execute("UPDATE turns SET parent_id = ?", (second,))
        damaged.commit()
    store = Store(tmp_path / "history.sqlite")
    assert [turn.id for turn in store.branch(chat.id)] == [second]
    assert len(store.tree(chat.id)) == 2
    store.close()


def test_a_screen_does_not_wait_for_another_program(tmp_path: Path) -> None:
    """Its writes fail soon, also while an answer of its own waits to be written, which then is."""
    path = tmp_path / "history.sqlite"
    store = Store(path)
    chat = store.new_chat("x", None, {})
    recorder = store.add_answer(chat.id, store.add_question(chat.id, None, "x"))
    store.hurry_here()
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    answering = threading.Thread(target=recorder.finish, args=("complete",))
    answering.start()
    for _ in range(3):
        began = time.monotonic()
        with pytest.raises(AppError, match=r"the history is busy: .* try again"):
            store.update_chat(chat.id, system="brief")
        assert time.monotonic() - began < 1.0
        began = time.monotonic()
        assert store.chat(chat.id).system is None
        assert time.monotonic() - began < 0.5
    other.execute("COMMIT")
    other.close()
    answering.join()
    assert store.branch(chat.id)[-1].state == "complete"
    assert store.update_chat(chat.id, system="brief").system == "brief"
    store.close()


def test_programs_that_start_at_once_share_the_file(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from specee.app.chat.history.store import Store\n"
        "store = Store(Path(sys.argv[1]))\n"
        "for n in range(20):\n"
        "    chat = store.new_chat(f'{n}', None, {})\n"
        "    recorder = store.add_answer(chat.id, store.add_question(chat.id, None, 'x'))\n"
        "    recorder.finish('complete')\n"
        "store.close()\n"
    )
    path = tmp_path / "new" / "history.sqlite"
    running = [
        subprocess.Popen([sys.executable, "-c", program, str(path)], stderr=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    for child in running:
        assert child.communicate(timeout=60)[1] == "" and child.returncode == 0
    store = Store(path)
    assert len(store.chats()) == 120 and store.check() == "ok"
    store.close()
    assert not list((tmp_path / "new" / "running").iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_killed_programs_leave_no_locks_that_pile_up(file: Path) -> None:
    running = file.parent / "running"
    code = f"""
import os
from pathlib import Path
from specee.app.chat.history.store import Store
store = Store(Path({str(file)!r}))
os.kill(os.getpid(), {{}})
"""
    for number in (1, 9, 15, 9):  # SIGHUP, SIGKILL, SIGTERM
        subprocess.run([sys.executable, "-c", code.format(number)], check=False)
        assert len(list(running.iterdir())) == 1
    alive, other = Store(file), Store(file)
    assert len(list(running.iterdir())) == 2, "those that run have theirs, and the dead have none"
    alive.close()
    other.close()
    assert not list(running.iterdir())


@pytest.mark.parametrize(
    ("statements", "says"),
    [
        ("CREATE TABLE places (url TEXT); INSERT INTO places VALUES ('x')", "another program's"),
        ("CREATE TABLE migrations (id INTEGER PRIMARY KEY)", "another program's"),
        ("CREATE TABLE chats (x)", "another program's"),
        ("PRAGMA application_id = 77; CREATE TABLE x (y)", "another program's"),
        ("PRAGMA user_version = 99", "version 99"),
    ],
)
def test_what_is_not_our_history_is_left_alone(file: Path, statements: str, says: str) -> None:
    file.parent.mkdir()
    with closing(sqlite3.connect(file)) as db:
        db.executescript(statements)
    before = file.read_bytes()
    with pytest.raises(AppError, match=says):
        Store(file)
    assert file.read_bytes() == before
    assert {path.name for path in file.parent.iterdir()} <= {file.name, f"{file.name}.lock"}


def test_a_newer_version_of_ours_is_left_alone(file: Path) -> None:
    Store(file).close()
    with closing(sqlite3.connect(file)) as db:
        db.execute("PRAGMA user_version = 3")
    with pytest.raises(AppError, match="newer version"):
        Store(file)


def test_what_is_kept_can_be_read_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "history.sqlite"
    store = Store(path)
    chat = store.new_chat("a title", "model", {})
    store.add_answer(chat.id, store.add_question(chat.id, None, "why", "why")).finish("complete")
    store.close()

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(database.FileLock, "acquire", refuse)
    with pytest.raises(AppError, match=r"Read-only.*--no-history does without"):
        Store(path)
    for file, titles in ((path, ["a title"]), (tmp_path / "none" / "history.sqlite", [])):
        reader = Store(file, to_read=True, otherwise="")
        assert [chat.title for chat in reader.chats()] == titles
        reader.close()


def test_an_older_history_is_not_read_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "history.sqlite"
    Store(path).close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM migrations WHERE rowid = (SELECT max(rowid) FROM migrations)")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(database.FileLock, "acquire", refuse)
    with pytest.raises(AppError, match="another version"):
        Store(path, to_read=True)


def test_texts_that_others_have_made_bytes_are_texts_for_all_readers(file: Path) -> None:
    store = Store(file)
    chat = store.new_chat("Hello", "Be kind.", {})
    answer = grow(store.add_answer(chat.id, store.add_question(chat.id, None, "Find me", "notes")), "and me")
    assert answer == 2
    store.close()
    with sqlite3.connect(file) as other:
        other.execute("UPDATE turns SET content = x'ff1b5b324a', attached = x'ff', cut = x'ff', stats = x'7b7d'")
        other.execute("UPDATE chats SET title = x'ff41', system = x'ff42', options = x'ff'")
    other.close()
    store = Store(file)
    healed = "\ufffd\x1b[2J"
    assert [turn.content for turn in store.branch(chat.id)] == [healed, healed]
    assert [turn.content for turn in store.tree(chat.id)] == [healed, healed]
    assert (store.chat(chat.id).title, store.chat(chat.id).system) == ("\ufffdA", "\ufffdB")
    assert {(hit.title, hit.excerpt) for hit in store.search("me")} == {("\ufffdA", healed)}
    assert recent_answers(file) == [healed]
    assert recent_exchanges(file, 100) == [(f"{healed}\ufffd", healed)]
    recorder = store.continue_answer(answer)
    assert grow(recorder, " more") == answer
    assert [turn.content for turn in store.branch(chat.id)] == [healed, f"{healed} more"]
    assert len(store.branch(chat.id)[1].tokens) == 2  # the packed numbers are no text
    store.close()


@pytest.mark.parametrize("owner", ["NULL", "''", "x'ff'", "'../../x'", "'a' || char(0)"])
def test_an_owner_that_is_none_has_left_its_answer(file: Path, owner: str) -> None:
    store = Store(file)
    chat = store.new_chat("Hello", None, {})
    grow(store.add_answer(chat.id, store.add_question(chat.id, None, "x")), "y")
    store.close()
    with sqlite3.connect(file) as other:
        other.create_function("fold", 1, str)
        other.execute(f"UPDATE turns SET state = 'streaming', owner = {owner} WHERE role = 'assistant'")
    other.close()
    store = Store(file)
    assert store.branch(chat.id)[1].state == "interrupted"
    store.close()


def test_thoughts_are_kept_apart(file: Path) -> None:
    store = Store(file)
    chat = store.new_chat("sky", None, {})
    recorder = store.add_answer(chat.id, store.add_question(chat.id, None, "Why?"))
    for index, (text, channel, t) in enumerate(
        [("Let ", "thought", 1.0), ("me\x1b see", "thought", 3.5), ("Because", "answer", 4.0)]
    ):
        recorder.add(replace(event(index, text), channel=channel, t=t))
    recorder.finish("complete")
    store.close()
    store = Store(file)
    turn = store.branch(chat.id)[-1]
    assert (turn.thought, turn.content, turn.sent) == ("Let me\x1b see", "Because", "Because")
    assert turn.thought_seconds == 2.5 and sum(token.characters for token in turn.tokens) == len(
        turn.thought + "Because"
    )
    assert store.search("see") == [] and len(store.search("because")) == 1
    branch = store.branch(chat.id)
    assert "Let me" not in export.markdown(chat, branch) and "Let" not in str(export.tree_object(chat, branch, branch))
    written = export.markdown(chat, branch, thoughts=True)
    assert "## Model\n\n*Thought for 2.5 s:*\n\n> Let me\u241b see\n\nBecause" in written
    told = export.tree_object(chat, branch, branch, thoughts=True)["turns"][-1]
    assert told["thought"] == "Let me\x1b see" and told["thought_seconds"] == 2.5
    more = store.continue_answer(turn.id)
    assert not more.has_grown
    more.add(replace(event(0, "!"), channel="answer"))
    assert more.has_grown
    more.finish("complete")
    assert store.branch(chat.id)[-1].thought == "Let me\x1b see"
    store.close()


def test_a_history_without_thoughts_gets_a_place_for_them(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "MIGRATIONS", schema.MIGRATIONS[:-2])
    file.parent.mkdir()
    with sqlite3.connect(file) as old:
        old.create_function("fold", 1, fold_stored, deterministic=True)
        database._migrate(old, file)
        old.execute("INSERT INTO chats (title, created, updated, leaf) VALUES ('x', 1, 1, 1)")
        old.execute(
            "INSERT INTO turns (chat_id, role, content, state, created) VALUES (1, 'user', 'Hi', 'complete', 1)"
        )
    old.close()
    monkeypatch.undo()
    store = Store(file)
    (turn,) = store.tree(1)
    assert (turn.content, turn.thought, turn.thought_seconds) == ("Hi", "", 0.0)
    assert file.with_name(f"{file.stem}-before-thoughts{file.suffix}").exists()
    store.close()
