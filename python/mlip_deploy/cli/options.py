"""What the subcommands' options have in common."""

from __future__ import annotations


def comma_separated(text: str) -> list[str]:
    """Words between commas, without blanks around them and without empty ones."""
    return [word.strip() for word in text.split(",") if word.strip()]
