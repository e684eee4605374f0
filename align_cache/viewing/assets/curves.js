// One small line chart in SVG: a line a run, its best epoch marked, values read off under the pointer.
import { el, number, percent, svg } from "./dom.js";

const W = 560, H = 240, LEFT = 46, RIGHT = 14, TOP = 12, BOTTOM = 26;

// All charts of the page share their epochs.
export function chart(name, runs) {
  const lines = runs.map((run) => ({ ...run, points: run.curves[name].points })).filter((run) => run.points.length);
  const { title } = runs[0].curves[name];
  const shares = name.startsWith("r");
  const write = (value) => (shares ? percent(value) : number(value));
  const read = el("p", { class: "read" }, " ");
  if (!lines.length) return el("figure", { class: "card" }, el("figcaption", {}, title), el("p", { class: "quiet" }, "not measured"));
  const scale = scales(lines, runs, shares);
  const cursor = svg("line", { class: "cursor", y1: TOP, y2: H - BOTTOM, visibility: "hidden" });
  const drawing = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${title} by epoch` },
    grid(scale, shares), lines.map((line) => drawLine(line, scale)), cursor);
  drawing.addEventListener("pointermove", (event) => {
    const box = drawing.getBoundingClientRect();
    const epoch = Math.round(scale.epochAt(((event.clientX - box.left) / box.width) * W));
    cursor.setAttribute("x1", scale.x(epoch));
    cursor.setAttribute("x2", scale.x(epoch));
    cursor.setAttribute("visibility", "visible");
    read.replaceChildren(`epoch ${epoch}`, ...lines.map((line) => reading(line, epoch, write)));
  });
  drawing.addEventListener("pointerleave", () => {
    cursor.setAttribute("visibility", "hidden");
    read.replaceChildren(...last(lines, write));
  });
  read.replaceChildren(...last(lines, write));
  return el("figure", { class: "card" }, el("figcaption", {}, title), drawing, read);
}

function scales(lines, runs, shares) {
  const epochs = runs.flatMap((run) => Object.values(run.curves).flatMap(({ points }) => points.map(([epoch]) => epoch)));
  const values = lines.flatMap((line) => line.points.map(([, value]) => value));
  const first = Math.min(...epochs), final = Math.max(...epochs, first + 1);
  let low = shares ? 0 : Math.min(...values), high = Math.max(...values);
  if (high - low < 1e-9) high = low + (shares ? 0.01 : 1);
  const step = nice((high - low) / 4);
  low = Math.floor(low / step) * step;
  high = Math.ceil(high / step - 1e-9) * step;
  const x = (epoch) => LEFT + ((epoch - first) / (final - first)) * (W - LEFT - RIGHT);
  const y = (value) => H - BOTTOM - ((value - low) / (high - low)) * (H - TOP - BOTTOM);
  const ticks = Array.from({ length: Math.round((high - low) / step) + 1 }, (_, i) => low + i * step);
  const every = Math.max(1, Math.ceil(nice((final - first) / 7)));
  const epochTicks = [];
  for (let epoch = Math.ceil(first / every) * every; epoch <= final; epoch += every) epochTicks.push(epoch);
  const epochAt = (pixel) => Math.min(final, Math.max(first, first + ((pixel - LEFT) / (W - LEFT - RIGHT)) * (final - first)));
  return { x, y, ticks, epochTicks, epochAt, step };
}

// The least of 1, 2, 2.5, 5 times a power of ten that is not below a step.
function nice(step) {
  const power = 10 ** Math.floor(Math.log10(step));
  return [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((each) => each >= step - 1e-12);
}

function grid(scale, shares) {
  const label = (value) => (shares ? `${+(100 * value).toPrecision(4)}%` : String(+value.toPrecision(6)).replace("-", "−"));
  return [
    ...scale.ticks.flatMap((value) => [
      svg("line", { class: "rule", x1: LEFT, x2: W - RIGHT, y1: scale.y(value), y2: scale.y(value) }),
      svg("text", { class: "tick", x: LEFT - 8, y: scale.y(value) + 4, "text-anchor": "end" }, label(value)),
    ]),
    ...scale.epochTicks.map((epoch) => svg("text", { class: "tick", x: scale.x(epoch), y: H - 6, "text-anchor": "middle" }, String(epoch))),
  ];
}

function drawLine(line, scale) {
  const path = line.points.map(([epoch, value], i) => `${i ? "L" : "M"}${scale.x(epoch).toFixed(1)} ${scale.y(value).toFixed(1)}`).join("");
  const best = line.points.find(([epoch]) => epoch === line.best_epoch);
  return svg("g", { class: `line ${line.tone}` }, svg("path", { d: path }),
    best && svg("circle", { cx: scale.x(best[0]), cy: scale.y(best[1]), r: 4 }, svg("title", {}, `best checkpoint: epoch ${best[0]}`)));
}

function reading(line, epoch, write) {
  const point = line.points.find(([own]) => own === epoch);
  return el("span", { class: line.tone }, point ? write(point[1]) : "–");
}

function last(lines, write) {
  return ["last epoch", ...lines.map((line) => reading(line, line.points.at(-1)[0], write))];
}
