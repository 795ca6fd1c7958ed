"""A WebSocket to the API server for two threads, which nobody on the way takes for idle, and which ends when lost.

Edge.  The `kubernetes` package's own client sets no limit of time to an answer and sends nothing while it waits.  This
connects as it does, over the same library; the part of that library that honours proxies is not public.
"""

import selectors
import socket
import ssl
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from websocket import ABNF, WebSocket, WebSocketException
from websocket._http import connect, proxy_info

LOST = (OSError, WebSocketException)  # what a connection that ends early raises
CONNECT_S, ANSWER_S = 5.0, 30.0
_PING_S, _LOST_S = 10.0, 60.0
_CLOSE_S = 3.0
_AHEAD_BYTES = 4096  # a pipe or a terminal that is empty takes them, whether or not its program reads
MESSAGES, ENDS = (ABNF.OPCODE_TEXT, ABNF.OPCODE_BINARY), ABNF.OPCODE_CLOSE


class _Wire:
    """A connected socket for two threads, one that reads and one that writes: OpenSSL stands one call at a time.

    The part of a socket that `websocket` needs.  Nobody waits while it is somebody's turn.
    """

    def __init__(self, raw: socket.socket) -> None:
        self._raw, self._timeout_s, self._turn = raw, raw.gettimeout(), threading.Lock()
        self._closed = False  # `websocket` asks for this name, and closes nothing that lacks it
        self.came, self.is_awaited = 0, False
        raw.setblocking(False)

    def recv(self, size: int) -> bytes:
        self.is_awaited = True
        try:
            data: bytes = self._done(self._raw.recv, size, selectors.EVENT_READ)
        finally:
            self.is_awaited = False
        self.came += 1
        return data

    def send(self, data: bytes) -> int:
        return int(self._done(self._raw.send, data, selectors.EVENT_WRITE))

    def gettimeout(self) -> float | None:
        return self._timeout_s

    def settimeout(self, seconds: float | None) -> None:
        self._timeout_s = seconds

    def shutdown(self, how: int = socket.SHUT_RDWR) -> None:
        with self._turn, suppress(OSError):
            self._raw.shutdown(how)

    def close(self) -> None:
        with self._turn:
            self._closed = True
            self._raw.close()

    def _done(self, call: Callable[[Any], Any], given: object, event: int) -> Any:
        while True:
            with self._turn:
                try:
                    return call(given)
                except ssl.SSLWantReadError:
                    event = selectors.EVENT_READ
                except ssl.SSLWantWriteError:
                    event = selectors.EVENT_WRITE
                except BlockingIOError:
                    pass
                ready = selectors.DefaultSelector()
                ready.register(self._raw, event)
            with ready:
                if not ready.select(self._timeout_s):
                    raise TimeoutError("timed out")


