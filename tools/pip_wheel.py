"""Fetch pip's own wheel from the package index that the user has configured, with the standard library alone.

In: pip's settings, from its environment variables and configuration files (PIP_INDEX_URL, PIP_FIND_LINKS,
PIP_NO_INDEX, PIP_CERT, PIP_TRUSTED_HOST, PIP_PROXY and the same keys of pip.conf).  Out: a wheel whose sha256 is the
one that the index names.  Refused: yanked files, pre-releases, files for a newer Python, files without a sha256.
Sources: PEP 503 and PEP 592 (the index's pages), pip's user guide (where its configuration lies).
"""

import base64
import configparser
import hashlib
import os
import re
import ssl
import sys
import urllib.parse
import urllib.request
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

PYPI = "https://pypi.org/simple"
TIMEOUT_S = 60
_WHEEL = re.compile(r"pip-(\d+(?:\.\d+)*)-py3-none-any\.whl")


class FetchError(Exception):
    """No wheel of pip could be had; the message says from where and why."""


@dataclass(frozen=True, slots=True)
class PipSettings:
    """What pip's settings say about where packages come from; ``index_url`` is None where they say nothing."""

    index_url: str | None
    extra_index_urls: tuple[str, ...]
    find_links: tuple[str, ...]
    no_index: bool
    cert: str | None
    trusted_hosts: tuple[str, ...]
    proxy: str | None


@dataclass(frozen=True, slots=True)
class Candidate:
    """One wheel of pip: its version, its address, and the sha256 that the index's page gives for it."""

    version: tuple[int, ...]
    url: str
    sha256: str | None


def configuration_files(env: dict[str, str]) -> list[Path]:
    """The files that pip reads, the strongest last."""
    named = env.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return []
    home = Path(env.get("HOME") or Path.home())
    system = [Path(folder, "pip/pip.conf") for folder in env.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":") if folder]
    user = [home / ".pip/pip.conf", Path(env.get("XDG_CONFIG_HOME") or home / ".config", "pip/pip.conf")]
    return [*system, Path("/etc/pip.conf"), *user, *([Path(named)] if named else [])]


def read_settings(env: dict[str, str]) -> PipSettings:
    """Pip's settings: [global] of each file, then [install], then the environment; the last one that is set counts."""
    values: dict[str, str] = {}
    for path in configuration_files(env):
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except configparser.Error as error:
            raise FetchError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
        for section in ("global", "install"):
            if parser.has_section(section):
                values |= {key.replace("_", "-"): value for key, value in parser.items(section)}
    values |= {
        name[4:].lower().replace("_", "-"): value for name, value in env.items() if name.startswith("PIP_") and value
    }
    return PipSettings(
        index_url=values.get("index-url"),
        extra_index_urls=tuple(values.get("extra-index-url", "").split()),
        find_links=tuple(values.get("find-links", "").split()),
        no_index=values.get("no-index", "").lower() in ("1", "true", "yes", "on"),
        cert=values.get("cert"),
        trusted_hosts=tuple(values.get("trusted-host", "").split()),
        proxy=values.get("proxy"),
    )


class _Links(HTMLParser):
    """The wheels of pip that an index page links to and that this Python may use."""

    def __init__(self, page_url: str) -> None:
        super().__init__()
        self.base = page_url
        self.found: list[Candidate] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        fields = dict(attributes)
        if tag == "base" and fields.get("href"):
            self.base = urllib.parse.urljoin(self.base, fields["href"] or "")
        if tag != "a" or not fields.get("href") or "data-yanked" in fields:
            return
        if not python_fits(fields.get("data-requires-python") or "", sys.version_info[:2]):
            return
        url, fragment = urllib.parse.urldefrag(urllib.parse.urljoin(self.base, fields["href"] or ""))
        if version := _version(file_name(url)):
            sha256 = urllib.parse.parse_qs(fragment).get("sha256", [""])[0]
            self.found.append(Candidate(version, url, sha256 or None))


def file_name(url: str) -> str:
    """The last part of an address's path, unquoted."""
    return urllib.parse.unquote(urllib.parse.urlsplit(url).path).rpartition("/")[2]


