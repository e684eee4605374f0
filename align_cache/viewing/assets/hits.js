// Answers of a search, best first: picture, caption, cosine.
import { count, el, number, thumbnail } from "./dom.js";

// ``own`` is the row of what was asked about: its other half is marked.
export function hitList(run, hits, { pictures }, pick, own = -1) {
  return el("ol", { class: "hits" }, hits.map((hit, place) => el("li", { class: hit.row === own ? "own" : null },
    el("button", { type: "button", class: "hit", title: "similar to this", onclick: () => pick(hit) },
      pictures ? thumbnail(run, hit.image_id, hit.caption) : el("span", { class: "absent" }, hit.image_id),
      el("span", { class: "place" }, el("b", {}, `${place + 1}${hit.row === own ? " own" : ""}`), el("span", {}, number(hit.cosine))),
      el("span", { class: "words" }, hit.caption)))));
}

export function captionList(hits, pick, own = -1) {
  return el("ol", { class: "sentences" }, hits.map((hit) => el("li", { class: hit.row === own ? "own" : null },
    el("button", { type: "button", class: "sentence", title: "similar to this", onclick: () => pick(hit) },
      el("span", { class: "words" }, hit.caption), el("span", { class: "cosine" }, `${hit.row === own ? "own " : ""}${number(hit.cosine)}`)))));
}

export function among({ n, n_split, split }) {
  return n < n_split ? `${count(n)} of the ${count(n_split)} images of the ${split} split, drawn at random` :
    `the ${count(n)} images of the ${split} split`;
}
