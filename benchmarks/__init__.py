"""Benchmarks of event loops under unmodified asyncio code; see README.md."""
