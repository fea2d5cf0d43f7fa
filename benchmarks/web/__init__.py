"""Requests per second of web servers on every loop. See README.md, one folder up."""
