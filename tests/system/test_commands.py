"""The commands as a user runs them: real processes, a real server, the tiny bundles."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.client import Client
from tests.conftest import BUNDLES, FAMILIES, edit_manifest

HEED = [sys.executable, "-c", "from service.cli import main; main()"]
SECONDS = 60
QUIET = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}


class Running:
    """A server process and its addresses, read from its log."""

    def __init__(self, *options: str) -> None:
        addresses = ("--address", "127.0.0.1:0", "--metrics-address", "127.0.0.1:0")
        command = [*HEED, "serve", "--models", str(BUNDLES), *addresses, "--workers", "1", *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=QUIET)
        self.log: list[str] = []
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            if found := re.search(r"serving on (\S+), metrics on (\S+)", line):
                self.address, self.metrics = found.groups()
                return
        pytest.fail("".join(self.log))

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        _, rest = self.process.communicate(timeout=SECONDS)
        self.log.append(rest)
        return self.process.returncode


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    running = Running("--pause-seconds", "0")
    yield running
    assert running.terminate() == 0, running.log


@pytest.fixture(scope="module")
def storyteller() -> Iterator[Running]:
    """A server whose model ``stories`` reads up to three sentences before each text."""
    running = Running("--models", str(FAMILIES), "--pause-seconds", "0")
    yield running
    assert running.terminate() == 0, running.log


def heed(*words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*HEED, *words], capture_output=True, text=True, timeout=SECONDS, env=QUIET, input=stdin)


def golden(name: str, version: int) -> list[tuple[str, str]]:
    manifest = json.loads((BUNDLES / name / str(version) / "manifest.json").read_bytes())
    return [(sentence["source"], sentence["target"]) for sentence in manifest["golden_sentences"]]


def test_translate_prints_one_line_for_each_text(server: Running) -> None:
    sources, targets = zip(*golden("numbers", 2), strict=True)
    done = heed("translate", *sources, "--model", "numbers", "--address", server.address)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == list(targets)


def test_lines_of_standard_input_come_out_in_order_empty_ones_too(server: Running) -> None:
    (source, target), *_ = golden("letters", 1)
    lines = [source, "", source] * 70
    done = heed("translate", "-", "--address", server.address, stdin="\n".join(lines) + "\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [target if line else "" for line in lines]


def test_a_text_that_fails_is_told_and_the_others_are_not_lost(server: Running) -> None:
    (source, target), *_ = golden("letters", 1)
    done = heed("translate", source, "", source, "--address", server.address)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [target, "", target]
    assert done.stderr == "heed: '': contents[1]: empty\n"


def test_what_a_translation_lacks_is_told_and_it_is_printed_all_the_same(bundles: Path) -> None:
    edit_manifest(bundles / "letters" / "1", lambda values: values.update(keeps_literals=True))
    keeper = Running("--models", str(bundles), "--pause-seconds", "0")
    texts = ["abc", "4711 ab a@b.de"]  # nothing that random weights write by themselves
    done = heed("translate", *texts, "--model", "letters", "--address", keeper.address)
    json_too = heed("translate", *texts, "--model", "letters", "--json", "--address", keeper.address)
    assert keeper.terminate() == 0
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 2)
    written = done.stdout.splitlines()[1]
    lost = [literal for literal in ("4711", "a@b.de") if literal not in written]
    assert lost
    assert done.stderr == f"heed: '4711 ab a@b.de': not in the translation: {', '.join(lost)}\n"
    told = json.loads(json_too.stdout.splitlines()[1])["translations"][0]["leftOut"]
    assert [span["text"] for span in told] == lost
    assert json_too.stderr == ""


def test_a_word_that_a_translation_leaves_out_is_told_with_a_perhaps(bundles: Path) -> None:
    edit_manifest(bundles / "letters" / "1", lambda values: values.update(finds_omissions=True))
    finder = Running("--models", str(bundles), "--pause-seconds", "0")
    text = "bad djg cbh cdc bgg iei ehf"  # of which random weights make three letters
    done = heed("translate", text, "--model", "letters", "--address", finder.address)
    json_too = heed("translate", text, "--model", "letters", "--json", "--address", finder.address)
    assert finder.terminate() == 0
    told = json.loads(json_too.stdout)["translations"][0]["leftOut"]
    assert told
    assert {span["kind"] for span in told} == {"OMISSION_KIND_WORD"}
    words = ", ".join(text[span.get("beginOffset", 0) : span["endOffset"]] for span in told)
    assert done.stderr == f"heed: {text!r}: perhaps not in the translation: {words}\n"
    assert len(done.stdout.splitlines()) == 1


def test_what_is_too_much_for_one_call_goes_in_several() -> None:
    """A server that holds seven of these lines."""
    (source, target), *_ = golden("letters", 1)
    small = Running("--queue-tokens", "200", "--pause-seconds", "0")
    done = heed("translate", "-", "--address", small.address, stdin=f"{source}\n" * 30)
    assert small.terminate() == 0
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [target] * 30


def test_a_line_in_is_a_line_out_whatever_breaks_it_and_however_it_fails(server: Running) -> None:
    done = heed("translate", "abc. \n\n abc.", "--split", "--address", server.address)
    assert len(done.stdout.splitlines()) == 1
    done = heed("translate", "abc", "", "--hypotheses", "1", "--address", server.address)
    assert (done.returncode, len(done.stdout.splitlines())) == (1, 2)


@pytest.mark.parametrize("name", ["http_proxy", "grpc_proxy"])
def test_no_proxy_leads_to_this_machine(server: Running, name: str) -> None:
    command = [*HEED, "models", "--address", server.address]
    environment = QUIET | {name: "http://127.0.0.1:9"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=environment)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's full disk")
def test_a_full_disk_is_one_line(server: Running) -> None:
    command = [*HEED, "translate", "abc", "--address", server.address]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=SECONDS, env=QUIET)
    assert done.returncode == 1
    assert done.stderr == "heed: No space left on device\n"


def test_output_is_utf8_whatever_the_terminal_says(server: Running) -> None:
    command = [*HEED, "translate", "abc", "--attention", "word", "--address", server.address]
    done = subprocess.run(command, capture_output=True, timeout=SECONDS, env=QUIET | {"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode()


def test_bytes_that_are_no_text_are_told_line_by_line(server: Running) -> None:
    (source, target), *_ = golden("letters", 1)
    command = [*HEED, "translate", "-", "--address", server.address]
    stdin = source.encode() + b"\n\xff\xfe\n" + source.encode() + b"\n"
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=SECONDS, env=QUIET)
    assert done.returncode == 1
    assert done.stdout.decode().splitlines() == [target, "", target]
    assert done.stderr.decode() == "heed: b'\\xff\\xfe': not valid UTF-8\n"


def test_json_is_one_object_a_line(server: Running) -> None:
    (source, target), *_ = golden("letters", 1)
    words = ("--json", "--attention", "word", "--address", server.address)
    done = heed("translate", source, source, *words)
    replies = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(replies) == 2
    for reply in replies:
        assert (reply["model"], reply["version"]) == ("letters", "1")
        best = reply["translations"][0]["hypotheses"][0]
        assert best["text"] == target
        assert best["attention"]["matrices"][0]["unit"] == "ATTENTION_UNIT_WORD"


@pytest.mark.parametrize(
    ("choice", "shows"), [("links", "→"), ("word", "additive"), ("token", "</s>"), ("full", "layer 0, head 0")]
)
def test_attention_is_drawn(server: Running, choice: str, shows: str) -> None:
    (source, target), *_ = golden("letters", 1)[1:]
    done = heed("translate", source, "--attention", choice, "--address", server.address)
    assert (done.returncode, done.stderr) == (0, "")
    first, *drawing = done.stdout.splitlines()
    assert first == target
    assert shows in "\n".join(drawing)


def told(server: Running, texts: list[str], sentences: int = 3) -> list[str]:
    """The texts translated in one call, each behind so many of those before it."""
    contexts = [texts[max(0, place - sentences) : place] for place in range(len(texts))] if sentences else []
    with Client(server.address) as client:
        reply = client.translate(texts, "stories", contexts=contexts)
    return [translation.hypotheses[0].text for translation in reply.translations]


def test_a_document_gives_each_text_with_those_before_it(storyteller: Running) -> None:
    texts = ["1", "2 3", "4", "5 6", "7 8"]
    words = ("translate", *texts, "--model", "stories", "--address", storyteller.address)
    done = heed(*words, "--document")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == told(storyteller, texts)
    apart = heed(*words).stdout.splitlines()
    assert apart == told(storyteller, texts, sentences=0)
    assert apart[0] == done.stdout.splitlines()[0]
    assert set(apart[1:]).isdisjoint(done.stdout.splitlines()[1:])


def test_what_cannot_be_translated_is_no_context_of_the_next(storyteller: Running) -> None:
    long = " ".join(["1"] * 70)
    done = heed("translate", "1", "", long, "3", "--document", "--model", "stories", "--address", storyteller.address)
    assert done.returncode == 1
    first, third = told(storyteller, ["1", "3"])
    assert done.stdout.splitlines() == [first, "", "", third]
    assert [line.split(": ")[2] for line in done.stderr.splitlines()] == ["contents[0]", "contents[0]"]


def test_a_document_of_many_lines_goes_on_from_call_to_call(storyteller: Running) -> None:
    """An empty line and one that is no text are no sentences of the document."""
    texts = [f"{place % 20} {place * 7 % 20}" for place in range(70)]
    lines = [text.encode() for text in texts]
    lines[30:30] = [b"", b"  "]
    lines[63:63] = [b"\xff\xfe"]
    words = ("translate", "-", "--document", "--model", "stories", "--address", storyteller.address)
    stdin = b"".join(line + b"\n" for line in lines)
    done = subprocess.run([*HEED, *words], input=stdin, capture_output=True, timeout=SECONDS, env=QUIET)
    assert done.returncode == 1
    assert done.stderr.decode() == "heed: b'\\xff\\xfe': not valid UTF-8\n"
    found = done.stdout.decode().splitlines()
    assert len(found) == len(lines)
    assert [found[place] for place in (30, 31, 63)] == [""] * 3
    assert [text for text in found if text] == told(storyteller, texts)
    # Lines in the middle of the document are not as if it began there.
    assert found[64:67] != told(storyteller, texts[61:64])


def test_the_words_before_a_text_are_drawn(storyteller: Running) -> None:
    words = ("--document", "--model", "stories", "--address", storyteller.address)
    maps = ("--map", "context", "--map", "context-sentences")
    done = heed("translate", "1 2", "3", "4 5", *words, "--attention", "word", *maps)
    assert (done.returncode, done.stderr) == (0, "")
    *_, by_word, by_sentence = done.stdout.split("\n\n")
    title, header, *rows = by_word.splitlines()
    assert title == "context, layer 0, head 0 (additive)"
    assert header.split() == ["1", "2", "</s>", "3", "</s>"]
    assert any(shade in row for row in rows for shade in "░▒▓█")
    title, header, *_ = by_sentence.splitlines()
    assert title == "context-sentences, layer 0, head 0 (additive)"
    assert header.strip() == "1 2 3"


def test_a_document_as_json_has_what_was_read_before_each_text(storyteller: Running) -> None:
    words = ("--document", "--model", "stories", "--address", storyteller.address, "--json", "--attention", "full")
    done = heed("translate", "1 2", "3", "4 5", *words)
    replies = [json.loads(line)["translations"][0] for line in done.stdout.splitlines()]
    read = [[sentence["text"] for sentence in reply.get("contextSentences", [])] for reply in replies]
    assert read == [[], ["1 2"], ["1 2", "3"]]
    maps = [matrix["map"] for matrix in replies[0]["hypotheses"][0]["attention"]["matrices"]]
    assert maps == ["cross", "context", "context-sentences"]


# --- search ----------------------------------------------------------------------------------------------------------


def test_hypotheses_come_best_first_with_their_scores(storyteller: Running) -> None:
    options = ("--model", "transformer", "--beam", "5", "--hypotheses", "3", "--length-penalty", "1")
    done = heed("translate", "1 2 3", *options, "--address", storyteller.address)
    assert (done.returncode, done.stderr) == (0, "")
    scores, texts = zip(*(line.split("\t") for line in done.stdout.splitlines()), strict=True)
    assert len(set(texts)) == 3
    assert [float(score) for score in scores] == sorted(map(float, scores), reverse=True)


def test_a_seed_draws_the_same_and_the_json_has_it(storyteller: Running) -> None:
    options = ("--model", "transformer", "--temperature", "2", "--json", "--address", storyteller.address)
    first = json.loads(heed("translate", "1 2 3", *options).stdout)
    again = json.loads(heed("translate", "1 2 3", *options, "--seed", first["seed"]).stdout)
    assert again == first


def test_the_options_of_search_reach_the_server(storyteller: Running) -> None:
    options = ("--model", "transformer", "--address", storyteller.address)
    plain = heed("translate", "1 2 3", *options).stdout.split()
    assert heed("translate", "1 2 3", "--prefix", "9 9", *options).stdout.startswith("9 9")
    suppressed = heed("translate", "1 2 3", "--suppress", f"▁{plain[0]}", *options).stdout.split()
    assert plain[0] not in suppressed
    assert len(heed("translate", "1 2 3", "--max-tokens", "2", *options).stdout.split()) == 2
    once = heed("translate", "1 2 3", "--no-repeat-ngram", "1", "--repetition-penalty", "1.2", *options).stdout.split()
    assert len(set(once)) == len(once)
    done = heed("translate", "1 2 3", "--min-tokens", "99", *options)
    assert (done.returncode, done.stdout) == (1, "")
    assert "decoding.min_output_tokens: 99; allowed are 0 to 24" in done.stderr
    assert heed("translate", "1 2 3", "--priority", "low", *options).stdout.split() == plain


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--seed", "-1"), "an option is out of range"),
        (("--beam", str(2**40)), "an option is out of range"),
        (("--prefix", "\udcff"), "--prefix: not valid UTF-8"),
        (("--suppress", "\udcff"), "--suppress: not valid UTF-8"),
        (("--from", "\udcff"), "--from: not valid UTF-8"),
    ],
)
def test_what_the_wire_cannot_hold_is_one_line(storyteller: Running, options: tuple[str, ...], message: str) -> None:
    done = heed("translate", "1", "--model", "transformer", "--address", storyteller.address, *options)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_translation_is_judged(storyteller: Running) -> None:
    options = ("--model", "transformer", "--address", storyteller.address)
    done = heed("score", "1 2 3", "4 5", *options)
    total, *tokens = done.stdout.splitlines()
    assert total.split("\t")[1] == "4 5"
    parts = [line.split() for line in tokens]
    assert [piece for _, piece in parts] == ["▁4", "▁5", "</s>"]
    assert float(total.split("\t")[0]) == pytest.approx(sum(float(number) for number, _ in parts), abs=1e-3)
    assert "cross-1" in heed("score", "1 2 3", "4 5", "--attention", "word", *options).stdout
    reply = json.loads(heed("score", "1 2 3", "4 5", "--json", *options).stdout)
    assert len(reply["translations"][0]["hypotheses"][0]["tokens"]) == 3
    refused = heed("score", "1 2 3", " ", *options)
    assert (refused.returncode, refused.stderr.strip()) == (1, "heed: pairs[0].target: empty")


def test_models_are_listed(server: Running) -> None:
    done = heed("models", "--address", server.address)
    assert done.returncode == 0
    for expected in ("letters/1 (default)", "numbers/2", "x-letters → x-letters-out", "cross", "CPUExecutionProvider"):
        assert expected in done.stdout
    listed = [json.loads(line) for line in heed("models", "--json", "--address", server.address).stdout.splitlines()]
    assert [model["name"] for model in listed] == ["letters", "numbers"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("translate", "a", "--model", "nobody"), "no model 'nobody'; this server has letters, numbers (NOT_FOUND)"),
        (("translate", "a", "--from", "de", "--to", "en"), "no model from 'de' to 'en'"),
        (("translate", "a", "--map", "cross"), "--map: needs --attention beside it"),
        (("translate", "a", "--map", "nothing", "--attention", "word"), "letters has no attention map 'nothing'"),
        (("translate", "a", "b", "--document"), "letters translates sentences by themselves"),
        (("translate", "a", "--address", "127.0.0.1:1"), "no server answers there"),
        (("serve", "--models", "/nowhere"), "no directory /nowhere"),
        (("serve", "--address", "nonsense"), "--address nonsense: an address is HOST:PORT"),
        (("serve", "--default-model", "nobody"), "the default model 'nobody' is not in"),
        (("serve", "--rows-per-worker", "0"), "--rows-per-worker 0: Input should be greater than or equal to 1"),
    ],
)
def test_what_is_wrong_is_one_line_and_a_failing_status(server: Running, words: tuple[str, ...], message: str) -> None:
    address = () if "--address" in words or words[0] == "serve" else ("--address", server.address)
    if words[0] == "serve":
        words = (*words, "--metrics-address", "127.0.0.1:0")
        words = words if "--models" in words else (*words, "--models", str(BUNDLES))
        words = words if "--address" in words else (*words, "--address", "127.0.0.1:0")
    done = heed(*words, *address)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if " INFO " not in line]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("heed: ")
    assert message in lines[0]


@pytest.mark.parametrize("words", [(), ("translate",), ("serve",), ("models",)], ids=str)
def test_help_has_an_example(words: tuple[str, ...]) -> None:
    done = heed(*words, "--help")
    assert done.returncode == 0
    assert "Example" in done.stdout


def test_sigterm_finishes_what_runs_and_exits_with_zero() -> None:
    running = Running("--pause-seconds", "0.2")
    lines = "\n".join(["a b c. abcdefghij"] * 3000)
    caller = subprocess.Popen(
        [*HEED, "translate", "-", "--address", running.address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=QUIET,
    )
    assert caller.stdin is not None
    assert caller.stdout is not None
    caller.stdin.write(lines)
    caller.stdin.close()
    first = caller.stdout.readline()
    assert running.terminate() == 0
    rest = caller.stdout.read().splitlines()
    assert caller.stderr is not None
    problem = caller.stderr.read()
    caller.stdout.close()
    caller.stderr.close()
    caller.wait(SECONDS)
    # Whole calls of 64 lines were answered; then the server was gone, and the command says so in one line.
    assert (1 + len(rest)) % 64 == 0
    assert set(rest) == {first.rstrip("\n")}
    assert problem.startswith("heed: ")
    assert problem.count("\n") == 1
    log = "".join(running.log)
    assert "stopping" in log
    assert "stopped\n" in log


def test_sigterm_while_it_starts_is_heard() -> None:
    """Sent as soon as Python has installed its handlers, which is before any model is loaded."""
    script = (
        "import asyncio, os, signal, sys; from service.rpc import server;"
        "load = server.Server._load;"
        "server.Server._load = lambda *a: (os.kill(os.getpid(), signal.SIGTERM), load(*a))[1];"
        "sys.argv = ['heed', *sys.argv[1:]]; from service.cli import main; main()"
    )
    addresses = ("--address", "127.0.0.1:0", "--metrics-address", "127.0.0.1:0", "--pause-seconds", "50")
    command = [sys.executable, "-c", script, "serve", "--models", str(BUNDLES), *addresses]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=QUIET)
    assert done.returncode == 0, done.stderr
    assert "serving on" not in done.stderr
    assert "stopped" in done.stderr


def test_the_metrics_page_is_there(server: Running) -> None:
    with urllib.request.urlopen(server.metrics, timeout=5) as page:
        text = page.read().decode()
    assert 'heed_model_ready{model="letters",version="1"} 1.0' in text


def test_torch_is_never_imported_by_the_service(tmp_path: Path) -> None:
    """Start the whole server, answer a call with full attention, and look at what has been imported."""
    script = tmp_path / "serve.py"
    script.write_text(
        f"""
import asyncio, sys
import service.cli
from service.client import Client
from service.rpc.server import Server
from service.settings import ServerSettings

async def main():
    server = Server(ServerSettings(models={str(BUNDLES)!r}, address="127.0.0.1:0", metrics_address="127.0.0.1:0",
                                   pause_seconds=0))
    await server.start()
    with Client(f"127.0.0.1:{{server.port}}") as client:
        reply = await asyncio.to_thread(client.translate, ["abc"], attention=4)
    assert reply.translations[0].hypotheses[0].attention.matrices
    await server.stop()

asyncio.run(main())
print(*sorted(name.partition(".")[0] for name in sys.modules))
"""
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=SECONDS, env=QUIET)
    assert done.returncode == 0, done.stderr
    imported = set(done.stdout.split())
    assert "onnxruntime" in imported
    assert not imported & {"torch", "training", "onnx", "safetensors", "babel"}
