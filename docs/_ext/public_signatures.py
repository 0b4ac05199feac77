"""Signatures as a caller sees them, in a form that Sphinx can read."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx

from trio_smtp._public import NoPublicConstructor


def readable(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str, str | None] | None:
    """No arguments for a class that has no public constructor, and ``...`` for the default that a factory makes."""
    if isinstance(thing, NoPublicConstructor):
        return "", None  # else those of its metaclass
    if signature and "<factory>" in signature:
        return signature.replace("<factory>", "..."), returns
    return None


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-signature", readable)
    return {"parallel_read_safe": True}
