"""A worker on this machine for a front on another one: it joins, stays connected, fetches files, draws."""
