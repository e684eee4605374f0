// Turns the points of #explorer, and moves them between epochs. No library, no network.
(() => {
  "use strict";
  const root = document.getElementById("explorer");
  if (!root) return;
  const canvas = root.querySelector("canvas"), pen = canvas.getContext("2d");
  const [button, slider, output] = ["button", "input[type=range]", "output"].map((s) => root.querySelector(s));
  const toggles = [...root.querySelectorAll("input[type=checkbox]")];
  const data = JSON.parse(root.querySelector("script").textContent);
  const bytes = Uint8Array.from(atob(data.points), (c) => c.charCodeAt(0));
  const points = new Int16Array(bytes.buffer);
  const style = getComputedStyle(document.documentElement);
  const colours = Object.fromEntries(data.names.map((n) => [n, style.getPropertyValue("--" + n).trim()]));
  const cloud = data.rows * 3, epoch = cloud * data.names.length, last = data.epochs.length - 1;
  // Each modality's points are drawn in turn, a few at a time, so that none hides the others.
  const order = Array.from({ length: data.rows }, (_, i) => (i * 7919) % data.rows);
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  let yaw = 0.7, pitch = 0.35, playing = !still, at = last, hold = 1.5, before = 0, drawn = false;

  const shown = (name) => toggles.some((t) => t.dataset.name === name && t.checked);

  function project(name, row, size, out) {
    const low = Math.floor(at), high = Math.min(low + 1, last), part = at - low;
    const offset = name * cloud + row * 3;
    const v = [0, 1, 2].map((i) =>
      (points[low * epoch + offset + i] * (1 - part) + points[high * epoch + offset + i] * part) / 32767);
    const x = v[0] * Math.cos(yaw) - v[1] * Math.sin(yaw), depth = v[0] * Math.sin(yaw) + v[1] * Math.cos(yaw);
    const y = v[2] * Math.cos(pitch) - depth * Math.sin(pitch), z = v[2] * Math.sin(pitch) + depth * Math.cos(pitch);
    const scale = size.reach / (1 + 0.22 * z);
    out[0] = size.w / 2 + x * scale; out[1] = size.h / 2 - y * scale; out[2] = 1 - 0.35 * z;
    return out;
  }

  function draw() {
    const ratio = devicePixelRatio || 1, w = canvas.clientWidth, h = canvas.clientHeight;
    if (canvas.width !== Math.round(w * ratio)) { canvas.width = Math.round(w * ratio); canvas.height = Math.round(h * ratio); }
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, w, h);
    const size = { w, h, reach: Math.min(w, h) * 0.58 }, a = [0, 0, 0], b = [0, 0, 0];
    const image = data.names.indexOf("image"), text = data.names.indexOf("text");
    if (shown("pairs")) {
      pen.strokeStyle = "rgba(128,128,128,.28)"; pen.lineWidth = 0.7; pen.beginPath();
      for (const row of order) {
        project(image, row, size, a); project(text, row, size, b);
        pen.moveTo(a[0], a[1]); pen.lineTo(b[0], b[1]);
      }
      pen.stroke();
    }
    pen.globalAlpha = 0.62;
    for (const row of order) {
      data.names.forEach((name, index) => {
        if (!shown(name)) return;
        project(index, row, size, a);
        pen.fillStyle = colours[name];
        pen.beginPath(); pen.arc(a[0], a[1], 2.1 * a[2], 0, 6.2832); pen.fill();
      });
    }
    pen.globalAlpha = 1;
    output.textContent = "epoch " + data.epochs[Math.round(at)];
  }

  // Playing turns slowly, walks through the epochs in about eight seconds, and rests at the last one.
  function frame(now) {
    const passed = Math.min((now - before) / 1000, 0.1);
    before = now;
    if (playing) {
      yaw += passed * 0.25;
      if (at >= last) { hold += passed; if (hold > 3 && last > 0) { at = 0; hold = 0; } }
      else at = Math.min(last, at + passed * Math.max(last / 8, 0.5));
      slider.value = at;
      drawn = false;
    }
    if (!drawn) { draw(); drawn = true; }
    requestAnimationFrame(frame);
  }

  const redraw = () => { drawn = false; };
  const play = (on) => { playing = on; button.textContent = on ? "pause" : "play"; redraw(); };
  button.addEventListener("click", () => play(!playing));
  slider.addEventListener("input", () => { at = Number(slider.value); play(false); });
  toggles.forEach((t) => t.addEventListener("change", redraw));
  addEventListener("resize", redraw);
  let grip = null;
  canvas.addEventListener("pointerdown", (e) => { grip = [e.clientX, e.clientY]; canvas.setPointerCapture(e.pointerId); });
  canvas.addEventListener("pointerup", () => { grip = null; });
  canvas.addEventListener("pointercancel", () => { grip = null; });
  canvas.addEventListener("pointermove", (e) => {
    if (!grip) return;
    turn((e.clientX - grip[0]) * 0.008, (e.clientY - grip[1]) * 0.008);
    grip = [e.clientX, e.clientY];
  });
  function turn(dx, dy) { yaw += dx; pitch = Math.max(-1.5, Math.min(1.5, pitch + dy)); redraw(); }
  const keys = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] };
  canvas.addEventListener("keydown", (e) => { if (keys[e.key]) { turn(...keys[e.key]); e.preventDefault(); } });
  play(playing);
  requestAnimationFrame((now) => { before = now; frame(now); });
})();
