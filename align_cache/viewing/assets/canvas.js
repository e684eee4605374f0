// The drawing of the map: points that are panned by drag or arrow keys and zoomed by wheel, pinch, keys or buttons.
// Point i < n is image i, point n + i its caption.
import { nearestPoint } from "./grid.js";
import { StampLayer, disc } from "./stamps.js";

const REACH_PX = 14, ZOOM_MOST = 2000, STEP = 1.5;

export class MapCanvas {
  // ``told`` is called with (point or -1, x, y) where the pointer is, ``picked`` with (point).
  constructor(canvas, { told, picked }) {
    Object.assign(this, { canvas, told, picked, n: 0, hovered: -1, chosen: -1, joined: false });
    this.pen = canvas.getContext("2d");
    this.stamps = new StampLayer();
    this.visible = { image: true, text: true };
    this.marked = new Set();
    this.fingers = new Map();
    this.listen();
    new ResizeObserver(() => this.resized()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
  }

  set({ image, text }) {
    this.points = Float32Array.from([...image, ...text]);
    this.n = image.length / 2;
    this.nearest = nearestPoint(this.points);
    // A fixed scattered order: neither images nor captions hide the others.
    const stride = [7919, 7907, 7901].find((prime) => (2 * this.n) % prime) ?? 1;
    this.order = Uint32Array.from({ length: 2 * this.n }, (_, i) => (i * stride) % (2 * this.n));
    Object.assign(this, { hovered: -1, chosen: -1, marked: new Set() });
    this.fit();
  }

  partner(point) { return point < this.n ? point + this.n : point - this.n; }
  modality(point) { return point < this.n ? "image" : "text"; }
  shows(point) { return this.visible[this.modality(point)]; }

  fit() {
    this.view = { x: 0, y: 0, scale: this.fitting() };
    this.redraw();
  }

  fitting() {
    let across = 0.01, up = 0.01;
    for (let i = 0; i < 2 * this.n; i += 1) {
      across = Math.max(across, Math.abs(this.points[2 * i]));
      up = Math.max(up, Math.abs(this.points[2 * i + 1]));
    }
    const { clientWidth: w, clientHeight: h } = this.canvas;
    return Math.max(1, Math.min((w / 2 - 16) / across, (h / 2 - 16) / up));
  }

  // Zoom so that the place under (x, y), in pixels of the canvas, stays where it is.
  zoom(factor, x = this.canvas.clientWidth / 2, y = this.canvas.clientHeight / 2) {
    if (!this.n) return;
    const before = this.place(x, y), fitting = this.fitting();
    this.view.scale = Math.min(fitting * ZOOM_MOST, Math.max(fitting / 2, this.view.scale * factor));
    const after = this.place(x, y);
    this.view.x += before[0] - after[0];
    this.view.y += before[1] - after[1];
    this.redraw();
  }

  pan(dx, dy) {
    this.view.x -= dx / this.view.scale;
    this.view.y += dy / this.view.scale;
    this.redraw();
  }

  // Bring a point into the middle, near enough to tell it from its neighbours.
  visit(point) {
    Object.assign(this.view, { x: this.points[2 * point], y: this.points[2 * point + 1] });
    this.view.scale = Math.max(this.view.scale, this.fitting() * 3);
    this.redraw();
  }

  place(x, y) {
    const { clientWidth: w, clientHeight: h } = this.canvas;
    return [this.view.x + (x - w / 2) / this.view.scale, this.view.y - (y - h / 2) / this.view.scale];
  }

  screen(point) {
    const { clientWidth: w, clientHeight: h } = this.canvas;
    return [w / 2 + (this.points[2 * point] - this.view.x) * this.view.scale,
      h / 2 - (this.points[2 * point + 1] - this.view.y) * this.view.scale];
  }

  at(x, y) {
    if (!this.n) return -1;
    return this.nearest(...this.place(x, y), REACH_PX / this.view.scale, (point) => this.shows(point));
  }

  hover(point, x = 0, y = 0) {
    if (point !== this.hovered) { this.hovered = point; this.redraw(); }
    this.told(point, x, y);
  }

  resized() {
    const ratio = devicePixelRatio || 1, { clientWidth: w, clientHeight: h } = this.canvas;
    if (!w) return; // its section is hidden
    const was = this.view && this.view.scale / this.lastFit;
    Object.assign(this.canvas, { width: Math.round(w * ratio), height: Math.round(h * ratio) });
    if (this.n) {
      if (was) this.view.scale = was * this.fitting();
      this.redraw();
    }
  }

  redraw() {
    this.lastFit = this.fitting();
    if (this.waiting || !this.n) return;
    this.waiting = requestAnimationFrame(() => { this.waiting = 0; this.draw(); });
  }

  draw() {
    const { pen, canvas } = this, ratio = devicePixelRatio || 1, w = canvas.clientWidth, h = canvas.clientHeight;
    const style = getComputedStyle(canvas);
    this.colours = Object.fromEntries(["image", "text", "ink", "muted", "card"].map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, w, h);
    if (this.joined) this.drawLines(w, h);
    this.drawPoints(w, h, ratio);
    for (const point of this.marked) if (this.shows(point)) this.ring(point, 6.5, this.colours.ink, 1.5);
    for (const point of new Set([this.chosen, this.hovered])) if (point >= 0) this.drawPair(point);
  }

  drawPoints(w, h, ratio) {
    const { points, n, order, visible, stamps } = this, scale = this.view.scale * ratio;
    const [image, text] = ["image", "text"].map((name) => visible[name] && disc(this.radius() * ratio, this.colours[name], this.colours.card));
    const left = (w * ratio) / 2 - this.view.x * scale, top = (h * ratio) / 2 + this.view.y * scale;
    stamps.clear(this.canvas.width, this.canvas.height);
    for (let i = 0; i < order.length; i += 1) { // thousands of turns a frame: nothing is made in here
      const point = order[i], stamp = point < n ? image : text;
      if (stamp) stamps.put(stamp, left + points[2 * point] * scale, top - points[2 * point + 1] * scale);
    }
    stamps.show(this.pen);
  }

  // Points of a crowd are small, and grow as one goes near.
  radius() {
    const crowd = Math.min(1, Math.sqrt(200 / this.n)), near = (this.view.scale / this.lastFit) ** 0.35;
    return Math.min(7, Math.max(1.6, (2 + 2.6 * crowd) * near));
  }

  drawLines(w, h) {
    const { pen } = this;
    pen.strokeStyle = this.colours.muted;
    pen.lineWidth = 0.7;
    pen.globalAlpha = Math.min(0.6, 0.04 + 50 / this.n);
    pen.beginPath();
    for (let i = 0; i < this.n; i += 1) {
      const [x, y] = this.screen(i), [u, v] = this.screen(i + this.n);
      if (Math.max(x, u) < 0 || Math.max(y, v) < 0 || Math.min(x, u) > w || Math.min(y, v) > h) continue;
      pen.moveTo(x, y);
      pen.lineTo(u, v);
    }
    pen.stroke();
    pen.globalAlpha = 1;
  }

  drawPair(point) {
    const { pen } = this, [x, y] = this.screen(point), [u, v] = this.screen(this.partner(point));
    pen.strokeStyle = this.colours.ink;
    pen.lineWidth = 1.2;
    pen.beginPath();
    pen.moveTo(x, y);
    pen.lineTo(u, v);
    pen.stroke();
    for (const end of [this.partner(point), point]) {
      pen.fillStyle = this.colours[this.modality(end)];
      pen.beginPath();
      pen.arc(...this.screen(end), Math.max(this.radius(), 4) + (end === point ? 1 : 0), 0, 2 * Math.PI);
      pen.fill();
    }
    this.ring(point, Math.max(this.radius(), 4) + 4, this.colours.ink, 2);
  }

  ring(point, radius, colour, width) {
    this.pen.strokeStyle = colour;
    this.pen.lineWidth = width;
    this.pen.beginPath();
    this.pen.arc(...this.screen(point), radius, 0, 2 * Math.PI);
    this.pen.stroke();
  }

  listen() {
    const { canvas } = this;
    const where = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), ...where(event));
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.fingers.set(event.pointerId, where(event));
      this.moved = 0;
      this.hover(-1);
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = this.fingers.get(event.pointerId), now = where(event);
      if (!before) { this.hover(this.at(...now), ...now); return; }
      this.drag(event.pointerId, before, now);
    });
    const release = (event) => {
      const held = this.fingers.delete(event.pointerId);
      if (held && event.type === "pointerup" && this.moved < 4 && !this.fingers.size) this.pick(this.at(...where(event)));
    };
    canvas.addEventListener("pointerup", release);
    canvas.addEventListener("pointercancel", release);
    canvas.addEventListener("pointerleave", () => this.hover(-1));
    canvas.addEventListener("dblclick", (event) => this.zoom(STEP * STEP, ...where(event)));
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  drag(id, before, now) {
    if (!this.n) return;
    const other = [...this.fingers].find(([finger]) => finger !== id)?.[1];
    this.fingers.set(id, now);
    this.moved += Math.hypot(now[0] - before[0], now[1] - before[1]);
    if (!other) { this.pan(now[0] - before[0], now[1] - before[1]); return; }
    const span = (place) => Math.max(1, Math.hypot(place[0] - other[0], place[1] - other[1]));
    this.zoom(span(now) / span(before), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
  }

  key(event) {
    const act = {
      ArrowLeft: () => this.pan(60, 0), ArrowRight: () => this.pan(-60, 0),
      ArrowUp: () => this.pan(0, 60), ArrowDown: () => this.pan(0, -60),
      "+": () => this.zoom(STEP), "=": () => this.zoom(STEP), "-": () => this.zoom(1 / STEP), 0: () => this.fit(),
      Enter: () => this.pick(this.nearest(this.view.x, this.view.y, 4, (point) => this.shows(point))),
      Escape: () => this.pick(-1),
    }[event.key];
    if (!act || !this.n || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
  }

  pick(point) {
    this.chosen = point;
    this.redraw();
    this.picked(point);
  }
}
