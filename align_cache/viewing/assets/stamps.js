// Thousands of dots, put into the pixels one by one: without a graphics card that is several times as fast as drawing.

export class StampLayer {
  constructor() {
    this.canvas = document.createElement("canvas");
    this.pen = this.canvas.getContext("2d");
  }

  // Start an empty picture of some size in device pixels.
  clear(width, height) {
    if (this.canvas.width !== width || this.canvas.height !== height || !this.image) {
      Object.assign(this.canvas, { width, height });
      this.image = this.pen.createImageData(width, height);
    } else {
      this.image.data.fill(0);
    }
  }

  // Lay a stamp over what is there, its middle at (x, y).
  put(stamp, x, y) {
    const { side, rgba } = stamp, { width, height, data } = this.image;
    const left = Math.round(x - side / 2), top = Math.round(y - side / 2);
    for (let row = Math.max(0, -top); row < side && top + row < height; row += 1) {
      let from = 4 * (row * side + Math.max(0, -left)), to = 4 * ((top + row) * width + Math.max(0, left));
      const end = 4 * (row * side + Math.min(side, width - left));
      for (; from < end; from += 4, to += 4) {
        const alpha = rgba[from + 3];
        if (!alpha) continue;
        const under = (data[to + 3] / 255) * (1 - alpha), sum = alpha + under;
        data[to] = (rgba[from] * alpha + data[to] * under) / sum;
        data[to + 1] = (rgba[from + 1] * alpha + data[to + 1] * under) / sum;
        data[to + 2] = (rgba[from + 2] * alpha + data[to + 2] * under) / sum;
        data[to + 3] = 255 * sum;
      }
    }
  }

  // Bring what was put onto another canvas.
  show(pen) {
    this.pen.putImageData(this.image, 0, 0);
    pen.save();
    pen.resetTransform();
    pen.drawImage(this.canvas, 0, 0);
    pen.restore();
  }
}

// A disc with a soft rim in the colour of the paper, so that dots of a crowd stay apart. Colours are #rrggbb.
export function disc(radius, colour, paper) {
  const side = 2 * Math.ceil(radius + 1), rgba = new Float32Array(4 * side * side);
  const inside = parts(colour), rim = parts(paper);
  for (let i = 0; i < side * side; i += 1) {
    const distance = Math.hypot((i % side) + 0.5 - side / 2, Math.floor(i / side) + 0.5 - side / 2);
    const cover = Math.min(1, Math.max(0, radius + 0.5 - distance)), core = Math.min(1, Math.max(0, radius + 0.2 - distance));
    for (let c = 0; c < 3; c += 1) rgba[4 * i + c] = rim[c] + core * (inside[c] - rim[c]);
    rgba[4 * i + 3] = 0.85 * cover;
  }
  return { side, rgba };
}

const parts = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
