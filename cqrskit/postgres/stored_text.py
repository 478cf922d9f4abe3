"""Text that Postgres can store, made of any that Python can have."""

__all__ = ["storable"]


def storable(text: str) -> str:
    """The text, with NUL and halves of surrogate pairs written as escapes: an error may quote whatever it met."""
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")
