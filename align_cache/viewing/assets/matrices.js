// Alignment: for each metric the matrix of modalities, of the features and of the embeddings made of them.
import { ask, el, number, unavailable, warnings } from "./dom.js";

const MEANING = { features: "before: features", embeddings: "after: embeddings" };
const STOPS = ["#f4f7f5", "#b7dccf", "#5fb498", "#12805f", "#064a38"].map((hex) =>
  [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)));

let shown = null;

export async function showAlignment(root, run) {
  if (shown !== run) root.replaceChildren(el("p", { class: "quiet", role: "status" }, "reading…"));
  shown = run;
  const answer = await ask("alignment", { run });
  if (shown !== run) return;
  if (answer.unavailable) {
    root.replaceChildren(unavailable(answer));
    return;
  }
  const epoch = answer.epoch == null ? "" : `, epoch ${answer.epoch}`;
  const of = answer.evaluated ? "The latest evaluation" : "The validation at the best epoch";
  const none = el("p", { class: "message" }, "No alignment was measured. align-cache eval measures it.");
  root.replaceChildren(
    ...warnings(answer.warnings),
    el("p", { class: "lead" }, `${of}: ${answer.where}${epoch}.`),
    answer.metrics.length ? el("div", { class: "metrics" }, answer.metrics.map((metric) => card(metric, answer))) : none,
    el("p", { class: "quiet" }, "Image and text are aligned with the reference where their neighbourhoods agree with",
      " its own; aligned is the mean of an image and its caption. Colour runs from 0 to the metric's highest value."),
  );
}

function card(metric, { rows, columns }) {
  const values = Object.values(metric.spaces).flatMap((space) => Object.values(space || {}).map((cell) => cell.value));
  const top = Math.max(1e-9, ...values.filter((value) => value != null));
  const tables = Object.entries(metric.spaces).map(([name, space]) => matrix(MEANING[name], space, rows, columns, top));
  const chance = metric.chance ? `chance ${number(metric.chance)}` : null;
  return el("article", { class: "card" }, el("h2", {}, metric.title), el("div", { class: "pair" }, tables),
    chance && el("p", { class: "quiet" }, chance));
}

function matrix(title, space, rows, columns, top) {
  const caption = el("caption", {}, title);
  if (!space) return el("table", { class: "matrix absent-matrix" }, caption, el("tbody", {}, el("tr", {}, el("td", { class: "none" }, "not measured"))));
  const head = el("tr", {}, el("td", {}), columns.map((name) => el("th", { class: name, scope: "col" }, name)));
  const body = rows.map((row) => el("tr", {}, el("th", { class: row, scope: "row" }, row),
    columns.map((column) => cell(space[`${column}_${row}`], `${column} – ${row}`, top))));
  return el("table", { class: "matrix" }, caption, el("thead", {}, head), el("tbody", {}, body));
}

function cell(measured, pair, top) {
  if (!measured || measured.value == null) return el("td", { class: "none" }, "–");
  const bounds = measured.interval;
  const half = bounds && el("small", {}, `± ${number((bounds[1] - bounds[0]) / 2)}`);
  const told = bounds ? `${pair}: 95% interval ${number(bounds[0])} … ${number(bounds[1])}` : pair;
  const found = el("td", { title: told }, number(measured.value), half);
  const share = Math.min(Math.max(measured.value / top, 0), 1);
  found.style.backgroundColor = colour(share);
  found.style.color = share > 0.5 ? "#ffffff" : "#22262b";
  return found;
}

function colour(share) {
  const at = share * (STOPS.length - 1), low = Math.min(Math.floor(at), STOPS.length - 2);
  const mixed = STOPS[low].map((value, i) => Math.round(value + (at - low) * (STOPS[low + 1][i] - value)));
  return `rgb(${mixed.join(",")})`;
}
