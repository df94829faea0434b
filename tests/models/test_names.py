"""What a name means."""

from __future__ import annotations

from pathlib import Path

import pytest

from specee.models import cache, embedded, file_hash, hub_names, registry, resolve, source
from specee.models.errors import ModelError
from specee.models.hub import RemoteFile
from specee.models.source import Source

PROMISED = (
    "smollm2-135m llama2-7b-q4 llama2-7b-q8 llama3.2-1b llama3.2-3b llama3.1-8b qwen2.5-0.5b qwen2.5-1.5b qwen2.5-3b "
    "qwen2.5-7b qwen2.5-coder-1.5b qwen3-0.6b qwen3-1.7b qwen3-4b qwen3-8b gemma3-270m gemma3-1b gemma3-4b mistral-7b "
    "tinyllama-1.1b smollm2-360m smollm2-1.7b phi-3.5-mini qwen2.5-coder-0.5b qwen2.5-coder-3b qwen2.5-coder-7b "
    "qwen3-4b-instruct qwen3-14b qwen3-30b-a3b-instruct qwen3-coder-30b-a3b deepseek-r1-1.5b gemma3-12b gemma4-e2b "
    "smollm3-3b granite4-micro olmo2-1b ministral3-3b phi4-mini phi4-14b gpt-oss-20b"
)


def millions(parameters: str) -> float:
    return float(parameters[:-1]) * {"M": 1, "B": 1000}[parameters[-1]]


def test_a_paired_drafter_is_in_the_registry_and_much_smaller() -> None:
    entries = registry.entries()
    pairs = [(entry, entries[entry.drafter]) for entry in entries.values() if entry.drafter]
    assert len(pairs) >= 13
    for large, small in pairs:
        assert 5 * millions(small.parameters) <= millions(large.active or large.parameters), large.name


def test_the_registry_is_complete() -> None:
    assert set(registry.entries()) == set(PROMISED.split())
    for entry in registry.entries().values():
        assert entry.embedded or ("/" in entry.repo and entry.file.endswith(".gguf"))
        assert entry.layers > 0 and entry.context >= 2048 and entry.licence and entry.parameters and entry.notes
        assert 0.4 < entry.bytes / 1e6 / millions(entry.parameters) < 1.2, "from 4 to 8 bits a weight, and some more"
        assert 0 < entry.window_bytes <= 2**20
        assert not entry.active or millions(entry.active) < millions(entry.parameters)
        assert set(entry.good_for) <= {"chat", "code", "reasoning", "small"}
        assert entry.sha256 is None or entry.embedded or entry.revision != "main", "main may get another file"
    names = [name for entry in registry.entries().values() for name in (entry.name, *entry.other_names)]
    assert len(names) == len(set(names))
    if (path := embedded.path()) is not None:
        assert file_hash.sha256(path) == registry.entries()["smollm2-135m"].sha256
        assert path.stat().st_size == registry.entries()["smollm2-135m"].bytes
    llama = registry.entries()["llama2-7b-q4"]
    assert (llama.repo, llama.file) == ("TheBloke/Llama-2-7B-Chat-GGUF", "llama-2-7b-chat.Q4_K_M.gguf")


@pytest.mark.parametrize(
    ("name", "means"),
    [
        ("llama2-7b-q4", "llama2-7b-q4"),
        ("LLAMA2:7B", "llama2-7b-q4"),
        ("llama2:latest", "llama2-7b-q4"),
        ("llama3.2:1b", "llama3.2-1b"),
        ("qwen2.5-coder:1.5b", "qwen2.5-coder-1.5b"),
        ("mistral:7b", "mistral-7b"),
    ],
)
def test_names_of_the_registry(name: str, means: str) -> None:
    assert resolve.interpret(name).name == means


def test_an_alias_with_another_quantization() -> None:
    wanted = resolve.interpret("llama3.2-1b:Q8_0")
    assert wanted.source == Source("bartowski/Llama-3.2-1B-Instruct-GGUF", quant="Q8_0")


