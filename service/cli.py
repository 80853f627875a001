"""The command ``heed``: serve models, translate with them, list them."""

from __future__ import annotations

import asyncio
import enum
import io
import itertools
import logging
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress as ignoring
from pathlib import Path
from typing import Annotated, NamedTuple

import grpc
import typer
from google.protobuf.json_format import MessageToJson
from heed.v1 import attention_pb2, model_pb2, translation_pb2, translation_service_pb2
from pydantic import ValidationError
from rich.console import Console

from service.client import DEFAULT_ADDRESS, DEFAULT_TIMEOUT_SECONDS, Client, reason_of, unpack
from service.heatmap import draw
from service.settings import ServerSettings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Translate text and see what the model looked at.\n\n"
    'Example: `heed serve` in one terminal, `heed translate "Guten Morgen!" --attention word` in another.',
)
_PADDING = "∅"  # a one-shot model has a column for every place of its padding
_LINES_PER_CALL = 64
_LONGEST_PAUSE_SECONDS = 5.0
_SENTENCES_BEFORE = 16  # of a document: more than a model reads; the server takes the last ones
_TOO_LARGE = ("CALL_TOO_LARGE", "REPLY_TOO_LARGE")  # of a call: its texts go in several
_DEFAULTS = ServerSettings()


class CommandError(Exception):
    """One line for the user; the command ends with status 1."""


class AttentionChoice(enum.StrEnum):
    """The views of ``--attention``."""

    LINKS = "links"
    WORD = "word"
    TOKEN = "token"  # noqa: S105 - a token of text
    FULL = "full"


