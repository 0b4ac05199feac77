"""SMTP as a first-class protocol for Trio: a server, a client and a client pool."""

from ._version import __version__ as __version__
