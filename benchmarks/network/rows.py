"""The rows of the table: which server, which load."""

from dataclasses import dataclass, replace

KIB = 1024
MIB = 1024 * KIB
HEADER_AND_BODY = 150 + KIB


@dataclass(frozen=True)
class Case:
    name: str
    # The server's workload, in servers.py.
    workload: str
    # The load generator's mode, and what the floor does.
    mode: str = "echo"
    floor: str = "echo"
    # Bytes of a response, and of a request where it has another size.
    size: int = KIB
    request: int = 0
    # How many at once: connections, or datagrams.
    count: int = 100
    # How many times as long as others it is loaded, where requests are long and those under way at both ends count.
    stretch: int = 1
    # Rows of one group take their samples in the same rounds, because they are compared with each other.
    group: str = ""
    # Every sample is taken on a new server.
    fresh: bool = False
    # For the idle rows: every connection has had one echo.
    used: bool = False
    # The server speaks TLS, and so does the load.
    tls: bool = False
    # The server's malloc keeps large blocks instead of giving them back to the kernel each time.
    raised: bool = False

    @property
    def memory(self) -> bool:
        """What is measured is resident memory and not CPU time."""
        return self.mode == "hold"

    @property
    def summary(self) -> str:
        size = f"{self.size // KIB} KiB" if self.size % KIB == 0 else f"{self.size} bytes"
        size = f"{self.size // MIB} MiB" if self.size % MIB == 0 else size
        connections = f"{self.count} connection{'s' if self.count > 1 else ''}"
        kind = KINDS.get(self.workload, "") + (", malloc's thresholds raised" if self.raised else "")
        return {
            "echo": f"one echo of {size} on one of {connections}; {kind}",
            "half": f"one answer of {size} on one of {connections}; {kind}",
            "upload": f"{size} to the server, answered by their first 16 bytes, on one of {connections}; {kind}",
            "handshake": f"connect, full TLS handshake, close_notify both ways; {self.count} at once",
            "connect": f"connect, one echo of {size}, the client closes; {self.count} at once",
            "udp": f"one echo of a datagram of {size}, {self.count} in flight",
            "hold": "resident bytes of an idle "
            + ("TLS " if self.tls else "")
            + "connection"
            + (" that has had one echo" if self.used else "")
            + (", beyond the floor's" if self.tls else ""),
        }[self.mode]


KINDS = {
    "protocol": "Protocol",
    "buffered": "BufferedProtocol",
    "streams": "readline, write, drain",
    "sock": "sock_recv, sock_sendall",
    "unix": "Protocol over a unix socket",
    "split": "header and body in two writes",
    "joined": "header and body in one write",
    "tls": "Protocol over TLS",
    "tls-streams": "readline, write, drain over TLS",
    "tls-upload": "Protocol over TLS",
    "tls-download": "Protocol over TLS",
}


def sizes(case: Case, kibibytes: tuple[int, ...], counts: tuple[int, ...]) -> list[Case]:
    return [
        replace(case, name=f"{case.name}-{size}k-{count}", size=size * KIB, count=count)
        for size in kibibytes
        for count in counts
    ]


def both(case: Case) -> list[Case]:
    """The row under both settings of malloc, in the same rounds.

    What the default costs shows on a new server alone: once a connection has ended, most loops are where the raised
    thresholds put them.
    """
    return [
        replace(case, group=case.name, fresh=True),
        replace(case, group=case.name, name=f"{case.name}-raised", raised=True),
    ]


def tls_rows() -> list[Case]:
    tls = Case("tls", "tls", tls=True)
    bulk = replace(tls, size=MIB, count=10, stretch=3)
    cases = [
        *sizes(replace(tls, name="tls-echo"), (1, 10), (10, 100)),
        *sizes(replace(tls, name="tls-streams", workload="tls-streams"), (1,), (100,)),
        replace(bulk, name="tls-upload", workload="tls-upload", mode="upload", floor="upload", request=MIB),
        replace(bulk, name="tls-download", workload="tls-download", mode="half", floor="answer", request=100),
    ]
    return [
        *(row for case in cases for row in both(case)),
        replace(tls, name="tls-handshake", mode="handshake", count=10, stretch=3),
        replace(tls, name="tls-idle", mode="hold", used=True),
    ]


ANSWER = Case("", "", mode="half", floor="answer", size=HEADER_AND_BODY, request=100, group="split")

CASES = {
    case.name: case
    for case in [
        *sizes(Case("protocol", "protocol"), (1, 10, 100), (1, 100, 1000)),
        *sizes(Case("buffered", "buffered"), (1, 100), (1, 100)),
        *sizes(Case("streams", "streams"), (1,), (100,)),
        *sizes(Case("streams", "streams"), (100,), (10,)),
        *sizes(Case("sock", "sock", fresh=True), (1,), (1, 100)),
        *sizes(Case("udp", "udp", mode="udp", floor="mmsg"), (1,), (64,)),
        *sizes(Case("unix", "unix"), (1,), (1, 100)),
        Case("accept", "accept", mode="connect", count=64),
        replace(ANSWER, name="split", workload="split"),
        replace(ANSWER, name="joined", workload="joined"),
        Case("idle", "idle", mode="hold"),
        Case("idle-used", "idle", mode="hold", used=True),
        *tls_rows(),
    ]
}
