// A tiny element builder. Text always goes in as text; only `rendered` takes HTML, and only the server's own.

export const ICON = new URL("../icons/favicon.svg", import.meta.url).pathname;
const SVG = "http://www.w3.org/2000/svg";

export function h(tag, props, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) set(element, name, value);
  element.append(...flat(children));
  return element;
}

function set(element, name, value) {
  if (value === null || value === undefined || value === false) return;
  if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
  else if (name === "class") element.className = value;
  else if (name === "data") Object.assign(element.dataset, value);
  else if (name === "value" || name === "checked" || name === "indeterminate") element[name] = value;
  else element.setAttribute(name, value === true ? "" : value);
}

function flat(children) {
  return children
    .flat(Infinity)
    .filter((child) => child !== null && child !== undefined && child !== false && child !== "");
}

export function fill(element, ...children) {
  element.replaceChildren(...flat(children));
  return element;
}

export const $ = (id) => document.getElementById(id);

// HTML the server rendered and sanitised. Unchanged leading blocks stay, so a growing answer keeps selections.
export function rendered(element, html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  const fresh = [...template.content.childNodes];
  let same = 0;
  while (same < fresh.length && same < element.childNodes.length) {
    const old = element.childNodes[same];
    if ((old.source ?? outer(old)) !== outer(fresh[same])) break;
    same += 1;
  }
  while (element.childNodes.length > same) element.lastChild.remove();
  element.append(...fresh.slice(same));
  return element;
}

export const outer = (node) => node.outerHTML ?? node.data;

export function svg(paths, label) {
  const element = document.createElementNS(SVG, "svg");
  element.setAttribute("viewBox", "0 0 20 20");
  element.setAttribute("class", "icon");
  if (label) {
    element.setAttribute("role", "img");
    element.setAttribute("aria-label", label);
  } else element.setAttribute("aria-hidden", "true");
  for (const d of paths) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", d);
    element.append(path);
  }
  return element;
}

// Says a sentence to a screen reader.
export function announce(text) {
  const region = $("announcer");
  region.append(h("p", null, text));
  while (region.childElementCount > 8) region.firstChild.remove();
}

export function debounce(wait, run) {
  let timer;
  return (...args) => {
    clearTimeout(timer);
    timer = setTimeout(() => run(...args), wait);
  };
}

const memory = (place) => ({
  get(name, otherwise = null) {
    try {
      return JSON.parse(place().getItem(`terrace.${name}`)) ?? otherwise;
    } catch {
      return otherwise;
    }
  },
  set(name, value) {
    try {
      place().setItem(`terrace.${name}`, JSON.stringify(value));
    } catch {
      /* private windows refuse it */
    }
  },
  take(name) {
    const value = this.get(name);
    if (value !== null) this.set(name, null);
    return value;
  },
});

export const remember = memory(() => localStorage);
export const inThisTab = memory(() => sessionStorage);
