// Making elements, asking the server, writing numbers. Text is only ever set as text, never as markup.

export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child != null));
  return element;
}

// Answers of the server: what a part cannot show comes as {unavailable, hint}, a fault as {error}.
export async function ask(path, parameters = {}, signal = undefined) {
  const query = new URLSearchParams(parameters).toString();
  let response;
  try {
    response = await fetch(`/api/${path}${query ? `?${query}` : ""}`, { signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    return { unavailable: "align-cache view no longer answers", hint: "start it again and reload this page" };
  }
  const answer = await response.json();
  return answer.error ? { unavailable: answer.error, hint: null } : answer;
}

export function unavailable(answer) {
  const hint = answer.hint ? el("p", { class: "hint" }, answer.hint) : null;
  return el("div", { class: "message", role: "status" }, el("p", {}, answer.unavailable), hint);
}

export function warnings(lines) {
  return lines.map((line) => el("p", { class: "warning" }, line));
}

export function thumbnail(run, id, alternative) {
  const source = `/thumbnail?${new URLSearchParams({ run, image: id })}`;
  const image = el("img", { src: source, alt: alternative, loading: "lazy", decoding: "async", draggable: "false" });
  image.addEventListener("error", () => image.replaceWith(el("span", { class: "absent" }, id)), { once: true });
  return image;
}

export const number = (value, digits = 3) => (value == null ? "–" : value.toFixed(digits).replace("-", "−"));
export const percent = (share) => `${(100 * share).toFixed(1)}%`;
export const count = (value) => value.toLocaleString("en");
