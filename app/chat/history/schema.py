"""The tables, as named steps. A step that is out is never changed: add another."""

from __future__ import annotations

MIGRATIONS: tuple[tuple[str, str], ...] = (
    (
        "chats-and-turns",
        """
        CREATE TABLE chats (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            title TEXT NOT NULL,
            created REAL NOT NULL,
            updated REAL NOT NULL,
            leaf INTEGER REFERENCES turns (id) ON DELETE SET NULL,
            system TEXT,
            options TEXT NOT NULL DEFAULT '{}'
        );
        CREATE TABLE turns (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            chat_id INTEGER NOT NULL REFERENCES chats (id) ON DELETE CASCADE,
            parent_id INTEGER REFERENCES turns (id) ON DELETE CASCADE,
            role TEXT NOT NULL CHECK (role IN ('user', 'assistant')),
            content TEXT NOT NULL,
            state TEXT NOT NULL CHECK (state IN ('complete', 'streaming', 'interrupted', 'stopped')),
            created REAL NOT NULL,
            owner TEXT, -- which running program writes it, while it is streaming
            cut TEXT,
            stats TEXT,
            depths BLOB
        );
        CREATE INDEX turns_by_chat ON turns (chat_id);
        CREATE INDEX turns_by_parent ON turns (parent_id);
        CREATE INDEX turns_streaming ON turns (owner) WHERE state = 'streaming';
        """,
    ),
    (
        # a growing answer is not indexed at each write, but when it has come to rest
        "search",
        """
        CREATE VIRTUAL TABLE words USING fts5 (content, content = 'turns', content_rowid = 'id');
        CREATE TRIGGER words_insert AFTER INSERT ON turns WHEN new.state <> 'streaming' BEGIN
            INSERT INTO words (rowid, content) VALUES (new.id, new.content);
        END;
        CREATE TRIGGER words_rest AFTER UPDATE OF state ON turns
        WHEN old.state = 'streaming' AND new.state <> 'streaming' BEGIN
            INSERT INTO words (rowid, content) VALUES (new.id, new.content);
        END;
        CREATE TRIGGER words_resume AFTER UPDATE OF state ON turns
        WHEN old.state <> 'streaming' AND new.state = 'streaming' BEGIN
            INSERT INTO words (words, rowid, content) VALUES ('delete', old.id, old.content);
        END;
        CREATE TRIGGER words_delete AFTER DELETE ON turns WHEN old.state <> 'streaming' BEGIN
            INSERT INTO words (words, rowid, content) VALUES ('delete', old.id, old.content);
        END;
        """,
    ),
    (
        # sequences of three characters instead of words: parts of words, signs, and languages without spaces
        "search-trigrams",
        """
        DROP TABLE words;
        CREATE VIRTUAL TABLE words USING fts5 (content, content = 'turns', content_rowid = 'id', tokenize = 'trigram');
        INSERT INTO words (rowid, content) SELECT id, content FROM turns WHERE state <> 'streaming';
        """,
    ),
    # what goes with a question, apart from what was typed: the text of files
    ("attached", "ALTER TABLE turns ADD COLUMN attached TEXT NOT NULL DEFAULT '';"),
    (
        # as texts are compared (folding.py), so that cafe finds café; a copy, since only Python can fold
        "search-folded",
        """
        DROP TRIGGER words_insert;
        DROP TRIGGER words_rest;
        DROP TRIGGER words_resume;
        DROP TRIGGER words_delete;
        DROP TABLE words;
        CREATE VIRTUAL TABLE words USING fts5 (content, tokenize = 'trigram');
        INSERT INTO words (rowid, content)
            SELECT id, fold(CAST(content AS BLOB)) FROM turns WHERE state <> 'streaming';
        CREATE TRIGGER words_insert AFTER INSERT ON turns WHEN new.state <> 'streaming' BEGIN
            INSERT INTO words (rowid, content) VALUES (new.id, fold(CAST(new.content AS BLOB)));
        END;
        CREATE TRIGGER words_rest AFTER UPDATE OF state ON turns
        WHEN old.state = 'streaming' AND new.state <> 'streaming' BEGIN
            INSERT INTO words (rowid, content) VALUES (new.id, fold(CAST(new.content AS BLOB)));
        END;
        CREATE TRIGGER words_resume AFTER UPDATE OF state ON turns
        WHEN old.state <> 'streaming' AND new.state = 'streaming' BEGIN
            DELETE FROM words WHERE rowid = old.id;
        END;
        CREATE TRIGGER words_delete AFTER DELETE ON turns WHEN old.state <> 'streaming' BEGIN
            DELETE FROM words WHERE rowid = old.id;
        END;
        """,
    ),
    (
        # what a model thought before an answer, apart from it: no search finds it
        "thoughts",
        """
        ALTER TABLE turns ADD COLUMN thought TEXT NOT NULL DEFAULT '';
        ALTER TABLE turns ADD COLUMN thought_seconds REAL NOT NULL DEFAULT 0.0;
        """,
    ),
    (
        # those of earlier answers too; `words` first, as it needs the old text
        "inline-thoughts",
        """
        UPDATE words SET content = (SELECT fold(CAST(answer_alone(content) AS BLOB)) FROM turns WHERE id = words.rowid)
        WHERE rowid IN (SELECT id FROM turns
            WHERE role = 'assistant' AND thought = '' AND state <> 'streaming' AND inline_thought(content) <> '');
        UPDATE turns SET thought = inline_thought(content), depths = depths_alone(content, depths),
            content = answer_alone(content)
        WHERE role = 'assistant' AND thought = '' AND state <> 'streaming' AND inline_thought(content) <> '';
        """,
    ),
)
