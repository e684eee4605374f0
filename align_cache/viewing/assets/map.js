// Map: images and captions of a split in the plane, and beside them what is known of the one that is picked.
import { ask, count, el, number, thumbnail, unavailable } from "./dom.js";
import { MapCanvas } from "./canvas.js";
import { among, captionList, hitList } from "./hits.js";

const K = 12, HOVER_MS = 60;
let parts = null, run = null, data = null, wait = 0, asking = 0; // the latest question: an older answer comes too late

export async function showMap(root, current, { pick, marked } = {}) {
  parts ??= build(root);
  if (run !== current) {
    run = current;
    parts.layout.value = "pca";
    await load();
  }
  if (!data) return;
  if (marked) mark(marked);
  if (pick) select(pick.row, pick.modality, true);
}

function build(root) {
  const canvas = el("canvas", { tabindex: 0, role: "application", "aria-label":
    "Map of images and captions. Arrow keys move, plus and minus zoom, 0 shows all, Enter picks the point in the middle." });
  const tip = el("div", { class: "tip", hidden: true });
  const side = el("aside", { "aria-live": "polite" });
  const note = el("p", { class: "quiet", role: "status" });
  const stage = el("div", { class: "stage" }, canvas, tip);
  const view = new MapCanvas(canvas, { told: hover, picked: (point) => (point < 0 ? forget() : select(data.rows[point % view.n], view.modality(point))) });
  const layout = el("select", { "aria-label": "layout" }, el("option", { value: "pca" }, "PCA"), el("option", { value: "tsne" }, "t-SNE"));
  layout.addEventListener("change", () => load());
  const button = (label, title, act) => el("button", { type: "button", title, "aria-label": title, onclick: act }, label);
  const toggle = (label, kind, on, act) => {
    const box = el("input", { type: "checkbox", checked: on, "data-name": kind });
    box.addEventListener("change", () => { act(box.checked); view.redraw(); });
    return el("label", { class: kind }, box, label);
  };
  root.replaceChildren(
    el("div", { class: "controls" }, layout,
      toggle("images", "image", true, (on) => { view.visible.image = on; }),
      toggle("captions", "text", true, (on) => { view.visible.text = on; }),
      toggle("join pairs", "pairs", false, (on) => { view.joined = on; }),
      el("span", { class: "buttons" }, button("+", "zoom in", () => view.zoom(1.5)), button("−", "zoom out", () => view.zoom(1 / 1.5)),
        button("all", "show all", () => view.fit()))),
    el("div", { class: "explore" }, el("div", {}, stage, note), side));
  return { view, tip, side, note, layout, stage };
}

async function load() {
  const { view, side, note, layout, stage } = parts, asked = run, name = layout.value;
  data = null;
  side.replaceChildren();
  note.textContent = name === "tsne" ? "laying out… some seconds" : "embedding…";
  stage.setAttribute("aria-busy", "true");
  const answer = await ask("map", { run: asked, layout: name });
  if (asked !== run || name !== layout.value) return;
  stage.setAttribute("aria-busy", "false");
  if (answer.unavailable) {
    view.set({ image: [], text: [] });
    note.replaceChildren(unavailable(answer));
    stage.hidden = true;
    return;
  }
  stage.hidden = false;
  data = answer;
  data.place = new Map(data.rows.map((row, at) => [row, at]));
  view.set(data);
  describe();
  forget();
}

function describe() {
  const { dataset, epoch, n_split: all, split, rows, note, untrained } = data;
  const some = rows.length < all ? `${count(rows.length)} of the ${count(all)} pairs` : `The ${count(all)} pairs`;
  parts.note.replaceChildren(`${some} of the ${split} split of ${dataset}, an image and its first caption, as the best checkpoint`,
    epoch == null ? "" : ` (epoch ${epoch})`, ` embeds them. ${note}.`,
    untrained.length ? ` UNTRAINED encoders: ${untrained.join(", ")}.` : "", data.pictures_note ? ` Pictures: ${data.pictures_note}.` : "");
}

function hover(point, x, y) {
  clearTimeout(wait);
  const { tip, stage } = parts;
  tip.hidden = true;
  if (point < 0 || !data) return;
  wait = setTimeout(() => {
    if (!data) return; // another layout is on its way
    const i = point % parts.view.n, kind = parts.view.modality(point);
    tip.replaceChildren(picture(data.ids[i], data.captions[i]),
      el("p", {}, el("b", { class: kind }, kind === "image" ? "image" : "caption"), ` ${data.captions[i]}`),
      el("p", { class: "quiet" }, `${data.ids[i]} · cosine of the pair ${number(data.cosines[i])}`));
    tip.hidden = false;
    const wide = stage.clientWidth, high = stage.clientHeight;
    tip.style.left = `${x + 16 + tip.offsetWidth < wide ? x + 16 : Math.max(0, x - 16 - tip.offsetWidth)}px`;
    tip.style.top = `${Math.max(0, Math.min(y + 12, high - tip.offsetHeight))}px`;
  }, HOVER_MS);
}

function picture(id, caption) {
  return data.pictures ? thumbnail(run, id, caption) : null;
}

function mark(rows) {
  const { view } = parts;
  view.marked = new Set(rows.filter((row) => data.place.has(row)).map((row) => data.place.get(row)));
  view.redraw();
  parts.side.replaceChildren(el("p", { class: "quiet" }, `${view.marked.size} images that the search found are ringed.`));
}

function forget() {
  asking += 1;
  parts.view.chosen = -1;
  parts.view.marked = new Set();
  parts.view.redraw();
  parts.side.replaceChildren(el("p", { class: "quiet" }, "Point at a dot to see what it is, click it to see what is similar. ",
    "Drag or use the arrow keys to move, wheel or + and − to zoom."));
}

async function select(row, modality, visit = false) {
  const { view, side } = parts, asked = run, at = data.place.get(row), own = (asking += 1);
  const point = at === undefined ? -1 : modality === "image" ? at : at + view.n;
  view.chosen = point;
  if (visit && point >= 0) view.visit(point);
  const answer = await ask("similar", { run: asked, row, modality, k: K });
  if (asked !== run || own !== asking || !data) return;
  if (answer.unavailable) {
    side.replaceChildren(unavailable(answer));
    return;
  }
  const places = (hits, shift) => hits.filter((hit) => data.place.has(hit.row)).map((hit) => data.place.get(hit.row) + shift);
  view.marked = new Set([...places(answer.image, 0), ...places(answer.text, view.n)]);
  view.redraw();
  const { image_id: id, caption } = answer.asked;
  side.replaceChildren(
    el("div", { class: "asked" }, picture(id, caption), el("p", {}, el("b", { class: modality }, modality === "image" ? "image" : "caption"), ` ${caption}`),
      el("p", { class: "quiet" }, id)),
    el("h2", {}, "Similar images"), hitList(asked, answer.image, data, (hit) => select(hit.row, "image", true), row),
    el("h2", {}, "Similar captions"), captionList(answer.text, (hit) => select(hit.row, "text", true), row),
    el("p", { class: "quiet" }, `By cosine, among ${among(answer)} and their first captions; ringed on the map.`));
}
