"""The part of the page that moves: points of the embedding space, turned by hand, stepped through epochs."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

from align_cache.reporting.space import Space, thin

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EPOCHS, POINTS = 40, 300
"""At most so many epochs and samples: 40 x 4 x 300 points are 288 kB before encoding."""
_SCALE = 32767


def explorer(space: Space) -> str:
    """Return canvas, controls and data; the script that moves them is ``assets/explorer.js``."""
    epochs = thin(list(space.points), EPOCHS)
    names = [
        name for name in space.points[epochs[-1]] if all(name in space.points[epoch] for epoch in epochs)
    ]
    quantised = _quantised(space, epochs, names)
    data = {
        "epochs": epochs,
        "names": names,
        "rows": quantised.shape[2],
        "points": base64.b64encode(quantised.tobytes()).decode("ascii"),
    }
    toggles = "".join(
        f'<label class="{name}"><input type="checkbox" data-name="{name}" checked>{name}</label>'
        for name in names
    )
    return f"""
<div id="explorer">
<canvas tabindex="0" role="img" aria-label="Embedding space; drag or use the arrow keys to turn">
</canvas>
<div class="controls"><button type="button">pause</button>
<input type="range" min="0" max="{len(epochs) - 1}" step="0.01" value="{len(epochs) - 1}" aria-label="epoch">
<output></output></div>
<div class="controls">{toggles}
<label><input type="checkbox" data-name="pairs">join each image with its caption</label></div>
<script type="application/json">{json.dumps(data)}</script>
</div>"""


def _quantised(space: Space, epochs: list[int], names: list[str]) -> NDArray[np.int16]:
    """Return little-endian int16 (epochs, modalities, points, 3), the box scaled to the whole range."""
    import numpy as np

    centre, half = space.box
    clouds = np.stack([[space.points[epoch][name][:POINTS] for name in names] for epoch in epochs])
    return np.rint((clouds - centre) / half * _SCALE).clip(-_SCALE, _SCALE).astype("<i2")
