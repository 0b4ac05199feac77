# The server's side of the protocol: bytes in, events out.
