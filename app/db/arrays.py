"""Arrays as one value each: a list would be an expression with a part for every element, to write and to parse.

Invariant: what PostgreSQL reads from the literal, with a cast behind it, are the very elements.
https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO
"""

from collections.abc import Iterable, Sequence


def plain_array(values: Iterable[object]) -> str:
    """For ``%(name)s::uuid[]`` or an array of numbers: nothing in them needs quotes."""
    return "{" + ",".join(map(str, values)) + "}"


def text_array(texts: Sequence[str]) -> str:
    """For ``%(name)s::text[]``."""
    joined = '","'.join(texts)
    if "\\" in joined or joined.count('"') > 2 * (len(texts) - 1):
        joined = '","'.join([text.replace("\\", "\\\\").replace('"', '\\"') for text in texts])
    return '{"' + joined + '"}' if texts else "{}"
