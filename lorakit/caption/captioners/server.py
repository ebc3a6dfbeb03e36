"""Any server that speaks OpenAI's chat completions: Ollama, LM Studio, vLLM, llama.cpp, or a hosted one. Each photo goes there as a JPEG of
its crop, and nothing else of it."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from lorakit.caption.captioners.base import CaptionerCard, Reader
from lorakit.caption.captioners.vlm import PROMPT, TAGS, TOLD, answer_tokens
from lorakit.console import say, warn
from lorakit.errors import LorakitError
from lorakit.settings import Caption
from lorakit.text.answers import NoCaption, read_answer
from lorakit.text.composing import RawCaption
from lorakit.text.lines import split_lines
from lorakit.weights import Source

if TYPE_CHECKING:
    from PIL import Image
    from requests import PreparedRequest, Response, Session

KEY = "LORAKIT_CAPTION_KEY"
CARD = CaptionerCard(
    title="A server of yours, or a hosted one",
    writes="sentence and tags",
    licence="of the model that you choose",
    weights=False,
    where="asks the server at caption.server for caption.model",
    photos_at_once=4,
    note=f"Ollama, LM Studio, vLLM, llama.cpp (GGUF models too) or hosted; caption.batch_size photos at once; a key, where one is wanted, in ${KEY}",
)
USUAL = {11434: "Ollama", 1234: "LM Studio", 8000: "vLLM", 8080: "llama.cpp"}
CONNECT, READ = 10, 300  # seconds; the first call may load the model
TRIES, FIRST_WAIT, LONGEST_WAIT = 5, 1.0, 120.0  # seconds between tries double
AGAIN = frozenset((408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529))
QUALITY = 90  # of the JPEG: 254 kB for a crop of 768 px, of which a PNG takes 1.2 MB
# What keeps models from thinking. Who does not know the words may refuse them, and is asked without.
UNTHINKING = {"reasoning_effort": "none", "chat_template_kwargs": {"enable_thinking": False}}
# What waiting does not mend, whatever the code that it comes with: llama.cpp says the first with a 500, OpenAI the others with a 429.
BLIND = re.compile(
    r"mmproj|(?:image|vision|multimodal)[^.]{0,20}(?:is|are|input)? ?not supported|not support[^.]{0,20}(?:image|vision|multimodal)", re.I
)
SPENT = re.compile(r"insufficient[ _](?:quota|credit|fund|balance)|exceeded your current quota|billing|out of credits", re.I)
FILTERED = re.compile(r"content[ _](?:filter|policy|management)|moderation|safety system|responsible ?ai", re.I)
THOUGHT_TOO_LONG = (
    "it only thought, and used up its tokens: a model that does not think (an instruct model), or a larger caption.max_tokens"
)


def check(settings: Caption) -> None:
    """Raises `LorakitError` for an address that is none, or that would put a key into project.yaml."""
    if not settings.server:
        raise LorakitError(
            "captioner server: which one? --set caption.server=http://127.0.0.1:11434/v1 (Ollama; LM Studio :1234, vLLM :8000, llama.cpp :8080) "
            "and --set caption.model=NAME"
        )
    try:
        address = urlsplit(settings.server)
        is_one = address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
    except ValueError:  # a port that is none, half a bracket
        is_one = False
    if not is_one or re.search(r"\s", settings.server):
        raise LorakitError(f"caption.server = {_shown(settings.server)}: no address; write it like http://127.0.0.1:11434/v1")
    if address.username or address.password or address.query or address.fragment:
        raise LorakitError(
            f"caption.server = {_shown(settings.server)}: what is written before @ or behind ? or # would stand in project.yaml; "
            f"a key belongs into the environment: export {KEY}=..."
        )
    if re.search(r"[^!-~]", _key()):  # and what is wrong with it is not shown
        raise LorakitError(f"{KEY}: holds a gap, a line's end or a letter that no key has; copy it anew: export {KEY}=...")


def load(source: Source, device: str, settings: Caption) -> Reader:
    check(settings)
    base, session = str(settings.server).rstrip("/"), _session(str(settings.server))
    base = base.removesuffix("/chat/completions")
    model = settings.model or _only_model(session, base)
    if not is_this_machine(base):
        unsafe = ", unencrypted" if base.startswith("http://") else ""
        warn(f"caption: the photos go to {urlsplit(base).hostname}, which is not this machine{unsafe}")
    asked = settings.question or PROMPT
    request = {
        "model": model,
        "temperature": 0,
        "seed": 42,
        "max_tokens": settings.max_tokens or answer_tokens(settings.token_budget),
        "stream": False,
    }
    asker = _Asker(session, base, request)

    def read(jpegs: list[bytes], questions: list[str]) -> list[RawCaption | NoCaption]:
        with ThreadPoolExecutor(max(1, len(jpegs))) as threads:
            return list(threads.map(asker.ask, jpegs, questions))

    def told(jpegs: list[bytes], tags: Sequence[Sequence[str]]) -> list[RawCaption | NoCaption]:
        question = asked if TAGS in asked else asked + TOLD if settings.question is None else asked
        return read(jpegs, [question.replace(TAGS, ", ".join(found)) if found else asked.replace(TAGS, "none") for found in tags])

    return Reader(to_jpeg, lambda jpegs: read(jpegs, [asked] * len(jpegs)), told)


def to_jpeg(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.convert("RGB").save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def is_this_machine(address: str) -> bool:
    host = (urlsplit(address).hostname or "").lower()
    return host in ("localhost", "::1", "0.0.0.0") or host.endswith(".localhost") or re.fullmatch(r"127(?:\.\d{1,3}){3}", host) is not None


def _session(address: str) -> Session:
    import requests
    from requests.adapters import HTTPAdapter

    session = requests.Session()
    session.trust_env = not is_this_machine(address)  # else a proxy of the environment would get the photos
    session.auth = _with_key  # also where there is none: else one of ~/.netrc would go along
    pool = HTTPAdapter(pool_maxsize=64)
    session.mount("http://", pool)
    session.mount("https://", pool)
    return session


def _key() -> str:
    return os.environ.get(KEY, "").strip().removeprefix("Bearer ").strip()


def _with_key(request: PreparedRequest) -> PreparedRequest:
    if key := _key():
        request.headers["Authorization"] = f"Bearer {key}"
    return request


class _Asker:
    """Asks one server about photos from several threads, and remembers what it does not understand."""

    def __init__(self, session: Session, base: str, request: dict[str, Any]):
        self.session, self.base, self.request = session, base, {**request, **UNTHINKING}

    def ask(self, jpeg: bytes, question: str) -> RawCaption | NoCaption:
        """The caption of one photo. Raises `LorakitError` where no photo would get another answer."""
        picture = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
        content = [{"type": "image_url", "image_url": {"url": picture}}, {"type": "text", "text": question}]
        found = self._post(self.request | {"messages": [{"role": "user", "content": content}]})
        while not isinstance(found, NoCaption) and found.status_code in (400, 422) and (simpler := self._without_what_it_refuses(found)):
            found = self._post(simpler | {"messages": [{"role": "user", "content": content}]})
            if not isinstance(found, NoCaption) and found.status_code == 200:
                self.request = simpler
        if isinstance(found, NoCaption):
            return found
        if found.status_code != 200:
            words = _words_of(found)
            if found.status_code == 400 and FILTERED.search(words):  # of this photo alone
                return NoCaption(f"the server refused it: {words[:80]!r}")
            raise LorakitError(self._refused(found))
        return _caption_in(found)

    def _without_what_it_refuses(self, answer: Response) -> dict[str, Any] | None:
        """A request without the words that a server does not know: those against thinking, else one that it names; None where it names none."""
        asked: dict[str, Any] = json.loads(cast("bytes", answer.request.body) or b"{}")
        words = _words_of(answer)
        asked.pop("messages", None)
        if UNTHINKING.keys() & asked.keys():
            return {key: value for key, value in asked.items() if key not in UNTHINKING}
        named = next(
            (key for key in ("max_tokens", "seed", "temperature", "stream") if key in asked and re.search(rf"\b{key}\b", words)), None
        )
        if named == "max_tokens":  # as newer models of OpenAI call it
            asked["max_completion_tokens"] = asked["max_tokens"]
        return {key: value for key, value in asked.items() if key != named} if named else None

    def _post(self, request: dict[str, Any]) -> Response | NoCaption:
        """The server's answer, asked for again where it may come yet."""
        import requests

        wait, why = FIRST_WAIT, ""
        for number in range(TRIES):
            try:
                answer = self.session.post(f"{self.base}/chat/completions", json=request, timeout=(CONNECT, READ), allow_redirects=False)
            except requests.exceptions.SSLError as error:
                raise LorakitError(f"{self.base}: no safe connection ({_first_line(error)})") from error
            except requests.exceptions.ReadTimeout:
                return NoCaption(f"no answer within {READ} seconds")
            except requests.exceptions.RequestException as error:
                why, pause = _first_line(error), wait
                if number == TRIES - 1 and isinstance(error, requests.exceptions.ConnectionError) and _is_refused(error):
                    raise LorakitError(
                        f"{self.base}: nobody answers there ({USUAL.get(urlsplit(self.base).port or 0, 'the server')} is not running?)"
                    ) from error
            else:
                if answer.status_code not in AGAIN or BLIND.search(words := _words_of(answer)) or SPENT.search(words):
                    return answer
                why, pause = f"HTTP {answer.status_code} {_words_of(answer)}".strip(), _asked_to_wait(answer) or wait
            if number < TRIES - 1:
                time.sleep(min(pause, LONGEST_WAIT))
                wait *= 2
        return NoCaption(f"no answer in {TRIES} tries: {why}")

    def _refused(self, answer: Response) -> str:
        """One line of what the server said, and what may help."""
        model, words, code = self.request["model"], _words_of(answer), answer.status_code
        line = f"{self.base}: HTTP {code} for model {model}" + (f": {words}" if words else "")
        if code in (401, 403):
            return f"{line}; its key belongs into the environment: export {KEY}=..."
        if code in (301, 302, 303, 307, 308):
            place = urlsplit(answer.headers.get("Location", ""))
            whither = f"{place.scheme}://{place.netloc.rpartition('@')[2]}{place.path}" if place.netloc else place.path or "another place"
            return f"{line}: it sends on to {_hidden(whither)[:100]}, and photos go only where you say: --set caption.server=..."
        if SPENT.search(words):
            return line
        if BLIND.search(words) or re.search(r"image|vision|multimodal|modalit|mmproj|content", words, re.I) and code not in (404, 413):
            return f"{line}; this model seems to see no pictures: choose one that does, such as qwen3-vl"
        names = models_of(self.session, self.base)
        return line + (f"; it has {', '.join(names[:12])}{' ...' if len(names) > 12 else ''}" if names else "")


