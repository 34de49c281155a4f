"""Removes secrets from URLs, for logs, states and error texts.

Cameras take logins in every place of a URL, and users write them there as they are. Of a URL, only its scheme, host,
port, path and the keys of its query are shown. Passwords that lack their percent-encoding make it uncertain where the
host begins; where it is uncertain, less is shown, down to the scheme alone.

Everything here takes time linear in its input, as texts from outside come to any length.
"""

from __future__ import annotations

import itertools
import re
from urllib.parse import quote, urlsplit, urlunsplit

_HIDDEN = "***"

_SPACES = re.compile(r"(\s+)")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,31}\Z")
# Where a URL ends within a text without spaces, such as JSON, although a password may hold quotes.
_NEXT_VALUE = re.compile(r"(?=[\"'][,:}\])])")
_CLOSERS = "'\")}>,;.`"

# An address as the host is certain: nobody has it for a user name.
_IPV6 = r"\[[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:.]{1,41}(?:%[\w.-]{1,16})?\]"
_ADDRESS = re.compile(rf"(?:{_IPV6}|(?:[0-9]{{1,3}}\.){{3}}[0-9]{{1,3}})(?::[0-9]{{1,5}})?(?=[/?#]|\Z)")
_HOST = re.compile(rf"(?:{_IPV6}|[\w.-]*)(?::[0-9]{{1,5}})?\Z")
_AT = re.compile(r"@|%(?:25){0,3}40")
_AT_ADDRESS = re.compile(rf"(?P<at>{_AT.pattern})(?={_ADDRESS.pattern})")
_LAST_AT = re.compile(rf".*(?P<at>{_AT.pattern})", re.DOTALL)
_AUTHORITY_END = re.compile(r"[/?#]")

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.\[\]-]{0,31}\Z")
_NAME_END = re.compile(r"([/&;])")
# Behind a segment of this name stands its value: `/token/...`.
_SECRET_NAME = re.compile(
    r"(?:pass(?:word|wd|phrase)?|pwd|psw|pas|pw|secret|(?:api_?|access_?|auth_?|stream_?)?(?:key|token)|jwt|auth|"
    r"credentials?|sign|sig|signature|session|ticket|user(?:name|id)?|usr|login)",
    re.IGNORECASE,
)
# Behind one of these words stands its value within the same segment: `pwd-...`.
_PASSWORD = re.compile(r"pass(?:word|wd|phrase)?|pwd|psw|pw|secret|token|jwt|auth", re.IGNORECASE)
_WORD_END = re.compile(r"([-_~,.!])")
# From here on, a segment of a path is a value: `password=...`, `user:...`, also percent-encoded, twice if need be.
_VALUE = re.compile(r"[=:@]|%(?:25){0,3}(?:3[AaDdFfBb]|40|2[36FfCc])|%25")

# A colon that does not stand between a key and a value of JSON.
_LOGIN = re.compile(r"(?:^|[^'\"]):")

# In texts without a scheme, a value is hidden by its key.
_PLAIN_PAIR = re.compile(r"(?P<before>^|[?&/;,(\[{'\"])(?P<key>[A-Za-z0-9_.-]{1,64})(?P<is>=|%3[Dd])['\"]?[^'\",)]*")
_SECRET_KEY = re.compile(
    r"pass|pwd|psw|secret|token|key|auth|sign|credential|jwt|session|ticket"
    r"|^(?:user(?:name|id)?|usr|login(?:pas|use)?|u|p|pw|pas|sig|sid|streamid|hash|code|pin)$",
    re.IGNORECASE,
)
_ENCODED_URL = re.compile(r"(%(?:25){0,3}3[Aa]%(?:25){0,3}2[Ff]%(?:25){0,3}2[Ff])[^\s&'\"]+")
_HEADER = re.compile(r"((?:authorization|cookie)['\"]?[ ]?[:=][ ]?['\"]?)[^\r\n'\"]+", re.IGNORECASE)


def redact(text: str) -> str:
    """Return a text with user names, passwords and other secrets in its URLs replaced by `***`.

    Secrets in a URL with spaces are found only by `shown`, which knows where the URL ends.
    """
    text = _HEADER.sub(rf"\g<1>{_HIDDEN}", text)
    return "".join(_word(word) if _may_hold_secret(word) else word for word in _SPACES.split(text))


def shown(url: str) -> str:
    """Return the form in which a URL, or the path of a file, may be shown: without what is or may be a secret."""
    scheme, mark, rest = url.partition("://")
    if not mark or not _SCHEME.match(scheme.strip()):
        return _plain(url)
    if scheme.strip().lower() == "file":
        return f"{scheme}://{_plain(rest)}"
    return f"{scheme}://{_rest(rest)}"


def may_hold_password(url: str) -> bool:
    """Return whether a URL seems to hold a login, or a value by the key of a secret."""
    text = shown(url)
    return (
        f"{_HIDDEN}@" in text
        or text.endswith(f"://{_HIDDEN}")
        or _plain(url.rpartition("://")[2]) != (url.rpartition("://")[2])
    )


def with_credentials(url: str, username: str | None, password: str | None) -> str:
    """Return a URL with credentials put into it; those that it already has are kept unless `username` is given."""
    if username is None:
        return url
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    user = quote(username, safe="")
    if password is not None:
        user += ":" + quote(password, safe="")
    return urlunsplit(parts._replace(netloc=f"{user}@{host}"))


def _may_hold_secret(word: str) -> bool:
    return "://" in word or "@" in word or "=" in word or "%" in word


