"""Taking a run's adapters and embeddings elsewhere: one file a format, each written whole or not at all.

``build`` is the one way in; ``embedded_table`` makes embeddings block by block, ``exported_rows`` says of
which rows.
"""

from align_cache.exporting.build import FORMATS, Format, export

__all__ = ["FORMATS", "Format", "export"]