class PriorityChoice(enum.StrEnum):
    """The values of ``--priority``."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


_PRIORITIES = {
    None: translation_service_pb2.PRIORITY_UNSPECIFIED,
    PriorityChoice.LOW: translation_service_pb2.PRIORITY_LOW,
    PriorityChoice.NORMAL: translation_service_pb2.PRIORITY_NORMAL,
    PriorityChoice.HIGH: translation_service_pb2.PRIORITY_HIGH,
}
_VIEWS = {
    AttentionChoice.LINKS: attention_pb2.ATTENTION_VIEW_ALIGNMENT,
    AttentionChoice.WORD: attention_pb2.ATTENTION_VIEW_WORD,
    AttentionChoice.TOKEN: attention_pb2.ATTENTION_VIEW_TOKEN,
    AttentionChoice.FULL: attention_pb2.ATTENTION_VIEW_FULL,
}
AddressOption = Annotated[str, typer.Option(envvar="HEED_ADDRESS", help="The server, as HOST:PORT.")]
TimeoutOption = Annotated[float, typer.Option(min=0.001, max=86_400.0, help="Seconds to wait for each call.")]


@app.command()
def serve(
    models: Annotated[
        Path, typer.Option(envvar="HEED_MODELS", help="The folder of bundles: <model>/<version>/manifest.json.")
    ] = _DEFAULTS.models,
    address: Annotated[
        str, typer.Option(envvar="HEED_ADDRESS", help="Where to serve gRPC, as HOST:PORT; port 0 takes a free one.")
    ] = _DEFAULTS.address,
    metrics_address: Annotated[
        str, typer.Option(envvar="HEED_METRICS_ADDRESS", help="Where to show Prometheus metrics, as HOST:PORT.")
    ] = _DEFAULTS.metrics_address,
    default_model: Annotated[
        str | None,
        typer.Option(
            envvar="HEED_DEFAULT_MODEL", help="Answers requests that name no model; otherwise repository.json says."
        ),
    ] = None,
    provider: Annotated[
        str, typer.Option(envvar="HEED_PROVIDER", help="Execution provider: auto, cpu or cuda.")
    ] = _DEFAULTS.provider,
    precision: Annotated[
        str,
        typer.Option(
            envvar="HEED_PRECISION",
            help="fp32, or int8 on a CPU for the models that have int8 graphs, fp32 for others.",
        ),
    ] = _DEFAULTS.precision,
    workers: Annotated[
        int, typer.Option(envvar="HEED_WORKERS", help="Running batches of each model; 0: one for each core.")
    ] = _DEFAULTS.workers,
    threads_per_worker: Annotated[
        int, typer.Option(envvar="HEED_THREADS_PER_WORKER", help="onnxruntime threads of each worker.")
    ] = _DEFAULTS.threads_per_worker,
    rows_per_worker: Annotated[
        int, typer.Option(envvar="HEED_ROWS_PER_WORKER", help="Hypotheses decoded together by a worker, at most.")
    ] = _DEFAULTS.rows_per_worker,
    queue_tokens: Annotated[
        int, typer.Option(envvar="HEED_QUEUE_TOKENS", help="Tokens waiting and running of each model, at most.")
    ] = _DEFAULTS.queue_tokens,
    max_contents: Annotated[
        int, typer.Option(envvar="HEED_MAX_CONTENTS", help="Texts in one call, at most.")
    ] = _DEFAULTS.max_contents,
    max_characters: Annotated[
        int, typer.Option(envvar="HEED_MAX_CHARACTERS", help="Characters in one text, at most.")
    ] = _DEFAULTS.max_characters,
    pause_seconds: Annotated[
        float, typer.Option(envvar="HEED_PAUSE_SECONDS", help="From SIGTERM to refusing new work.")
    ] = _DEFAULTS.pause_seconds,
    grace_seconds: Annotated[
        float, typer.Option(envvar="HEED_GRACE_SECONDS", help="For work under way to finish after that.")
    ] = _DEFAULTS.grace_seconds,
) -> None:
    """Serve models over gRPC, with Prometheus metrics. SIGTERM or Ctrl-C drains and stops.

    Example: heed serve --models exported --address 127.0.0.1:50051
    """
    try:
        settings = ServerSettings.model_validate(locals())
    except ValidationError as error:
        first = error.errors()[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        raise CommandError(f"{option} {first['input']}: {first['msg'].removeprefix('Value error, ')}") from error
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # Imported here: the other commands need no engine and start faster without it.
    from service.rpc.server import Server, StartError, run

    def say(server: Server) -> None:
        host = settings.address.rpartition(":")[0]
        metrics_host = settings.metrics_address.rpartition(":")[0]
        logging.getLogger(__name__).info(
            "serving on %s:%d, metrics on http://%s:%d/metrics", host, server.port, metrics_host, server.metrics_port
        )

    try:
        asyncio.run(run(settings, say))
    except StartError as error:
        raise CommandError(str(error)) from error


@app.command()
def translate(
    texts: Annotated[
        list[str], typer.Argument(help="The texts, or - for one text a line from standard input.", show_default=False)
    ],
    model: Annotated[str, typer.Option(help="The model; by default the server's default.")] = "",
    source: Annotated[str, typer.Option("--from", help="Source language code.")] = "",
    target: Annotated[str, typer.Option("--to", help="Target language code.")] = "",
    attention: Annotated[AttentionChoice | None, typer.Option(help="Show what the model looked at.")] = None,
    maps: Annotated[
        list[str] | None, typer.Option("--map", help="With --attention: show this map, by name; may be repeated.")
    ] = None,
    document: Annotated[
        bool, typer.Option("--document", help="The texts are one document: give each with the ones before it.")
    ] = False,
    split: Annotated[
        bool | None,
        typer.Option(help="Translate each sentence of a text by itself, or not; by default as the model is made."),
    ] = None,
    beam: Annotated[int | None, typer.Option(help="Beam search with so many hypotheses; 1 is greedy.")] = None,
    hypotheses: Annotated[
        int | None,
        typer.Option(help="Of a text of one sentence so many, best first: SCORE, a tab, its text."),
    ] = None,
    length_penalty: Annotated[float | None, typer.Option(help="0 the likeliest, 1 the likeliest by token.")] = None,
    coverage_penalty: Annotated[float | None, typer.Option(help="For source words that nothing looked at.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Draw tokens instead: below 1 the likelier.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Draw from the so many likeliest tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw from the likeliest that have this probability.")] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Of the draws: the same gives the same. Each call, of 64 lines at most, begins with it."),
    ] = None,
    prefix: Annotated[str, typer.Option(help="What every translation begins with.")] = "",
    min_tokens: Annotated[int | None, typer.Option(help="The least tokens of a translation.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="The most tokens of a translation.")] = None,
    repetition_penalty: Annotated[float | None, typer.Option(help="Above 1: tokens come again less.")] = None,
    no_repeat_ngram: Annotated[int | None, typer.Option(help="No run of so many tokens twice.")] = None,
    suppress: Annotated[list[str] | None, typer.Option(help="A piece never to write; may be repeated.")] = None,
    priority: Annotated[PriorityChoice | None, typer.Option(help="Where calls wait for each other.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print each reply as one line of protobuf JSON.")] = False,
    address: AddressOption = DEFAULT_ADDRESS,
    timeout: TimeoutOption = DEFAULT_TIMEOUT_SECONDS,
) -> None:
    """Translate texts, one line out for each. A text that fails is told on standard error; the status is then 1.

    Examples: heed translate "Guten Morgen!" --attention word; cat lines.txt | heed translate - --beam 4
    """
    said = {"--model": [model], "--from": [source], "--to": [target], "--map": maps, "--prefix": [prefix]}
    _check_utf8(said | {"--suppress": suppress})
    drawn = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
    try:
        decoding = translation_pb2.DecodingOptions(
            max_output_tokens=max_tokens,
            min_output_tokens=min_tokens,
            beam_size=beam,
            hypotheses=hypotheses,
            length_penalty=length_penalty,
            coverage_penalty=coverage_penalty,
            repetition_penalty=repetition_penalty,
            no_repeat_ngram_size=no_repeat_ngram,
            suppressed_pieces=suppress or (),
        )
        if any(value is not None for value in drawn.values()):
            decoding.sampling.CopyFrom(translation_pb2.SamplingOptions(**drawn))  # type: ignore[arg-type]
    except ValueError as error:  # a number that the wire cannot hold
        raise CommandError(f"an option is out of range: {error}") from error
    before = deque[str](maxlen=_SENTENCES_BEFORE)  # those that were translated
    if maps and attention is None:
        raise CommandError("--map: needs --attention beside it")
    view = None if attention is None else _VIEWS[attention]
    from_stdin = texts == ["-"]
    failed = False
    with Client(address, timeout) as client:
        for chunk in _chunks(_lines() if from_stdin else texts, one_by_one=document):
            sent = [text for text in chunk if _is_utf8(text) and (text.strip() or not from_stdin)]
            contexts = [list(before)] * len(sent) if document else []
            options = _Options(model, source, target, view, maps or (), split, decoding, prefix, priority)
            replies = iter(_translate_chunk(client, sent, contexts, options) if sent else ())
            for text in chunk:
                if from_stdin and not text.strip():
                    print("{}" if json else "", flush=True)  # noqa: T201 - a line in is a line out
                elif not _is_utf8(text):
                    failed = True
                    print("{}" if json else "", flush=True)  # noqa: T201
                    _complain(f"{text.encode(errors='surrogateescape')[:40]!r}: not valid UTF-8")
                else:
                    reply = next(replies)
                    if _show(reply, text, json, every=hypotheses is not None):
                        before.extend(_sentences_of(reply, text))
                    else:
                        failed = True
    if failed:
        raise typer.Exit(1)


@app.command()
def score(
    source: Annotated[str, typer.Argument(help="The text.")],
    target: Annotated[str, typer.Argument(help="A translation of it.")],
    model: Annotated[str, typer.Option(help="The model; by default the server's default.")] = "",
    source_language: Annotated[str, typer.Option("--from", help="Source language code.")] = "",
    target_language: Annotated[str, typer.Option("--to", help="Target language code.")] = "",
    attention: Annotated[AttentionChoice | None, typer.Option(help="Show what the model looks at.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the reply as one line of protobuf JSON.")] = False,
    address: AddressOption = DEFAULT_ADDRESS,
    timeout: TimeoutOption = DEFAULT_TIMEOUT_SECONDS,
) -> None:
    """Judge a translation: its log-probability, and that of each of its tokens, in nats.

    Example: heed score "9 May 2018" "2018-05-09" --model dates
    """
    _check_utf8({"SOURCE": [source], "TARGET": [target], "--model": [model]})
    _check_utf8({"--from": [source_language], "--to": [target_language]})
    view = None if attention is None else _VIEWS[attention]
    with Client(address, timeout) as client:
        reply = client.score([(source, target)], model, source_language, target_language, view)
    (judged,) = reply.translations
    if judged.status.code != 0:
        raise CommandError(judged.status.message)
    if json:
        print(MessageToJson(reply, indent=None, ensure_ascii=False))  # noqa: T201
        return
    best = judged.hypotheses[0]
    print(f"{best.log_probability:.4f}\t{best.text}")  # noqa: T201
    for token in best.tokens:
        print(f"  {token.log_probability:9.4f}  {token.piece}")  # noqa: T201
    if judged.source_words:
        _draw(judged)


@app.command()
def models(
    json: Annotated[bool, typer.Option("--json", help="Print each model as one line of protobuf JSON.")] = False,
    address: AddressOption = DEFAULT_ADDRESS,
    timeout: TimeoutOption = DEFAULT_TIMEOUT_SECONDS,
) -> None:
    """List the server's models, the refused ones too. Example: heed models --address 127.0.0.1:50051"""
    with Client(address, timeout) as client:
        found = client.list_models()
    if json:
        for model in found:
            print(MessageToJson(model, indent=None, ensure_ascii=False))  # noqa: T201
        return
    for model in found:
        title = f"{model.name}/{model.version}{' (default)' if model.is_default else ''}"
        if model.state != model_pb2.MODEL_STATE_READY:
            print(f"{title}  refused: {model.status.message}")  # noqa: T201
            continue
        languages = f"{'|'.join(model.source_language_codes)} → {'|'.join(model.target_language_codes)}"
        maps = ", ".join(f"{entry.name} ({entry.score_function})" for entry in model.attention_maps)
        print(f"{title}  {languages}  attention: {maps}  {model.precision}  {model.execution_provider}")  # noqa: T201
        print(f"    {model.description}")  # noqa: T201