def _caption_in(answer: Response) -> RawCaption | NoCaption:
    """What a chat completion says, or why it says nothing."""
    try:
        choice = _streamed(answer) or json.loads(answer.content)["choices"][0]
        message, ended = choice.get("message", choice), choice.get("finish_reason")
        message = {"content": message} if isinstance(message, str) else message
        content = message["content"] if "content" in message else message.get("text")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return NoCaption(f"no chat completion: {_hidden(' '.join(answer.text.split()))[:80]!r}")
    if isinstance(content, list):  # parts, as some hosted ones answer
        content = "".join(map(_part, content))
    text = content if isinstance(content, str) else ""
    if not text.strip():
        thought = message.get("reasoning") or message.get("reasoning_content") or message.get("thinking")
        if thought or ended == "length":
            return NoCaption(THOUGHT_TOO_LONG)
        refusal = message.get("refusal")
        return NoCaption(f"it refused: {str(refusal)[:80]!r}" if refusal else f"an empty answer (finish_reason {ended})")
    if ended == "content_filter":
        return NoCaption("the server's filter has stopped the answer")
    return read_answer(text, is_cut=ended == "length")


def _part(part: Any) -> str:
    """The words of a part that is no thought."""
    if isinstance(part, dict):
        if re.search(r"think|thought|reason|refus", str(part.get("type", ""))):
            return ""
        part = part.get("text")
        part = part.get("value") if isinstance(part, dict) else part
    return part if isinstance(part, str) else ""


