"""How operator, webhook and agent answer over HTTP.

- `pages`: small pages by their paths, whoever stalls
- `guard`: metrics over TLS, for those whom the API server knows and allows
"""

from __future__ import annotations

__all__: list[str] = []
