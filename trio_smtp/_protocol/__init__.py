# The sans-IO core: bytes to events and events to bytes, for both ends of SMTP.
#
# Rule: nothing in this package imports trio, ssl, socket or logging; tests/test_layering.py enforces it. The layers
# above may import from here; nothing here knows its callers.