BAD_REPOS = (
    *("owner/..", "../repo", "owner/.", "./repo", "owner/.repo", "owner/repo.", "owner/-repo", "-owner/repo"),
    *("a/b--c", "a--b/c", "a/b..c", "owner/", "/repo", "owner", "a/b/c", "owner/re po", "owner/repo\n", "own\0er/repo"),
    *("öwner/repo", "owner/\u0661", "owner/repo\udcff", "owner\\repo", "owner/repo%2f..", "owner/" + "x" * 300),
)
BAD_FILES = (
    *(
        "../x.gguf",
        "a/../x.gguf",
        "/x.gguf",
        "a//x.gguf",
        "a/./x.gguf",
        "..\\x.gguf",
        "C:x.gguf",
        "C:\\x.gguf",
        "\\\\h\\x.gguf",
    ),
    *(
        "x\0.gguf",
        "x\n.gguf",
        "\x1b[2Jx.gguf",
        "x\x9b.gguf",
        "a/NUL.gguf",
        "con/x.gguf",
        "x.gguf/",
        "x.gguf ",
        "a./x.gguf",
    ),
    *("x\udcff.gguf", "x" * 300 + ".gguf", "é" * 130 + ".gguf", "a/" * 20 + "x.gguf", ""),
)


@pytest.mark.parametrize("name", BAD_FILES, ids=ascii)
def test_names_that_are_no_files_of_a_repository(name: str) -> None:
    assert not hub_names.is_file(name)
    with pytest.raises(ModelError, match="no GGUF file"):
        source.choose(Source("owner/repo"), [name])
    with pytest.raises(ModelError, match="not a name") as caught:
        RemoteFile("owner/repo", name, "c" * 40, 1, "0" * 64)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "name", ["x.gguf", "Q8_0/a b (c) [d]-00001-of-00002.gguf", "ü/模型.gguf", ".hidden.gguf", "console.gguf"]
)
def test_names_that_are(name: str) -> None:
    assert hub_names.is_file(name)


@pytest.mark.parametrize("commit", ["", "main", "../../x", "c" * 39, "c" * 41, "C" * 40, "c" * 40 + "\n", "g" * 40])
def test_names_that_are_no_commits(commit: str) -> None:
    with pytest.raises(ModelError, match="not a name"):
        RemoteFile("owner/repo", "x.gguf", commit, 1, "0" * 64)


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("hf:owner/repo", Source("owner/repo")),
        ("hf:owner/repo:q8_0", Source("owner/repo", quant="q8_0")),
        ("owner/repo:Q4_0", Source("owner/repo", quant="Q4_0")),
        ("owner/repo", None),
        ("owner/repo/file:Q4_0", None),
        ("C:/models/x", None),
        ("hf:_owner/a.b_c-d", Source("_owner/a.b_c-d")),
        *((f"hf:{bad}", None) for bad in BAD_REPOS),
        *((f"{bad}:q4_0", None) for bad in BAD_REPOS),
    ],
)
def test_repositories(text: str, means: Source | None) -> None:
    assert source.parse(text) == means


def test_a_file_comes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("llama2-7b-q4").mkdir()
    assert resolve.interpret("llama2-7b-q4").source is not None  # a folder is no model
    Path("model.gguf").touch()
    assert resolve.interpret("model.gguf").path == tmp_path / "model.gguf"


@pytest.mark.parametrize(
    ("typed", "meant"), [("lama2-7b-q4", "llama2-7b-q4"), ("qwen3:0.6", "qwen3-0.6b"), ("gema3-1b", "gemma3-1b")]
)
def test_a_typo_gets_the_nearest_names(typed: str, meant: str) -> None:
    with pytest.raises(ModelError, match=f"did you mean.* {meant}"):
        resolve.interpret(typed)


FILES = [
    "README.md",
    "mmproj-x-f16.gguf",
    "x-BF16.gguf",
    "x-IQ4_XS.gguf",
    "x-Q4_K_M.gguf",
    "x-Q4_K_S.gguf",
    "x-q8_0.gguf",
]


@pytest.mark.parametrize(
    ("quant", "file"),
    [(None, "x-Q4_K_M.gguf"), ("q4_k_s", "x-Q4_K_S.gguf"), ("Q8_0", "x-q8_0.gguf"), ("bf16", "x-BF16.gguf")],
)
def test_a_quantization_is_chosen(quant: str | None, file: str) -> None:
    assert source.choose(Source("o/r", quant=quant), FILES) == (file,)


