# The client's side of the protocol: commands out, replies in.