def _streamed(answer: Response) -> dict[str, Any] | None:
    """A choice put together from an answer that comes in pieces although it was not asked to; None for one that is whole."""
    if not answer.content.lstrip().startswith((b"data:", b"event:", b":")):
        return None
    said, thought, ended = "", "", None
    for line in split_lines(answer.content.decode("utf-8")):
        if not line.startswith("data:") or line[5:].strip() == "[DONE]":
            continue
        for choice in json.loads(line[5:]).get("choices") or ():
            piece = choice.get("delta") or {}
            said += piece.get("content") or ""
            thought += piece.get("reasoning_content") or piece.get("reasoning") or ""
            ended = choice.get("finish_reason") or ended
    return {"message": {"content": said, "reasoning": thought}, "finish_reason": ended}


def models_of(session: Session, base: str) -> list[str]:
    """Names of the server's models; none where it does not tell."""
    import requests

    try:
        listed = session.get(f"{base}/models", timeout=(CONNECT, CONNECT)).json()
        listed = listed.get("data", listed.get("models")) if isinstance(listed, dict) else listed
        return [one if isinstance(one, str) else str(one.get("id") or one["name"]) for one in (listed if isinstance(listed, list) else ())]
    except (requests.exceptions.RequestException, ValueError, KeyError, TypeError, AttributeError):
        return []


