// Runs: the table, and the curves of those that are ticked.
import { ask, count, el, unavailable, warnings } from "./dom.js";
import { chart } from "./curves.js";

const HEADS = ["status", "best", "R@1 i→t", "R@1 t→i", "adapter", "seed", "data"];
const NUMBERS = new Set(["best", "R@1 i→t", "R@1 t→i", "seed"]);
const MOST = 8, AGAIN_MS = 5000;
const DIRECTIONS = { image_to_text: "image → text", text_to_image: "text → image" };

const ticked = new Set();
let table = null, recall = "1", timer = 0, current = null, drawing = 0;

export async function showRuns(root, run, { go }) {
  clearTimeout(timer);
  current = run;
  ticked.delete(run);
  ticked.add(run); // as the last: of too many the first are let go
  while (ticked.size > MOST) ticked.delete(ticked.values().next().value);
  table = await ask("runs");
  if (table.unavailable) {
    root.replaceChildren(unavailable(table));
    return;
  }
  const curves = el("div", { class: "curves", "aria-live": "off" });
  const told = el("div", {});
  const update = () => draw(curves, told);
  root.replaceChildren(runsTable(run, go, update), controls(update), told, curves);
  await update();
  if (table.runs.some((each) => each.running && ticked.has(each.id))) {
    clearTimeout(timer); // of a second visit meanwhile
    timer = setTimeout(() => { if (!root.hidden) showRuns(root, current, { go }); }, AGAIN_MS);
  }
}

function runsTable(run, go, update) {
  const head = el("tr", {}, el("th", {}, el("span", { class: "hidden" }, "compare")), el("th", {}, "run"),
    HEADS.map((name) => el("th", { class: NUMBERS.has(name) ? "number" : null }, name)));
  const rows = table.runs.map((each) => row(each, run, go, update));
  const older = table.total - table.runs.length;
  return el("div", { class: "card" },
    el("div", { class: "scroll" }, el("table", { class: "runs" }, el("thead", {}, head), el("tbody", {}, rows))),
    el("p", { class: "quiet" }, "* an untrained encoder; best: epoch of the best checkpoint; R@1 of the latest evaluation. ",
      `Ticked runs are compared below, ${MOST} at most.`,
      older > 0 ? ` ${count(older)} older runs are not shown: align-cache runs ls lists them.` : ""));
}

function row(each, run, go, update) {
  const link = el("a", { href: `#runs/${encodeURIComponent(each.id)}`, onclick: (e) => { e.preventDefault(); go("runs", each.id); } }, each.id);
  const kind = each.id === run ? "current" : null;
  if (each.error) return el("tr", { class: kind }, el("td", {}), el("td", {}, link), el("td", { colspan: HEADS.length, class: "bad" }, each.error));
  const box = el("input", { type: "checkbox", "aria-label": `compare ${each.id}`, checked: ticked.has(each.id) });
  box.addEventListener("change", () => {
    if (box.checked && ticked.size >= MOST) box.checked = false;
    else if (box.checked) ticked.add(each.id);
    else ticked.delete(each.id);
    update();
  });
  const swatch = el("span", { class: "swatch", "data-run": each.id });
  const cells = each.cells.map((value, i) => el("td", { class: NUMBERS.has(HEADS[i]) ? "number" : null }, value));
  return el("tr", { class: kind }, el("td", { class: "tick" }, box, swatch), el("td", {}, link), cells);
}

function controls(update) {
  const choose = el("select", { "aria-label": "recall at" }, ["1", "5", "10"].map((k) => el("option", { value: k }, `recall at ${k}`)));
  choose.value = recall;
  choose.addEventListener("change", () => { recall = choose.value; update(); });
  return el("div", { class: "controls" }, el("h2", {}, "Curves"), choose);
}

async function draw(root, told) {
  const shown = table.runs.map((each) => each.id).filter((id) => ticked.has(id));
  if (ticked.has(current) && !shown.includes(current)) shown.push(current);
  const own = (drawing += 1), answers = await Promise.all(shown.map((run) => ask("curves", { run })));
  if (own !== drawing) return; // another run was ticked meanwhile
  const found = shown.map((run, i) => ({ run, tone: `tone-${i % MOST}`, ...answers[i] }));
  for (const swatch of document.querySelectorAll(".swatch")) {
    const line = found.find((each) => each.run === swatch.dataset.run);
    swatch.className = `swatch ${line ? line.tone : ""}`;
  }
  told.replaceChildren(...found.filter((each) => each.unavailable).map(unavailable),
    ...found.filter((each) => each.run === current && each.warnings).flatMap((each) => warnings(each.warnings)));
  const readable = found.filter((each) => each.curves);
  const wanted = ["train_loss", "val_loss", ...Object.keys(DIRECTIONS).map((way) => `r${recall}_${way}`)];
  root.replaceChildren(...(readable.length ? wanted.map((name) => chart(name, readable)) :
    [el("p", { class: "quiet" }, "Tick a run to see its curves.")]));
}
