"""What fastloop has to reach with child processes, measured on the same machine in the same run."""

# Times asyncio's own loop; a workload that is missing here is informational.
TARGETS = {"true": 1.2, "cat": 1.3}

# What 500 MiB of memory in use may add to a spawn, as a share.
RESIDENT = 0.1