def _is_utf8(text: str) -> bool:
    """Python lets bytes that are not UTF-8 into strings as lone surrogates; a message cannot hold them."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _check_utf8(said: Mapping[str, Sequence[str] | None]) -> None:
    for option, values in said.items():
        if not all(map(_is_utf8, values or ())):
            raise CommandError(f"{option}: not valid UTF-8")


def _lines() -> Iterator[str]:
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")
    for line in sys.stdin:
        yield line.rstrip("\r\n")


def _chunks(texts: Iterable[str], one_by_one: bool) -> Iterator[list[str]]:
    """A person's lines are answered one by one, a file's many at once, unless one is the context of the next."""
    size = 1 if one_by_one or sys.stdin.isatty() else _LINES_PER_CALL
    remaining = iter(texts)
    while chunk := list(itertools.islice(remaining, size)):
        yield chunk


class _Options(NamedTuple):
    """What every call of one command shares."""

    model: str
    source: str
    target: str
    view: attention_pb2.AttentionView | None
    maps: Sequence[str]
    split: bool | None
    decoding: translation_pb2.DecodingOptions
    prefix: str
    priority: PriorityChoice | None


def _translate_chunk(
    client: Client,
    texts: Sequence[str],
    contexts: Sequence[Sequence[str]],
    options: _Options,
) -> Iterator[translation_service_pb2.TranslateResponse]:
    """A reply for each text, so that every line of JSON names the model that answered.

    Texts that are too much for one call go in two; a full queue is asked again until the client's timeout is over.
    """
    again = time.monotonic() + client.timeout_seconds
    pause = 0.5
    while True:
        try:
            reply = client.translate(
                texts,
                options.model,
                options.source,
                options.target,
                options.view,
                contexts=contexts,
                maps=options.maps,
                split_sentences=options.split,
                decoding=options.decoding,
                target_prefixes=[options.prefix] * len(texts) if options.prefix else (),
                priority=_PRIORITIES[options.priority],
            )
            break
        except grpc.RpcError as error:
            reason = reason_of(error)
            if reason in _TOO_LARGE and len(texts) > 1:
                half = len(texts) // 2
                yield from _translate_chunk(client, texts[:half], contexts[:half], options)
                yield from _translate_chunk(client, texts[half:], contexts[half:], options)
                return
            if reason != "QUEUE_FULL" or time.monotonic() + pause > again:
                raise
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
    seed = reply.seed if reply.HasField("seed") else None
    for translation in reply.translations:
        yield translation_service_pb2.TranslateResponse(
            translations=[translation], model=reply.model, version=reply.version, seed=seed
        )


def _sentences_of(reply: translation_service_pb2.TranslateResponse, text: str) -> list[str]:
    """As the model read them, one by one: the text as a whole may be too long for it."""
    sentences = reply.translations[0].sentences
    return [text[sentence.begin_offset : sentence.end_offset] for sentence in sentences] or [text]


def _show(reply: translation_service_pb2.TranslateResponse, text: str, json: bool, every: bool = False) -> bool:
    """Print one reply as one line, or each of its hypotheses with its score, and the attention below if there is any;
    False when the text failed."""
    translation = reply.translations[0]
    ok = bool(translation.status.code == 0)
    if json:
        print(MessageToJson(reply, indent=None, ensure_ascii=False), flush=True)  # noqa: T201
    else:
        for hypothesis in translation.hypotheses if every else translation.hypotheses[:1]:
            line = " ".join(hypothesis.text.splitlines())  # those of the text, between its sentences
            print(f"{hypothesis.score:.4f}\t{line}" if every else line, flush=True)  # noqa: T201
        if not translation.hypotheses:
            print(flush=True)  # noqa: T201
        for part in [sentence.translation for sentence in translation.sentences] or [translation]:
            if ok and part.source_words:
                _draw(part)
    if not ok:
        _complain(f"{text[:40]!r}: {translation.status.message}")
    if not json:
        is_word = translation_pb2.OMISSION_KIND_WORD
        words = [lost.text for lost in translation.left_out if lost.kind == is_word]
        others = [lost.text for lost in translation.left_out if lost.kind != is_word]
        for told, lost in (("not", others), ("perhaps not", words)):
            if lost:
                _complain(f"{text[:40]!r}: {told} in the translation: {', '.join(lost)}")
    return ok


def _draw(translation: translation_pb2.Translation) -> None:
    console = Console(highlight=False)
    best = translation.hypotheses[0]
    if not best.attention.matrices:
        for link in best.attention.links:
            words = (translation.source_words[link.source_word].text, best.words[link.target_word].text)
            console.print(f"  {words[0]} → {words[1]}  {link.weight:.2f}", markup=False)
        return
    for matrix in best.attention.matrices:
        rows = _labels(matrix, best.tokens, best.words)
        columns = _columns(matrix, translation)
        heads = matrix.heads or ["mean"]
        for head, weights in zip(heads, unpack(matrix), strict=True):
            console.print(f"\n{matrix.map}, layer {matrix.layer}, head {head} ({matrix.score_function})", style="dim")
            if not columns:
                console.print("(no sentence before)", style="dim")
                continue
            for line in draw(rows, columns, weights, console.width):
                console.print(line, markup=False, soft_wrap=True)


def _columns(matrix: attention_pb2.AttentionMatrix, translation: translation_pb2.Translation) -> list[str]:
    if matrix.kind != attention_pb2.ATTENTION_KIND_CONTEXT:
        return _labels(matrix, translation.source_tokens, translation.source_words)
    if matrix.unit == attention_pb2.ATTENTION_UNIT_SENTENCE:
        return [sentence.text for sentence in translation.context_sentences]
    return [
        label
        for sentence in translation.context_sentences
        for label in _labels(matrix, sentence.tokens, sentence.words)
    ]


def _labels(
    matrix: attention_pb2.AttentionMatrix,
    tokens: Sequence[translation_pb2.Token],
    words: Sequence[translation_pb2.Word],
) -> list[str]:
    """The names of a matrix's rows or columns: words, tokens or blocks of tokens.

    SentencePiece writes a space as ▁, which looks like a shade beside the map's own.
    """
    if matrix.unit == attention_pb2.ATTENTION_UNIT_WORD:
        return [_PADDING if word.special and word.text == "<pad>" else word.text for word in words]
    pieces = [_spelled(token) for token in tokens]
    size = matrix.tokens_per_unit or 1  # 0: a server older than blocks
    return [" ".join(pieces[i : i + size]) for i in range(0, len(pieces), size)]


def _spelled(token: translation_pb2.Token) -> str:
    if token.special and token.piece == "<pad>":
        return _PADDING
    return token.piece.replace("▁", "·" if len(token.piece) == 1 else "")


def _complain(message: str) -> None:
    print(f"heed: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201


def _describe(error: grpc.RpcError) -> str:
    """The server's own message; where no server answered, what that means."""
    code = error.code() if isinstance(error, grpc.Call) else None
    details = (error.details() if isinstance(error, grpc.Call) else None) or str(error)
    if code is grpc.StatusCode.UNAVAILABLE and "unhealthy" in details:
        return "the server there is loading its models or shutting down: try again in a moment"
    if code is grpc.StatusCode.UNAVAILABLE and "shutting down" not in details and "loading" not in details:
        return f"no server answers there ({details}): start one with `heed serve`, or name another with --address"
    return f"{details} ({code.name})" if code is not None else details


def main() -> None:
    """Run the command; an error is one line on standard error and status 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace")
    try:
        app()
    except CommandError as error:
        _complain(str(error))
    except grpc.RpcError as error:
        _complain(_describe(error))
    except BrokenPipeError:
        sys.stderr.close()
    except OSError as error:  # such as a full disk behind standard output
        _complain(f"{f'{error.filename}: ' if error.filename else ''}{error.strerror or error}")
        with ignoring(OSError):
            sys.stdout.close()
    else:
        return
    raise SystemExit(1)
