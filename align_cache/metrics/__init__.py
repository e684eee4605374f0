"""What judges features and embeddings: pure functions, arrays in, numbers out.

``alignment`` (how alike two geometries are), ``retrieval``, ``distribution``, ``probe``, ``hypothesis``
and ``significance``. Every number is defined in docs/metrics.md. Import from the module that defines it.
"""