@pytest.mark.parametrize("quant", ["Q4_K", "F16", "Q5_0"])
def test_a_quantization_that_is_not_there(quant: str) -> None:
    with pytest.raises(ModelError, match=r"it has x-BF16\.gguf") as caught:
        source.choose(Source("o/r", quant=quant), FILES)
    assert caught.value.exit_code == 3


def test_without_the_usual_quantization_the_first_file_is_taken() -> None:
    assert source.choose(Source("o/r"), ["b-Q8_0.gguf", "a-Q5_0.gguf"]) == ("a-Q5_0.gguf",)
    for names in (["model.safetensors"], ["mmproj-model.gguf"], ["x-Q4_K_M-00002-of-00002.gguf"], []):
        with pytest.raises(ModelError, match="no GGUF file") as caught:
            source.choose(Source("o/r"), names)
        assert caught.value.exit_code == 3


def test_draft_heads_beside_a_model_are_passed_over() -> None:
    heads = [
        "MTP/x-Q4_K_M.gguf",
        "eagle3-Q8_0.gguf",
        "a-eagle3-Q4_K_M.gguf",
        "x-DFlash2-Q4_K_M.gguf",
        "mtp-x-Q5_0.gguf",
    ]
    assert source.choose(Source("o/r"), [*heads, "x-Q4_K_M.gguf"]) == ("x-Q4_K_M.gguf",)
    assert source.choose(Source("o/r", quant="q8_0"), [*heads, "x-Q8_0.gguf"]) == ("x-Q8_0.gguf",)
    assert source.choose(Source("o/r"), ["a-speculator.eagle3-F16.gguf"]) == ("a-speculator.eagle3-F16.gguf",)
    assert source.choose(Source("o/r"), ["x-MTP-Q4_K_M.gguf", "x-MTP-Q8_0.gguf"]) == ("x-MTP-Q4_K_M.gguf",)
    assert source.choose(Source("o/r", file=heads[1]), [*heads, "x-Q8_0.gguf"]) == (heads[1],)


def test_split_models_are_taken_whole() -> None:
    names = [f"q/big-Q4_K_M-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    assert source.choose(Source("o/r"), names) == tuple(names)
    with pytest.raises(ModelError, match=r"has no .*00002-of-00003"):
        source.choose(Source("o/r"), [names[0], names[2]])


def test_an_older_snapshot_serves_when_the_newest_lacks_the_file(cache_dir: Path) -> None:
    repo = "owner/repo-GGUF"
    blob = cache.blob(repo, "1" * 64)
    blob.parent.mkdir(parents=True)
    blob.touch()
    old = cache.link(repo, "main", "a" * 40, "x-Q4_K_M.gguf", "1" * 64)
    cache.link(repo, "main", "b" * 40, "x-Q8_0.gguf", "1" * 64)
    assert cache.find(Source(repo, file="x-Q4_K_M.gguf")) == (old,)
    assert [found.file for found in cache.models()] == ["x-Q8_0.gguf"]  # the same bytes twice are one model
    assert cache.remove(repo, (old,)) == 0 and not cache.folder(repo).exists()


@pytest.mark.parametrize(
    "name",
    [
        "a" * 300,
        f"{'a' * 300}/b",
        f"a/{'b' * 96}",
        "",
        "/",
        "a",
        "a/",
        "/b",
        "a//b",
        "a/b/c",
        "../x",
        "a/..",
        "./.",
        "a/b:",
        "a/b:../..",
        "ü/ö",
        "a b/c",
        "a/b\x1b[2J",
        "a/b\n",
        "a%2fb/c",
        "a/b?x=1",
        "a@b/c",
        "hf:a/b",
        "-a/b",
        "a--b/c",
        "a/b.git",
    ],
)
def test_what_is_no_repository(name: str) -> None:
    """The same line and exit code for all of them, and not as long as the name."""
    with pytest.raises(ModelError, match="names no repository") as told:
        resolve.interpret(f"hf:{name}")
    assert told.value.exit_code == 3 and len(str(told.value)) < 220
