# The relay: what a server's client says goes on to another server, through a pool, and what that answers comes back.
