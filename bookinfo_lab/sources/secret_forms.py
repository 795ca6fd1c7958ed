"""What is secret in a text, told by its form: bytes go in, spans come out, each with the kind of secret it holds.

Found are the values of Cookie, Set-Cookie, Authorization and end-user fields, bearer tokens, JWTs and tokens of known
make, PEM private keys, passwords in URLs and in the options of programs that have one, and whatever stands under a name
that ends in a secret's word (password, token, …): as ``name=value``, ``name: value``, ``--name value``, a JSON pair, or
an object's ``name`` and ``value``.
Each also inside base64.  Not found: what no name and no form gives away, what is encrypted or compressed.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

ALLOWED_COOKIES = frozenset({b"user=jason"})  # the lab's own demo login: every notebook sends it, and it opens nothing
_ALLOWED_USERS = frozenset({b"jason"})


@dataclass(frozen=True, slots=True)
class Span:
    """A secret from ``start`` up to ``end``; ``value`` is what it means, decoded where it stands in base64."""

    start: int
    end: int
    what: str
    value: bytes


_KEY_OWNERS = ("api", "access", "private", "secret", "signing", "encryption", "session", "shared", "master", "account")
_STEMS = (
    *("password", "passwd", "passphrase", "passcode", "requirepass", "masterauth"),
    *("-pwd", "_pwd", ".pwd", ";pwd", "-pass", "_pass", ".pass"),
    *("secret", "token", "credential", "credentials"),
    *(f"{owner}{joint}key" for owner in _KEY_OWNERS for joint in ("", "-", "_", ".")),
    *("client-key-data", "session-id", "session_id", "sessionid", "jwt"),
)
_FIELDS = {"cookie": "cookie", "authorization": "authorization", "end-user": "user of a cookie"}
_Q = rb"\\{0,64}[\"']"  # a quotation mark in a string in a string has many backslashes, but not endlessly many
_VALUE = (
    rb"(?:\"(?P<double>(?:\\.|[^\"\\\r\n\0])*)"
    rb"|'(?P<single>[^'\r\n\0]*)"
    # JSON in a string of JSON: four backslashes are one of the value's, three and a quote a quote of it.
    rb"|\\\"(?P<inner>(?:\\{4}|\\{3}\"|\\{0,2}[^\\\"\r\n\0])*)(?=\\\")"
    rb"|(?P<q>\\{1,64}[\"'])(?P<nested>(?:(?!(?<!\\)(?P=q))[^\r\n\0])*)"
    rb"|(?P<bare>%s))"
)
_BARE = rb"(?![{\[(<])(?:[^\s\"'\\\0&]|\\[^\"'\\/bfnrtu\s])+"
_SUFFIX = rb"(?:[-_.]?\d{1,3}|[-_.](?:value|data|text|string|base64|b64|plain))?"
_JOINED = re.compile(_SUFFIX + rb"[ \t]*(?::=|=>|[:=])[ \t]*" + _VALUE % _BARE, re.IGNORECASE)
_QUOTED = re.compile(_SUFFIX + rb"%s\s*(?:=>|[:=])\s*" % _Q + _VALUE % rb"(?![{\[])[^\s,}\]\"'\\]+", re.IGNORECASE)
_PAIRED = re.compile(
    _SUFFIX + rb"%s\s*,\s*%s(?:value|raw_value|stringValue)%s\s*:\s*" % (_Q, _Q, _Q) + _VALUE % rb"[0-9]+",
    re.IGNORECASE,
)
_FOLLOWED = re.compile(
    _SUFFIX + rb"(?:[ \t\0]+|%s\s*,\s*)" % _Q + _VALUE % (rb"(?!-)" + _BARE), re.IGNORECASE
)  # the words of a command line, or of an array that holds one
_NAMED_BEFORE = re.compile(rb"%s(?:name|key|header)%s\s*:\s*%s[^\"'\\]*\Z" % (_Q, _Q, _Q), re.IGNORECASE)
_OPTION_BEFORE = re.compile(rb"(?<![\w-])--?[\w.-]*\Z")
_COUNTED = re.compile(rb"\d{1,3}")  # after first_pass; and proxy_pass is nginx's word for where to
_NEVER = rb"(?!)"
_FIELD = re.compile(rb"[ \t]*[:=][ \t]*" + _VALUE % rb"(?![\s{\[])[^\r\n\0\"'\\]+", re.IGNORECASE)
_FIELD_QUOTED = re.compile(rb"%s\s*(?:=>|[:=])\s*" % _Q + _VALUE % _NEVER, re.IGNORECASE)
_FIELD_PAIRED = re.compile(rb"%s\s*,\s*%s(?:value|raw_value)%s\s*:\s*" % (_Q, _Q, _Q) + _VALUE % _NEVER, re.IGNORECASE)
_FIELD_LINE = re.compile(rb"[ \t]*:[ \t]*(?P<line>[^\r\n\0]*)")
_COOKIE_PAIR = re.compile(rb"[\s\"\\]*+(?P<name>[^=;\s]*+)[ \t]*+=[ \t]*+[\"\\]*+(?P<value>[^;\"\\\s]*)")
_COOKIE_TRAITS = frozenset({b"path", b"domain", b"expires", b"max-age", b"samesite", b"secure", b"httponly"})
_SCHEME = re.compile(rb"(?i)\s*(?:basic|bearer|digest|negotiate|ntlm|token|apikey|aws4-hmac-sha256)\s+")
_NO_SECRET = re.compile(rb"(?i)(?:true|false|null|none|nil|x*|\*+|\[?redacted\]?|\$[({]?[A-Z_][A-Z0-9_]*[)}]?)")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{24,}={0,2}")
_CONTROL = re.compile(r"[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_PEM = rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----(?P<v>(?:(?!-----)[^\"'\0])*)"
_WORD = rb"[^\s\"'\\\0]"
_NEXT = rb"(?:[ =\0]+|%s\s*,\s*)[\"'\\]*" % _Q  # between an option and its value
_PAIR = rb"[\w.@-]+:(?!//)(?!\d{1,5}(?!%s))(?P<v>%s+)" % (_WORD, _WORD)  # user:password, no URL and no host:port
_CURL = rb"(?<![\w-])(?:-u|--user|--proxy-user)%s[\w.@-]+:(?P<v>%s+)" % (_NEXT, _WORD)
_AUTH = rb"(?<![\w-])--?(?:[\w-]{0,40}-)?auth%s%s" % (_NEXT, _PAIR)
_AUTH_NOTED = rb"basic-auth%s\s*:\s*%s%s" % (_Q, _Q, _PAIR)
_DSN = rb"(?<![\w.%%+-])[\w.%%+-]{1,64}:(?P<v>[^\s\"'\\]{1,200})@(?:tcp|unix)\("  # Go's MySQL driver
_CALLED = rb"(?:(?<![\w.:/-])|(?<=bin/))(?:%s)(?![\w:./-])[^\r\n;|&{}]{0,300}?(?<![\w-])"  # a program, then an option
_ATTACHED = _CALLED % rb"mysql\w*|mariadb(?:-\w+)?" + rb"-p(?P<v>%s+)" % _WORD  # a word of its own would be a database
_AFTER_P = (
    _CALLED % rb"sshpass|mongo(?:sh|dump|restore|export|import)?|(?:docker|podman|oc|az)(?:[ \0]+|[\"', ]+)login"
    + rb"-p%s(?!-|\d{1,5}(?!%s))(?P<v>%s+)" % (_NEXT, _WORD, _WORD)
)
_AFTER_A = _CALLED % rb"(?:redis|valkey|keydb)-(?:cli|benchmark)" + rb"-a%s(?!-)(?P<v>%s+)" % (_NEXT, _WORD)
_AFTER_W = _CALLED % rb"ldap(?:search|add|modify|delete|whoami|passwd)" + rb"-w%s(?!-)(?P<v>%s+)" % (_NEXT, _WORD)
_SK = (
    rb"(?<![\w-])(?P<v>sk-(?:(?:proj|ant|svcacct|admin)-[\w-]{20,}"
    rb"|(?=[\w-]*[A-Z0-9])(?:[a-z0-9]{2,10}-){0,3}[A-Za-z0-9_]{20,}[\w-]*))"  # and no sk-learn-…: its words are short
)
_FORMS = (
    ("private key", _PEM, b"PRIVATE KEY"),
    ("JWT", rb"(?P<v>eyJ[\w-]{6,}\.[\w-]{6,}(?:\.[\w-]*)*)", b"eyJ"),
    ("bearer token", rb"(?i:bearer)[ \t]+(?P<v>(?=[\w.~+/-]*\d|[\w.~+/-]{16})[\w.~+/-]{6,}=*)", b"earer"),
    ("bearer token", rb"BEARER[ \t]+(?P<v>[\w.~+/-]{6,}=*)", b"BEARER"),
    ("token", rb"(?P<v>gh[pousr]_[A-Za-z0-9]{20,})", b"gh"),
    ("token", rb"(?P<v>github_pat_\w{20,})", b"github_pat_"),
    ("token", rb"(?P<v>(?:AKIA|ASIA)[0-9A-Z]{16})", b"IA"),
    ("token", rb"(?P<v>xox[a-z]-[\w-]{10,})", b"xox"),
    ("token", rb"(?P<v>glpat-[\w-]{20,})", b"glpat-"),
    ("token", rb"(?<![\w.-])(?P<v>hv[sbr]\.[\w-]{20,})", b"hv"),
    ("token", _SK, b"sk-"),
    ("token", rb"(?<![\w-])(?P<v>[sr]k_(?:live|test)_[A-Za-z0-9]{16,})", b"k_"),
    ("token in a URL", rb"hooks\.slack\.com/(?:services|workflows|triggers)/(?P<v>[\w/-]{10,})", b"hooks.slack.com/"),
    ("token in a URL", rb"(?:[?&]|\\u0026)sig=(?P<v>[^\s&\"'\\<>]{8,})", b"sig="),
    ("private key", rb"(?P<v>AGE-SECRET-KEY-1[0-9A-Z]{20,})", b"AGE-SECRET"),
    # To the last @ before the path: a password may have one.
    ("password in a URL", rb"://[^\s/?#@:\"'\\<>]*:(?P<v>[^\s/?#\"'\\<>]+)@", b"://"),
    ("token in a URL", rb"://(?P<v>[^\s/?#@:\"'\\<>]{12,})@", b"://"),
    ("password of a database", _DSN, b"@tcp("),
    ("password of a database", _DSN, b"@unix("),
    ("password of curl", _CURL, b"-u"),
    ("password of an option", _AUTH, b"auth"),
    ("password of an option", _AUTH_NOTED, b"basic-auth"),
    ("password of mysql", _ATTACHED, b"-p"),
    ("password of a program", _AFTER_P, b"-p"),
    ("password of a program", _AFTER_A, b"-a"),
    ("password of a program", _AFTER_W, b"-w"),
)
_PATTERNS = tuple((what, re.compile(form), must) for what, form, must in _FORMS)


def find(text: bytes) -> list[Span]:
    """Every secret whose form or name shows in ``text``, base64 included; spans may overlap and come in no order."""
    found = list(_plain(text))
    for run in _BASE64.finditer(text):
        decoded = decode(run[0])
        if decoded is not None:
            found.extend(_encoded(item, run.start(), run.end()) for item in _plain(decoded))
    return found


def decode(text: bytes) -> bytes | None:
    """What base64 (either alphabet, padding or not) holds where that is UTF-8 text; None where it is not."""
    body = text.rstrip(b"=").replace(b"-", b"+").replace(b"_", b"/")
    if len(body) % 4 == 1:
        return None
    try:
        decoded = base64.b64decode(body + b"=" * (-len(body) % 4))
        readable = decoded.decode()
    except (binascii.Error, ValueError):
        return None
    return decoded if _CONTROL.search(readable) is None else None


def is_secret_name(name: str) -> bool:
    """Whether a field, variable or key of that name holds a secret."""
    return _SECRET_NAME.search(name.lower()) is not None


_SECRET_NAME = re.compile(f"(?:{'|'.join(map(re.escape, _STEMS))})" + _SUFFIX.decode() + r"\Z")


def cookie_values(text: bytes) -> Iterator[tuple[int, int]]:
    """Where the values of a Cookie or Set-Cookie field stand, but for those on the allow-list and for attributes."""
    offset = 0
    for part in text.split(b";"):
        pair = _COOKIE_PAIR.match(part)
        if pair is None:
            word = part.strip()
            if word and word.lower() not in _COOKIE_TRAITS and not _NO_SECRET.fullmatch(word):
                start = offset + part.index(word)
                yield start, start + len(word)
        elif not _is_harmless(pair):
            # To the end of the pair: a value with blanks or quotes is cut by nothing but the semicolon.
            end = len(part.rstrip(b" \t\r\n\"'\\"))
            yield offset + pair.start("value"), offset + max(end, pair.end("value"))
        offset += len(part) + 1


def _is_harmless(pair: re.Match[bytes]) -> bool:
    name, value = pair["name"].lower(), pair["value"]
    return name in _COOKIE_TRAITS or name + b"=" + value in ALLOWED_COOKIES or bool(_NO_SECRET.fullmatch(value))


def _plain(text: bytes) -> Iterator[Span]:
    for what, pattern, must in _PATTERNS:
        if must not in text:
            continue
        for match in pattern.finditer(text):
            yield from _span(text, match.start("v"), match.end("v"), what)
    lowered = text.lower()
    for stem in (*_STEMS, *_FIELDS):
        word = stem.encode()
        at = lowered.find(word)
        while at >= 0:
            end = at + len(word)
            found = _field(text, at, end, stem) if stem in _FIELDS else _named(text, at, end)
            if found is not None:
                yield from found[1]
                end = max(end, found[0])
            # What was read as a value is not read again: a value may be long, and hold the word many times.
            at = lowered.find(word, end)


def _named(text: bytes, start: int, end: int) -> tuple[int, list[Span]] | None:
    """The value that belongs to the name whose last word stands from ``start`` to ``end``, and where it ends."""
    joint = text[start : start + 1] in b"-_.;"  # which is a stem's own, and may be an option's dash
    before = text[max(0, start - 80) : start + joint]
    if before.endswith(b"/etc/"):
        return None  # /etc/passwd holds none
    match = _JOINED.match(text, end) or _QUOTED.match(text, end)
    if match is None and _NAMED_BEFORE.search(before):
        match = _PAIRED.match(text, end)
    if match is None and _OPTION_BEFORE.search(before):
        match = _FOLLOWED.match(text, end)
    if match is None:
        return None
    name = text[start:end].decode().strip("-_.;").lower()
    if name == "pass" and (before.endswith(b"proxy_") or _COUNTED.fullmatch(text, *_value(match))):
        return None
    return match.end(), list(_span(text, *_value(match), f"value of a {name}"))


def _field(text: bytes, start: int, end: int, field: str) -> tuple[int, list[Span]] | None:
    """The secret parts of a header field whose name ends at ``end``, in HTTP, in a command line or in JSON."""
    head = start - len(b"set-") if field == "cookie" and text[max(0, start - 4) : start].lower() == b"set-" else start
    head = head - len(b"proxy-") if text[max(0, head - 6) : head].lower() == b"proxy-" else head
    at_line_start = head == 0 or text[head - 1] in b"\r\n\0"
    line = _FIELD_LINE.match(text, end) if at_line_start else None
    match = line or _FIELD.match(text, end) or _FIELD_QUOTED.match(text, end)
    if match is None and _NAMED_BEFORE.search(text[max(0, head - 80) : head]):
        match = _FIELD_PAIRED.match(text, end)
    if match is None:
        return None
    first, last = match.span("line") if line else _value(match)
    places = _places(field, text[first:last])
    return last, [item for low, high in places for item in _span(text, first + low, first + high, _FIELDS[field])]


def _places(field: str, value: bytes) -> Iterable[tuple[int, int]]:
    """Where the secrets stand in the value of one of the fields."""
    if field == "cookie":
        return cookie_values(value)
    if field == "authorization":
        scheme = _SCHEME.match(value)
        return [(scheme.end() if scheme else 0, len(value))]
    return [] if value.strip() in _ALLOWED_USERS else [(0, len(value))]


def _value(match: re.Match[bytes]) -> tuple[int, int]:
    return next(match.span(name) for name in ("double", "single", "inner", "nested", "bare") if match[name] is not None)


def _span(text: bytes, start: int, end: int, what: str) -> Iterator[Span]:
    value = text[start:end]
    if value.strip() and not _NO_SECRET.fullmatch(value.strip()):
        yield Span(start, end, what, value)


def _encoded(span: Span, start: int, end: int) -> Span:
    """A span of decoded text as one of the base64 that starts at ``start``: whole characters, so a bit more."""
    low, high = start + span.start * 4 // 3, start + -(-span.end * 4 // 3)
    return Span(low, min(high, end), f"{span.what}, base64", span.value)
