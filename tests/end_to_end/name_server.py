"""A small DNS server over UDP and TCP, with a zone that changes and faults that real ones have."""

import asyncio
from typing import Literal

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from tests.end_to_end.ports import free_port

MAX_UDP_BYTES = 512
Fault = Literal["silent", "servfail"]


class NameServer:
    """`zone` maps (name, type) to (time to live, the records as text). A name that it does not have does not
    exist.
    """

    def __init__(self) -> None:
        self.zone: dict[tuple[str, str], tuple[int, list[str]]] = {}
        self.fault: Fault | None = None
        self.failing: set[tuple[str, str]] = set()  # name and type: SERVFAIL for these alone
        self.questions: list[tuple[str, str, str]] = []  # name, type, "udp" or "tcp"
        self.port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        self.port = free_port()
        self._tcp = await asyncio.start_server(self._serve_tcp, "127.0.0.1", self.port)
        loop = asyncio.get_running_loop()
        self._udp, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(self), local_addr=("127.0.0.1", self.port)
        )

    async def stop(self) -> None:
        self._udp.close()
        self._tcp.close()
        await self._tcp.wait_closed()

    def answer(self, wire: bytes, over: str) -> bytes | None:
        """The answer to a question; None is silence."""
        query = dns.message.from_wire(wire)
        [question] = query.question
        name = question.name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(question.rdtype)
        self.questions.append((name, kind, over))
        if self.fault == "silent":
            return None
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        if self.fault == "servfail" or (name, kind) in self.failing:
            response.set_rcode(dns.rcode.SERVFAIL)
            return response.to_wire()
        if not any(known == name for known, _ in self.zone):
            response.set_rcode(dns.rcode.NXDOMAIN)
        while (name, "CNAME") in self.zone:
            ttl, [target] = self.zone[name, "CNAME"]
            response.answer.append(dns.rrset.from_text(name + ".", ttl, "IN", "CNAME", target))
            name = target.rstrip(".")
        ttl, records = self.zone.get((name, kind), (0, []))
        if records:
            response.answer.append(dns.rrset.from_text_list(name + ".", ttl, "IN", kind, records))
        whole = response.to_wire()
        if over == "udp" and len(whole) > MAX_UDP_BYTES:
            response.answer.clear()
            response.flags |= dns.flags.TC
            return response.to_wire()
        return whole

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            size = int.from_bytes(await reader.readexactly(2), "big")
            answer = self.answer(await reader.readexactly(size), "tcp")
            if answer is not None:
                writer.write(len(answer).to_bytes(2, "big") + answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: NameServer) -> None:
        self.server = server

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = self.server.answer(data, "udp")
        if answer is not None:
            self.transport.sendto(answer, addr)
