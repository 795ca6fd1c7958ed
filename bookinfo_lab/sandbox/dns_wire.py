"""DNS messages (RFC 1035, EDNS RFC 6891): the bytes of a query in, the bytes of its reply and a log line out.

No I/O; dnslib does the encoding; what is asked is answered by `zone.lookup`.  Refused as CoreDNS does: shorter
than a header, or a response: no reply; other operations: NOTIMP; other classes than IN: REFUSED; other versions of
EDNS: BADVERS; what cannot be read: FORMERR.  No bytes raise.
"""

import struct
from dataclasses import dataclass
from typing import Any

import dnslib
from dnslib.buffer import BufferError as ShortError
from dnslib.label import DNSBuffer, DNSLabelError

from bookinfo_lab.sandbox.zone import Answer, Record, Zone, lookup

_HEADER_BYTES = 12
_PLAIN_UDP_BYTES = 512
_IN, _OPT = 1, 41
_BADVERS = 16


@dataclass(frozen=True, slots=True)
class Exchange:
    """A reply in wire format, and the log line without who asked and how long it took."""

    reply: bytes
    asked: str
    outcome: str


def exchange_of(query: bytes, current: Zone, transport: str) -> Exchange | None:
    """The reply to one message; None where none is due.  ``transport`` is ``udp`` or ``tcp``."""
    if len(query) < _HEADER_BYTES or query[2] & 0x80:
        return None
    header = dnslib.DNSHeader(*struct.unpack("!HHHHHH", query[:_HEADER_BYTES]))
    unread = f'{header.id} "- - - {transport} {len(query)} false {_PLAIN_UDP_BYTES}"'
    if header.opcode != 0:
        return _built(_Query(header, None, None, transport), Answer("NOTIMP", authoritative=False), unread)
    try:
        question, edns = _sections(query, header)
    except ValueError:
        return _built(_Query(header, None, None, transport), Answer("FORMERR", authoritative=False), unread)
    parsed = _Query(header, question, edns, transport)
    kind, name = _type_name(question.qtype), _presentation(question.qname.label).lower()
    wish = f"{'true' if edns and edns.edns_do else 'false'} {parsed.room_bytes()}"
    asked = f'{header.id} "{kind} {_class_name(question.qclass)} {name} {transport} {len(query)} {wish}"'
    if edns and edns.edns_ver:
        answer = Answer("BADVERS", authoritative=False)
    elif question.qclass != _IN:
        answer = Answer("REFUSED", authoritative=False)
    else:
        answer = lookup(current, name, kind)
    try:
        return _built(parsed, answer, asked)
    except DNSLabelError:  # an ExternalName that is no name
        return _built(parsed, Answer("SERVFAIL", authoritative=False), asked)


@dataclass(frozen=True, slots=True)
class _Query:
    header: Any
    question: Any
    edns: Any
    transport: str

    def room_bytes(self) -> int:
        """How long the reply may be: what the client's EDNS says, at least what every client takes."""
        if self.transport == "tcp":
            return 65535
        return max(_PLAIN_UDP_BYTES, self.edns.edns_len) if self.edns else _PLAIN_UDP_BYTES


def _sections(query: bytes, header: Any) -> tuple[Any, Any]:
    """The question and the OPT record, if there is one; ValueError where the message cannot be read.

    Other records are stepped over: their contents are of no use here and reading them is where parsers break.
    """
    if header.q != 1 or header.a > 1 or header.auth > 1 or header.ar > 2:
        raise ValueError("not one question")
    buffer = DNSBuffer(query)
    buffer.offset = _HEADER_BYTES
    edns = None
    try:
        question = dnslib.DNSQuestion.parse(buffer)
        for _ in range(header.a + header.auth + header.ar):
            buffer.decode_name()
            kind, payload_bytes, flags, length = buffer.unpack("!HHIH")
            buffer.get(length)
            if kind == _OPT:
                edns = dnslib.RR(dnslib.DNSLabel([]), _OPT, payload_bytes, flags, [])
    except (ShortError, dnslib.DNSError, DNSLabelError, RecursionError) as error:
        raise ValueError(str(error)) from None
    labels = question.qname.label
    if any(len(label) > 63 for label in labels) or sum(len(label) + 1 for label in labels) > 254:
        raise ValueError("a name longer than RFC 1035 allows")
    return question, edns