def python_fits(requires: str, python: tuple[int, ...]) -> bool:
    """Whether ``>=3.9,<4`` admits a Python; only the lower bound is read, pip has never set another."""
    bounds = re.findall(r">=\s*(\d+)(?:\.(\d+))?", requires)
    return all((int(major), int(minor or 0)) <= python for major, minor in bounds)


def _open(url: str, settings: PipSettings) -> bytes:
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    context = ssl.create_default_context(cafile=settings.cert)
    if host in settings.trusted_hosts or f"{host}:{parts.port}" in settings.trusted_hosts:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    handlers: list[urllib.request.BaseHandler] = [urllib.request.HTTPSHandler(context=context)]
    if settings.proxy:
        handlers.append(urllib.request.ProxyHandler({"http": settings.proxy, "https": settings.proxy}))
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    request = urllib.request.Request(urllib.parse.urlunsplit(bare), headers={"Accept": "text/html, */*;q=0.1"})
    if parts.username:
        pair = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        request.add_header("Authorization", "Basic " + base64.b64encode(pair.encode()).decode())
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=TIMEOUT_S) as answer:
            return bytes(answer.read())
    except OSError as error:  # URLError, a refused certificate and a timeout are all OSErrors
        reason = getattr(error, "reason", error)
        hint = " (ca-certificates missing, or a proxy's own certificate: PIP_CERT=FILE names one)"
        refused = isinstance(reason, ssl.SSLCertVerificationError)
        raise FetchError(f"{urllib.parse.urlunsplit(bare)}: {reason}{hint if refused else ''}") from error


def _with_login_of(url: str, index: str) -> str:
    """The index's own user and password for a file on the same host; pip does the same."""
    parts, login = urllib.parse.urlsplit(url), urllib.parse.urlsplit(index)
    if "@" in login.netloc and "@" not in parts.netloc and parts.hostname == login.hostname:
        return urllib.parse.urlunsplit(parts._replace(netloc=login.netloc))
    return url


def _version(name: str) -> tuple[int, ...] | None:
    named = _WHEEL.fullmatch(name)
    return tuple(map(int, named[1].split("."))) if named else None


def _candidates(settings: PipSettings) -> list[Candidate]:
    found: list[Candidate] = []
    for link in settings.find_links:
        if "://" in link and not link.startswith("file:"):
            continue  # a page elsewhere: the index has pip too
        folder = Path(urllib.request.url2pathname(urllib.parse.urlsplit(link).path) if "://" in link else link)
        wheels = sorted(folder.expanduser().glob("pip-*.whl"))
        found += [Candidate(version, one.resolve().as_uri(), None) for one in wheels if (version := _version(one.name))]
    indexes = () if settings.no_index else (settings.index_url or PYPI, *settings.extra_index_urls)
    for index in indexes:
        page = index.rstrip("/") + "/pip/"
        links = _Links(page)
        links.feed(_open(page, settings).decode("utf-8", "replace"))
        found += [Candidate(one.version, _with_login_of(one.url, index), one.sha256) for one in links.found]
    return found


def fetch_pip_wheel(folder: Path, env: dict[str, str]) -> Path:
    """The newest pip that the user's index or link folders offer, written to ``folder``.

    Raises FetchError where nothing answers, nothing fits, or the bytes are not those the index promised.
    """
    settings = read_settings(env)
    candidates = _candidates(settings)
    if not candidates:
        raise FetchError(f"no wheel of pip at {settings.index_url or PYPI} for Python {sys.version.split()[0]}")
    best = max(candidates, key=lambda one: one.version)
    if best.url.startswith("file:"):
        content = Path(urllib.request.url2pathname(urllib.parse.urlsplit(best.url).path)).read_bytes()
    else:
        if best.sha256 is None:
            raise FetchError(f"{best.url} comes without a sha256")
        content = _open(best.url, settings)
        if hashlib.sha256(content).hexdigest() != best.sha256:
            raise FetchError(f"{best.url} is not the file that the index promised (its sha256 differs)")
    target = folder / file_name(best.url)
    target.write_bytes(content)
    return target
