"""What fastloop has to reach over the network, measured on the same machine in the same run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """Where a field is None, nothing is required."""

    # Times uvloop's CPU per request.
    ratio: float | None = None
    # Share of what plain C takes.
    share: float | None = None
    # Times asyncio's CPU per request.
    asyncio: float | None = None
    # Resident bytes of a connection.
    each: float | None = None
    # The same beyond those that plain C takes.
    beyond: float | None = None
    # Of the speed of the row named, at least this share.
    of_row: tuple[str, float] | None = None


SMALL = Target(1.15, 0.93)
LARGE = Target(1.08, 0.93)
BUFFERED = Target(1.1, 0.93)
# Under malloc's default settings, uvloop's blocks of 256 KiB are mapped and unmapped for each read.
TLS_ECHO = Target(2.0, 0.8)
TLS_ECHO_RAISED = Target(1.05, 0.8)
TLS_UPLOAD = Target(1.0, 0.95)
TLS_DOWNLOAD = Target(1.0, 1.0)

# A row that is missing here is informational.
TARGETS = {
    "protocol-1k-1": SMALL,
    "protocol-1k-100": SMALL,
    "protocol-1k-1000": SMALL,
    "protocol-10k-1": SMALL,
    "protocol-10k-100": SMALL,
    "protocol-10k-1000": SMALL,
    "protocol-100k-1": LARGE,
    "protocol-100k-100": LARGE,
    "protocol-100k-1000": LARGE,
    "buffered-1k-1": BUFFERED,
    "buffered-1k-100": BUFFERED,
    "buffered-100k-1": BUFFERED,
    "buffered-100k-100": BUFFERED,
    "streams-1k-100": Target(1.6, 0.75),
    "streams-100k-10": Target(1.6, 0.55),
    "sock-1k-100": Target(4.5, 0.65, asyncio=1.5),
    "udp-1k-64": Target(1.7),
    "unix-1k-1": SMALL,
    "unix-1k-100": SMALL,
    "accept": Target(1.2, 0.85),
    "split": Target(of_row=("joined", 0.98)),
    "idle": Target(each=1024),
    "tls-echo-1k-10": TLS_ECHO,
    "tls-echo-1k-10-raised": TLS_ECHO_RAISED,
    "tls-echo-1k-100": TLS_ECHO,
    "tls-echo-1k-100-raised": TLS_ECHO_RAISED,
    "tls-echo-10k-10": TLS_ECHO,
    "tls-echo-10k-10-raised": TLS_ECHO_RAISED,
    "tls-echo-10k-100": TLS_ECHO,
    "tls-echo-10k-100-raised": TLS_ECHO_RAISED,
    "tls-streams-1k-100": Target(2.0),
    "tls-streams-1k-100-raised": Target(1.2),
    "tls-upload": TLS_UPLOAD,
    "tls-upload-raised": TLS_UPLOAD,
    "tls-download": TLS_DOWNLOAD,
    "tls-download-raised": TLS_DOWNLOAD,
    "tls-handshake": Target(1.1, 0.85),
    "tls-idle": Target(beyond=4096),
}
