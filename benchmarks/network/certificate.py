"""The certificate of the servers that speak TLS: `path()` is a file with it and its key, made once per run."""

import functools
import subprocess
import tempfile
from pathlib import Path

from benchmarks.harness import WorkerFailed

NO_OPENSSL = "there is no openssl command to make a certificate with; on Debian: apt-get install openssl"


@functools.cache
def folder() -> "tempfile.TemporaryDirectory[str]":
    # Goes with the process.
    return tempfile.TemporaryDirectory()


@functools.cache
def path() -> Path:
    """ECDSA on P-256, signed by itself, for 127.0.0.1."""
    key, certificate = Path(folder().name, "key.pem"), Path(folder().name, "certificate.pem")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-days", "2"]
    try:
        subprocess.run(
            [*command, "-keyout", str(key), "-out", str(certificate)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    except FileNotFoundError:
        raise WorkerFailed(NO_OPENSSL) from None
    except subprocess.CalledProcessError as exc:
        raise WorkerFailed(f"openssl made no certificate: {exc.stderr.strip()[-200:]}") from None
    both = Path(folder().name, "both.pem")
    both.write_text(key.read_text() + certificate.read_text())
    return both
