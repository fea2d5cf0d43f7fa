"""What fastloop has to reach under web servers: times uvloop's requests per second, in the same run."""

TARGETS = {"uvicorn": 2.2, "aiohttp": 1.6, "fastapi": 1.4, "uvicorn-tls": 1.7, "aiohttp-tls": 1.5}