class Socket:
    """A WebSocket with a heartbeat: pings, so that nobody on the way takes it for idle.

    It is lost where nothing comes for _LOST_S while somebody waits for it; not where the other side is yet to read more
    than _AHEAD_BYTES: a program that does not read its stdin holds up what comes after, pings as well.
    """

    def __init__(self, own: WebSocket, wire: _Wire) -> None:
        self._own, self._wire = own, wire
        self._sent = self._read = 0
        self._is_silent, self._is_closed = False, threading.Event()
        self._came, self._silent_s = 0, 0.0
        # A reference that does not keep it: one that an interrupt let fall is closed.
        threading.Thread(
            target=_beat, args=(weakref.ref(self), self._is_closed, wire), name="heartbeat", daemon=True
        ).start()

    @property
    def protocol(self) -> str:
        """The one that was agreed on."""
        return str((self._own.getheaders() or {}).get("sec-websocket-protocol", ""))

    def limit(self, seconds: float) -> None:
        """Have `receive` and `send` wait no longer than that."""
        self._own.settimeout(seconds)

    def receive(self) -> tuple[int, bytes]:
        """(opcode, bytes) of the next message, in however many frames it comes, or control frame; or raises of LOST."""
        try:
            kind, frame = self._own.recv_data_frame(True)
        except LOST:
            if self._is_silent:
                raise TimeoutError(f"nothing came for {_LOST_S:g} s") from None
            raise
        data = bytes(frame.data)
        if kind == ABNF.OPCODE_PONG:
            with suppress(ValueError):
                self._read = int(data)
        return int(kind), data

    def send(self, channel: int, data: bytes) -> None:
        """Bytes to a channel; or raises of LOST."""
        self._own.send_binary(bytes([channel]) + data)
        self._sent += len(data)

    def close(self) -> None:
        """Let go of the connection; takes _CLOSE_S where nobody is at the other end."""
        self._is_closed.set()
        late = threading.Timer(_CLOSE_S, self._wire.shutdown)  # another thread may be stuck in it
        late.daemon = True
        late.start()
        try:
            self._own.close(timeout=_CLOSE_S)
        finally:
            self._own.shutdown()  # type: ignore[no-untyped-call]
            late.cancel()

    def beat(self) -> bool:
        """Ping, or end what is silent for too long; False where it has ended."""
        # Beats are counted, not seconds: a process that was stopped has not listened.
        before, self._came = self._came, self._wire.came
        is_silent = self._came == before and self._wire.is_awaited and self._sent - self._read <= _AHEAD_BYTES
        self._silent_s = self._silent_s + _PING_S if is_silent else 0.0
        if self._silent_s >= _LOST_S:
            self._is_silent = True
            self._wire.shutdown()
            return False
        try:
            # What the pong says was read.  An empty ping would end the stream: x/net/websocket took it for EOF.
            self._own.ping(str(self._sent))
        except LOST:
            return False  # who reads is told
        return True


def _beat(reference: "weakref.ref[Socket]", is_closed: threading.Event, wire: _Wire) -> None:
    while not is_closed.wait(_PING_S):
        own = reference()
        if own is None:
            wire.shutdown()
            wire.close()
        if own is None or not own.beat():
            return
        del own


def connected(configuration: Any, url: str, headers: dict[str, str]) -> Socket:
    """As `kubernetes.stream.ws_client.create_websocket` connects, within a limit of time.

    Raises TimeoutError where no connection is made in time, WebSocketTimeoutException where no answer comes then.
    """
    from kubernetes.stream.ws_client import websocket_proxycare  # a fifth of a second

    own: Any = WebSocket(sslopt=_tls(configuration, url), enable_multithread=True)
    given: dict[str, Any] = {"header": [f"{name}: {value}" for name, value in headers.items()]}
    if configuration.proxy or configuration.proxy_headers:
        given = websocket_proxycare(given, configuration, url, headers)  # type: ignore[no-untyped-call]
    own.settimeout(CONNECT_S)
    raw, _ = connect(url, own.sock_opt, proxy_info(**given), None)  # type: ignore[no-untyped-call]
    raw.settimeout(ANSWER_S)
    own.settimeout(ANSWER_S)
    own.connect(url, socket=_Wire(raw), **given)
    if not isinstance(own.sock, _Wire):  # it was sent elsewhere
        own.sock = _Wire(own.sock)
    own.settimeout(None)
    return Socket(own, own.sock)


def _tls(configuration: Any, url: str) -> dict[str, Any]:
    import certifi

    found: dict[str, Any] = {"cert_reqs": ssl.CERT_NONE}
    if url.startswith("wss://") and configuration.verify_ssl:
        found = {"cert_reqs": ssl.CERT_REQUIRED, "ca_certs": configuration.ssl_ca_cert or certifi.where()}
        if configuration.assert_hostname is not None:
            found["check_hostname"] = configuration.assert_hostname
    names = {"certfile": "cert_file", "keyfile": "key_file", "server_hostname": "tls_server_name"}
    own = {name: getattr(configuration, theirs) for name, theirs in names.items()}
    return {**found, **{name: value for name, value in own.items() if value}}
