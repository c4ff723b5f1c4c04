"""What options take, said once: checks, messages, the command line's types and the tables in the docs come from it.

A *kind* says which values an option takes and reads them; ``option`` makes a dataclass field of a kind, and a dataclass
that derives from ``Options`` reads every such field when it is made. Nothing here imports torch.
"""

from compressor.options.fields import Described, Options, option, redeclared, table
from compressor.options.kinds import (
    MOST,
    MOST_ELEMENTS,
    Called,
    Either,
    Flag,
    Kind,
    Names,
    Number,
    OneOf,
    Patterns,
    Place,
    Shape,
    SomeOf,
    Text,
    Whole,
    Wholes,
    read,
    schema_of,
    shown,
    texts_schema,
)

__all__ = [
    "MOST",
    "MOST_ELEMENTS",
    "Called",
    "Described",
    "Either",
    "Flag",
    "Kind",
    "Names",
    "Number",
    "OneOf",
    "Options",
    "Patterns",
    "Place",
    "Shape",
    "SomeOf",
    "Text",
    "Whole",
    "Wholes",
    "option",
    "read",
    "redeclared",
    "schema_of",
    "shown",
    "table",
    "texts_schema",
]
