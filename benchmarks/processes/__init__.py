"""What a child process costs on every loop, beside asyncio itself. See README.md, one folder up."""