def _only_model(session: Session, base: str) -> str:
    names = models_of(session, base)
    if len(names) == 1:
        say(f"caption   {base} has one model, {names[0]}, which is asked")
        return names[0]
    what = f"it has {', '.join(names[:12])}" if names else "it does not tell which it has, or nobody answers there"
    raise LorakitError(f"captioner server: which model of {base}? {what}: --set caption.model=NAME")


def _words_of(answer: Response) -> str:
    """The server's own words for an error, as one line."""
    try:
        found = answer.json()
        found = found.get("error", found) if isinstance(found, dict) else found
        text = found.get("message") or found.get("detail") or str(found) if isinstance(found, dict) else str(found)
    except ValueError:
        text = re.sub(r"<(style|script|title)\b.*?</\1>|<[^>]+>", " ", answer.text, flags=re.S | re.I)
    return _hidden(" ".join(str(text).split()))[:200]


def _asked_to_wait(answer: Response) -> float | None:
    """Seconds of a Retry-After header."""
    given = answer.headers.get("Retry-After", "").strip()
    try:
        return max(0.0, float(given))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(given).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def _is_refused(error: Exception) -> bool:
    return any(words in str(error) for words in ("refused", "Name or service", "resolve", "unreachable", "No route", "getaddrinfo"))


def _first_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    inner = re.search(r"\[Errno [^\]]*\] ([^'\")]+)|'([^']*(?:refused|aborted|reset|closed|disconnected)[^']*)'", text)
    return _hidden(next((group for group in inner.groups() if group), text) if inner else text)[:120]


def _hidden(text: str) -> str:
    """A server may repeat the key that it was sent."""
    key = _key()
    return text.replace(key, "...") if key else text


def _shown(address: str) -> str:
    """An address without what may be a key."""
    return re.split(r"[?#]", re.sub(r"//[^/@]*@", "//...@", address))[0]
