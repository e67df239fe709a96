"""craft for agents: the tools of `craft mcp`, and what they may read and write. Needs the extra `mcp`."""
