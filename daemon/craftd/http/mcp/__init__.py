"""The Model Context Protocol over HTTP: craft's tools for agents that have a URL and a key. Needs the extra `mcp`.

They draw, look and cancel, for one key. None makes keys, deletes, pulls or registers, and none reads a path or a URL.
"""
