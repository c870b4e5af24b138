// Menus that hang from a button: arrow keys, Home, End, Escape, click outside.

import { h } from "../dom.js";
import { icon } from "./icons.js";

let shown = null;

function hide(refocus = false) {
  if (!shown) return;
  const { element, anchor, stop } = shown;
  shown = null;
  stop.abort();
  element.remove();
  anchor.setAttribute("aria-expanded", "false");
  if (refocus) anchor.focus();
}

function place(element, anchor) {
  const box = anchor.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = element;
  const below = box.bottom + 4 + height <= innerHeight - 8;
  const left = box.left + width <= innerWidth - 8 ? box.left : box.right - width;
  element.style.left = `${Math.max(8, left)}px`;
  element.style.top = `${Math.max(8, below ? box.bottom + 4 : box.top - height - 4)}px`;
}

// Shows `element` at `anchor` until something else is clicked or Escape is pressed.
export function popup(anchor, element) {
  const again = shown?.anchor === anchor;
  hide();
  if (again) return;
  const stop = new AbortController();
  const { signal } = stop;
  (anchor.closest("dialog, .sidebar, main") ?? document.body).append(element);
  shown = { element, anchor, stop };
  anchor.setAttribute("aria-expanded", "true");
  const grown = new ResizeObserver(() => place(element, anchor)); // what it shows may come later
  grown.observe(element);
  signal.addEventListener("abort", () => grown.disconnect());
  place(element, anchor);
  element.querySelector("button, a, input")?.focus();
  document.addEventListener(
    "pointerdown",
    (event) => {
      if (!element.contains(event.target) && !anchor.contains(event.target)) hide();
    },
    { signal, capture: true },
  );
  element.addEventListener(
    "keydown",
    (event) => {
      if (event.key === "Escape") {
        event.preventDefault();
        event.stopPropagation();
        hide(true);
      }
      if (event.key === "Tab" && element.getAttribute("role") === "menu") hide(true);
    },
    { signal },
  );
  element.addEventListener(
    "focusout",
    (event) => {
      if (event.relatedTarget && !element.contains(event.relatedTarget) && event.relatedTarget !== anchor) hide();
    },
    { signal },
  );
  addEventListener("resize", () => hide(), { signal });
}

function move(event, element) {
  const all = [...element.querySelectorAll("[role=menuitem]")];
  const now = all.indexOf(document.activeElement);
  const to = {
    ArrowDown: (now + 1) % all.length,
    ArrowUp: (now - 1 + all.length) % all.length,
    Home: 0,
    End: all.length - 1,
  }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  all[to].focus();
}

function item(entry) {
  if (entry.legend) return h("p", { class: "legend clip", "aria-hidden": "true" }, entry.legend);
  const shared = {
    role: "menuitem",
    tabindex: "-1",
    class: entry.bad && "bad",
    "aria-current": entry.chosen && "true",
  };
  const inside = [icon(entry.icon), h("span", { class: "clip" }, entry.label)];
  if (entry.href)
    return h("a", { ...shared, href: entry.href, download: entry.download, onclick: () => hide() }, inside);
  const run = () => {
    hide(true);
    entry.run();
  };
  return h("button", { ...shared, type: "button", onclick: run }, inside);
}

// A button with a menu of `{label, icon, run | href, download, bad, chosen}`; false entries are left out, and `{legend}`
// stands over what follows. `face` is shown instead of the sign.
export function menuButton(label, entries, { class: name = "iconbutton little", sign = "more", face = null } = {}) {
  const button = h(
    "button",
    {
      type: "button",
      class: name,
      "aria-label": label,
      "aria-haspopup": "menu",
      "aria-expanded": "false",
      onclick: () => {
        const element = h(
          "div",
          { class: "menu", role: "menu", "aria-label": label, onkeydown: (event) => move(event, element) },
          entries().filter(Boolean).map(item),
        );
        popup(button, element);
      },
    },
    face ?? icon(sign),
  );
  return button;
}