def _built(query: _Query, answer: Answer, asked: str) -> Exchange:
    code = _BADVERS if answer.rcode == "BADVERS" else getattr(dnslib.RCODE, answer.rcode)
    header = dnslib.DNSHeader(
        id=query.header.id,
        bitmap=0,
        qr=1,
        opcode=query.header.opcode,
        aa=int(answer.authoritative),
        rd=query.header.rd,
        rcode=code & 15,
    )
    message = dnslib.DNSRecord(header)
    if query.question is not None:
        message.add_question(query.question)
    for section, add in (
        (answer.answers, message.add_answer),
        (answer.authority, message.add_auth),
        (answer.additional, message.add_ar),
    ):
        for record in section:
            add(_resource(record, query))
    if query.edns is not None:
        options = dnslib.EDNS0(
            flags="do" if query.edns.edns_do else "", udp_len=query.edns.edns_len, ext_rcode=code >> 4
        )
        message.add_ar(options)
    packed = bytes(message.pack())
    if len(packed) > query.room_bytes():
        message.rr, message.auth = [], []
        message.ar = [record for record in message.ar if record.rtype == _OPT]
        header.tc = 1
        packed = bytes(message.pack())
    raised = ",".join(flag for flag in ("qr", "aa", "tc", "rd") if getattr(header, flag))
    return Exchange(packed, asked, f"{answer.rcode} {raised} {_plain_bytes(message)}")


def _resource(record: Record, query: _Query) -> Any:
    """The record for the wire; about the asked name it repeats that name in the asker's own case."""
    asked = query.question.qname
    owner = asked if _presentation(asked.label).lower() == record.owner else _label(record.owner)
    data: list[Any] = list(record.data)
    if record.kind not in ("A", "AAAA", "TXT"):
        data = [_label(item) if isinstance(item, str) else item for item in data]
    if record.kind == "SOA":
        data = [*data[:2], tuple(data[2:])]
    rdata = getattr(dnslib, record.kind)(*data)
    return dnslib.RR(owner, getattr(dnslib.QTYPE, record.kind), _IN, record.ttl_s, rdata)


def _label(name: str) -> dnslib.DNSLabel:
    return dnslib.DNSLabel([part.encode() for part in name.split(".") if part])


class _Plain(DNSBuffer):  # type: ignore[misc]  # dnslib has no types
    """A buffer that writes each name out in full."""

    encode_name = DNSBuffer.encode_name_nocompress


def _plain_bytes(message: Any) -> int:
    """The message's length without name compression, which is what CoreDNS logs."""
    buffer = _Plain()
    for record in (message.header, *message.questions, *message.rr, *message.auth, *message.ar):
        record.pack(buffer)
    return len(buffer.data)


def _type_name(number: int) -> str:
    return str(dnslib.QTYPE.forward.get(number, f"TYPE{number}"))


def _class_name(number: int) -> str:
    return {1: "IN", 3: "CH", 4: "HS", 255: "ANY"}.get(number, f"CLASS{number}")


def _presentation(labels: tuple[bytes, ...]) -> str:
    """An absolute name in the master file format (RFC 1035 5.1): one line, whatever bytes the labels hold."""
    return "".join("".join(map(_shown, label)) + "." for label in labels) or "."


def _shown(byte: int) -> str:
    if byte in b'.\\"':
        return "\\" + chr(byte)
    return chr(byte) if 33 <= byte <= 126 else f"\\{byte:03d}"
