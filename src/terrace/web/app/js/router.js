// Addresses to views. A view is `async (main, params, {signal, search, navigated})`; it draws into `main`,
// listens with `signal`, and is told to go by the signal's abort.

import { $, h, fill } from "./dom.js";
import { lacks } from "./words.js";

const routes = [];
let current = null;
let guard = () => null;
const changes = new EventTarget();

// `outside`: shown without the house around it, to whoever is not logged in too.
export function route(pattern, view, { outside = false } = {}) {
  const keys = [];
  const source = pattern.replace(/:(\w+)/g, (_, key) => {
    keys.push(key);
    return "([^/]+)";
  });
  routes.push({ test: new RegExp(`^${source}/?$`), keys, view, outside });
}

// `check(route)` names the address where one has to go first, or null.
export function guarded(check) {
  guard = check;
}

export function title(text) {
  document.title = text ? `${text} · Terrace` : "Terrace";
  const bar = $("topbar").querySelector("strong");
  if (bar) bar.textContent = text || "Terrace";
}

export const path = () => location.pathname;
export const onNavigate = (run) => changes.addEventListener("navigate", run);

export function navigate(to, { replace = false } = {}) {
  const url = new URL(to, location.href);
  if (url.href !== location.href) history[replace ? "replaceState" : "pushState"](null, "", url);
  return render(true);
}

// Changes the address without drawing anew (the view already shows what it says).
export function readdress(to) {
  history.replaceState(history.state, "", to);
  changes.dispatchEvent(new Event("navigate"));
}

async function render(navigated) {
  current?.abort();
  const controller = new AbortController();
  current = controller;
  const main = $("main");
  const found = routes.map((each) => ({ each, match: each.test.exec(location.pathname) })).find((each) => each.match);
  const elsewhere = found && guard(found.each);
  if (elsewhere) {
    navigate(elsewhere, { replace: true });
    return;
  }
  document.body.classList.toggle("outside", Boolean(found?.each.outside));
  changes.dispatchEvent(new Event("navigate"));
  fill(main);
  main.scrollTop = 0;
  main.className = "main";
  if (!found) {
    title("Not found");
    fill(main, empty("There is nothing here", "The address may be old, or mistyped.", toChat("button")));
    return;
  }
  const params = Object.fromEntries(
    found.each.keys.map((key, index) => [key, decodeURIComponent(found.match[index + 1])]),
  );
  try {
    await found.each.view(main, params, {
      signal: controller.signal,
      search: new URLSearchParams(location.search),
      navigated,
    });
  } catch (error) {
    if (controller.signal.aborted) return;
    if (error.status === 403) {
      title("Not open to you");
      fill(main, empty("This is not open to you", lacks(error), toChat("button")));
    } else {
      title("Error");
      const again = h("button", { type: "button", class: "button", onclick: () => render(false) }, "Try again");
      const heading = error.status === 404 ? "There is nothing here" : "This could not be shown";
      fill(main, empty(heading, error.message, h("div", { class: "row" }, again, toChat("button plain"))));
    }
  }
  if (
    navigated &&
    !controller.signal.aborted &&
    (document.activeElement === document.body || document.activeElement === null)
  ) {
    main.focus({ preventScroll: true });
  }
}

const toChat = (name) => h("a", { href: "/", class: name }, "To the chat");

const empty = (heading, text, ...below) =>
  h("div", { class: "page" }, h("div", { class: "empty" }, h("h1", null, heading), h("p", null, text), below));

function local(anchor) {
  return (
    anchor.origin === location.origin &&
    !anchor.hasAttribute("download") &&
    !anchor.target &&
    !anchor.getAttribute("href").startsWith("#") &&
    routes.some((each) => each.test.test(anchor.pathname))
  );
}

export function start() {
  addEventListener("popstate", () => render(true));
  document.addEventListener("click", (event) => {
    if (
      event.defaultPrevented ||
      event.button !== 0 ||
      event.metaKey ||
      event.ctrlKey ||
      event.shiftKey ||
      event.altKey
    )
      return;
    const anchor = event.target.closest?.("a[href]");
    if (!anchor || !local(anchor)) return;
    event.preventDefault();
    navigate(anchor.href);
  });
  return render(false);
}
