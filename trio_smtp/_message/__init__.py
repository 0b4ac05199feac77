"""A message object to octets, without I/O: serializer (the structure), fields (a header field), bodies (a leaf's body).

What was parsed goes out as it came. What was composed is folded here, so that it is read back with the same values.
Nothing is left to the generator of the email package, whose output differs from version to version.
"""