def _word(word: str) -> str:
    """Return a text without spaces, in which there may be several URLs, without their secrets."""
    return "".join(map(_value, _NEXT_VALUE.split(word)))


def _value(text: str) -> str:
    """Return a text that has a URL at most, without its secrets, and with the punctuation behind it."""
    before, mark, rest = text.partition("://")
    if not mark:
        return _plain(text)
    url = rest.rstrip(_CLOSERS)
    if url.endswith("]") and url.count("]") > url.count("["):
        url = url.rstrip("]" + _CLOSERS)
    is_file = before[-4:].lower() == "file"
    return f"{_plain(before)}://{_plain(url) if is_file else _rest(url)}{rest[len(url) :]}"


def _rest(rest: str) -> str:
    """Return what may be shown of a URL after its `://`."""
    login, place = _without_login(rest)
    if place is None:
        return _HIDDEN
    end = _AUTHORITY_END.search(place)
    host, site = (place, "") if end is None else (place[: end.start()], place[end.start() :])
    if not _HOST.match(host):
        return _HIDDEN
    site = site.partition("#")[0]
    path, mark, query = site.partition("?")
    text = login + host + _path(path)
    if not mark:
        return text
    return f"{text}?{_HIDDEN if _VALUE.search(path) else _query(query)}"  # a value in a path may have a ? in it


def _without_login(rest: str) -> tuple[str, str | None]:
    """Return the login of a URL in the form in which it is shown, and what follows it; None if that is uncertain."""
    if _ADDRESS.match(rest):
        return "", rest
    # The first place after which an address stands is certain; otherwise it is the last, which is the longest login.
    certain = _AT_ADDRESS.search(rest)
    at = certain or _LAST_AT.match(rest)
    if at is None:
        return "", rest
    begin, end = at.span("at")
    found = f"{_HIDDEN}@" if begin else "@", rest[end:]
    authority = _AUTHORITY_END.split(rest, maxsplit=1)[0]
    if certain or begin < len(authority):
        return found
    between = rest[len(authority) : begin]
    if not _AT.search(between) and not _AT.search(authority) and not _HOST.match(authority):
        return found  # a password with / ? or #
    # Otherwise it may stand within the value of a parameter, whose end must not be taken for the host.
    return ("", None) if set("?#=:&;") & set(between) else found


def _query(query: str) -> str:
    """Return a query with its keys alone."""
    return "&".join(map(_pair, query.split("&")))


def _pair(pair: str) -> str:
    key, _, value = pair.partition("=")
    if not pair or pair == _HIDDEN:
        return pair
    # A token may end with equals signs, as base64 does.
    is_key = _KEY.match(key) and not _looks_random(key) and value.strip("=")
    return f"{key}={_HIDDEN}" if is_key else _HIDDEN


def _path(path: str) -> str:
    """Return what may be shown of a path: no tokens, and from the first value on only keys."""
    value = _VALUE.search(path)
    end = len(path) if value is None else max(path.rfind(mark, 0, value.start()) for mark in "/&;") + 1
    names = _NAME_END.split(path[:end])
    befores = ["", "", *names]
    text = "".join(map(_name, names, befores))
    # A value may have slashes in it, so nothing behind it is a segment for certain.
    if value is None:
        return text
    first, *others = path[end:].split("&")
    is_secret = len(names) > 2 and _SECRET_NAME.fullmatch(names[-3])
    is_key = value[0] != "@" and not is_secret and _KEY.match(path[end : value.start()])
    first = f"{path[end : value.end()]}{_HIDDEN}" if is_key else _HIDDEN
    return text + "&".join([first, *map(_pair, others)])


def _name(name: str, before: str) -> str:
    """Return what may be shown of a segment of a path, by the segment before it."""
    if _looks_random(name) or (name and _SECRET_NAME.fullmatch(before)):
        return _HIDDEN
    words = _WORD_END.split(name)
    for index in range(0, len(words) - 1, 2):
        if _PASSWORD.fullmatch(words[index]):
            return f"{''.join(words[: index + 2])}{_HIDDEN}"
    return name


def _looks_random(text: str) -> bool:
    """Return whether a text looks like a token: it is long, and letters, capitals and digits alternate in it often.

    Names that cameras use, such as `h264Preview_01_main` or `LiveMediaChannel2`, do not look so.
    """
    if not 12 <= len(text) <= 64:
        return len(text) > 64
    kinds = [1 if c.isdigit() else 2 if c.isupper() else 3 for c in text if c.isalnum()]
    changes = sum(a != b for a, b in itertools.pairwise(kinds))
    if len(kinds) >= 12 and changes * 3 >= len(kinds):
        return True
    runs = re.findall(r"[0-9]+|[A-Za-z]+", text)
    return any(len(run) >= (12 if run.isdigit() else 24) for run in runs)


def _plain(text: str) -> str:
    """Return a text without a scheme, such as the path of a file, without what looks like a login or a secret."""
    head, at, tail = text.rpartition("@")
    if ":" in head and at and _LOGIN.search(head):
        quotes = re.match(r"[('\"\[{<]*", head)
        text = f"{quotes[0] if quotes else ''}{_HIDDEN}@{tail}"
    if "%" in text:
        text = _ENCODED_URL.sub(rf"\g<1>{_HIDDEN}", text)
    return _PLAIN_PAIR.sub(_without_value, text) if "=" in text or "%" in text else text


def _without_value(pair: re.Match[str]) -> str:
    return f"{pair['before']}{pair['key']}{pair['is']}{_HIDDEN}" if _SECRET_KEY.search(pair["key"]) else pair[0]
