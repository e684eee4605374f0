// Which point lies nearest to a place: points sorted into cells, so that only a few are looked at.

// points: Float32Array of x, y in turn, all within [-1, 1]. Returns (x, y, reach, accepts) => index or -1.
export function nearestPoint(points) {
  const n = points.length / 2, side = Math.max(1, Math.ceil(Math.sqrt(n / 2)));
  const cellOf = (value) => Math.min(side - 1, Math.max(0, Math.floor(((value + 1) / 2) * side)));
  const starts = new Uint32Array(side * side + 1), order = new Uint32Array(n);
  const own = Uint32Array.from({ length: n }, (_, i) => cellOf(points[2 * i + 1]) * side + cellOf(points[2 * i]));
  for (const cell of own) starts[cell + 1] += 1;
  for (let cell = 0; cell < side * side; cell += 1) starts[cell + 1] += starts[cell];
  const next = starts.slice();
  own.forEach((cell, i) => { order[next[cell]++] = i; });

  return (x, y, reach, accepts) => {
    let best = -1, least = reach * reach;
    for (let row = cellOf(y - reach); row <= cellOf(y + reach); row += 1) {
      const from = starts[row * side + cellOf(x - reach)], to = starts[row * side + cellOf(x + reach) + 1];
      for (let at = from; at < to; at += 1) {
        const i = order[at], dx = points[2 * i] - x, dy = points[2 * i + 1] - y, distance = dx * dx + dy * dy;
        if (distance <= least && accepts(i)) { best = i; least = distance; }
      }
    }
    return best;
  };
}
