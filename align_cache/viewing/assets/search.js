// Search: a sentence in, images out; each leads to what is similar to it, on the map.
import { ask, el, unavailable, warnings } from "./dom.js";
import { among, hitList } from "./hits.js";

const K = 24;
let run = null, pending = null;

export async function showSearch(root, current, { go }) {
  if (run === current && root.childElementCount) return;
  run = current;
  root.replaceChildren(el("p", { class: "quiet", role: "status" }, "embedding…"));
  const answer = await ask("searchable", { run: current });
  if (run !== current) return;
  if (answer.unavailable) root.replaceChildren(unavailable(answer));
  else build(root, answer, go);
}

function build(root, about, go) {
  const field = el("input", { type: "search", name: "words", maxlength: 500, required: true, autocomplete: "off",
    placeholder: "two dogs in the snow", "aria-label": "a sentence" });
  const results = el("div", { "aria-live": "polite" }, el("p", { class: "quiet" }, `Searches ${among(about)}.`));
  const form = el("form", { class: "ask", role: "search" }, field, el("button", {}, "Search images"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    find(field.value, results, go);
  });
  root.replaceChildren(form, results);
  field.focus({ preventScroll: true });
}

async function find(words, results, go) {
  pending?.abort();
  pending = new AbortController();
  const { signal } = pending, asked = run;
  results.replaceChildren(el("p", { class: "quiet", role: "status" }, "searching… (the first time, the encoder is loaded)"));
  let answer;
  try {
    answer = await ask("search", { run: asked, words, k: K }, signal);
  } catch {
    return; // another search took its place
  }
  if (answer.unavailable) {
    results.replaceChildren(unavailable(answer));
    return;
  }
  const toMap = el("button", { type: "button", onclick: () => go("map", asked, { marked: answer.image.map((hit) => hit.row) }) }, "Show on the map");
  results.replaceChildren(
    ...warnings(answer.notes),
    el("div", { class: "controls" }, el("p", { class: "lead" }, `“${words}” among ${among(answer)}`), toMap),
    hitList(asked, answer.image, answer, (hit) => go("map", asked, { pick: { row: hit.row, modality: "image" } })),
  );
}
