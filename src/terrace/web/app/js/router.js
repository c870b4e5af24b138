// Addresses to views. A view is `async (main, params, {signal, search, navigated})`; it draws into `main`,
// listens with `signal`, and is told to go by the signal's abort.

import { $, h, fill } from "./dom.js";

const routes = [];
let current = null;
const changes = new EventTarget();

export function route(pattern, view, name) {
  const keys = [];
  const source = pattern.replace(/:(\w+)/g, (_, key) => {
    keys.push(key);
    return "([^/]+)";
  });
  routes.push({ test: new RegExp(`^${source}/?$`), keys, view, name });
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
  changes.dispatchEvent(new Event("navigate"));
  fill(main);
  main.scrollTop = 0;
  main.className = "main";
  if (!found) {
    title("Not found");
    fill(
      main,
      h(
        "div",
        { class: "page" },
        h(
          "div",
          { class: "empty" },
          h("h1", null, "There is nothing here"),
          h("p", null, "The address may be old, or mistyped."),
          h("a", { href: "/", class: "button" }, "To the chat"),
        ),
      ),
    );
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
    title("Error");
    fill(
      main,
      h(
        "div",
        { class: "page" },
        h(
          "div",
          { class: "empty" },
          h("h1", null, error.status === 404 ? "There is nothing here" : "This could not be shown"),
          h("p", null, error.message),
          h(
            "div",
            { class: "row" },
            h("button", { class: "button", onclick: () => render(false) }, "Try again"),
            h("a", { href: "/", class: "button plain" }, "To the chat"),
          ),
        ),
      ),
    );
  }
  if (
    navigated &&
    !controller.signal.aborted &&
    (document.activeElement === document.body || document.activeElement === null)
  ) {
    main.focus({ preventScroll: true });
  }
}

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
