// The frame: which section and which run are shown. Both stand in the address, as #map/RUN.
import { ask, el, unavailable } from "./dom.js";
import { showAlignment } from "./matrices.js";
import { showMap } from "./map.js";
import { showRuns } from "./runs.js";
import { showSearch } from "./search.js";

const SECTIONS = { runs: showRuns, alignment: showAlignment, map: showMap, search: showSearch };
const select = document.getElementById("run");
const links = [...document.querySelectorAll("nav a")];
let first = null;

function place() {
  const [section, run] = location.hash.slice(1).split("/").map(decoded);
  return { section: section in SECTIONS ? section : "runs", run: run || first };
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // typed by hand
  }
}

// ``extra`` is for the section alone, as the row that the map is to show.
function go(section, run = place().run, extra = {}) {
  const hash = `#${section}/${encodeURIComponent(run)}`;
  if (location.hash !== hash) history.pushState(null, "", hash);
  show(extra);
}

function show(extra = {}) {
  const { section, run } = place();
  for (const link of links) {
    const own = link.dataset.section;
    link.href = `#${own}/${encodeURIComponent(run)}`;
    if (own === section) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  for (const name of Object.keys(SECTIONS)) document.getElementById(name).hidden = name !== section;
  if (![...select.options].some((option) => option.value === run)) select.append(el("option", { value: run }, run));
  select.value = run;
  document.title = `${section} · ${run} · align-cache`;
  SECTIONS[section](document.getElementById(section), run, { go, ...extra });
}

async function start() {
  const answer = await ask("runs");
  if (answer.unavailable) {
    document.querySelector("main").prepend(unavailable(answer));
    return;
  }
  first = answer.first;
  const ids = answer.runs.map((run) => run.id);
  if (!ids.includes(first)) ids.unshift(first);
  select.replaceChildren(...ids.map((id) => el("option", { value: id }, id)));
  select.addEventListener("change", () => go(place().section, select.value));
  addEventListener("hashchange", () => show());
  show();
}

start();
