# The sans-IO core: bytes to events and events to bytes, for both ends of SMTP.
#
# Rule: nothing below this package imports trio, ssl, socket or logging; tests/test_layering.py enforces it.
# Everything above may import from here; nothing here knows who calls it.
