// A document opened at a span: a dialog over the chat, or a page of its own.

import { fill, h } from "../dom.js";
import { api } from "../api.js";
import { number } from "../format.js";
import { open } from "./dialog.js";
import { icon } from "./icons.js";
import { singleKeys } from "./theme.js";
import { textCanvas } from "./viewtext.js";

const ZOOMS = [0.6, 0.8, 1, 1.3, 1.7, 2.2];
const AGAIN = 1000; // milliseconds until a document that is being read is asked for again
const BASE = 760; // CSS pixels across a page at zoom 1

// `spot`: {id, name, page, start, end, quote}. The viewer fills its place; `close` adds a close button.
export function viewer(spot, { close = null, heading = "h2", signal }) {
  const name = h(heading, { class: "clip", id: "viewer-title" }, spot.name ?? "Document");
  const about = h("span", { class: "small faint clip" });
  const controls = h("div", { class: "row" });
  const canvas = h(
    "div",
    { class: "canvas", tabindex: "0", role: "region", "aria-label": "Document" },
    h("div", { class: "empty" }, h("span", { class: "spinner" })),
  );
  const element = h(
    "div",
    { class: "viewer" },
    h(
      "header",
      null,
      h("div", { class: "name" }, name, about),
      controls,
      h(
        "a",
        {
          class: "iconbutton",
          href: api.originalUrl(spot.id),
          download: "",
          "aria-label": "Download the original",
          title: "Download the original",
        },
        icon("download"),
      ),
      close &&
        h(
          "a",
          {
            class: "iconbutton",
            href: address(spot),
            "aria-label": "Open as a page",
            title: "Open as a page",
            onclick: close,
          },
          icon("open"),
        ),
      close &&
        h("button", { type: "button", class: "iconbutton", "aria-label": "Close", onclick: close }, icon("close")),
    ),
    canvas,
    spot.quote && h("blockquote", { class: "quotebar" }, spot.quote),
  );

  read(spot.id, canvas, signal)
    .then((document) => {
      name.textContent = document.title || document.name;
      about.textContent = [document.title && document.title !== document.name ? document.name : "", document.collection]
        .filter(Boolean)
        .join(" · ");
      if (document.media_type === "application/pdf" && document.pages)
        pageCanvas(document, spot, { canvas, controls, signal });
      else return textCanvas(document, spot, { canvas, signal });
      return null;
    })
    .catch((error) => {
      if (error.name === "AbortError") return;
      fill(
        canvas,
        h(
          "div",
          { class: "empty" },
          h("h2", null, error.status === 404 ? "This document is no longer here" : "It could not be shown"),
          h("p", null, error.message),
        ),
      );
    });
  return { element, focus: () => canvas.focus() };
}

// The document once there is something to show, however long reading it takes.
async function read(id, canvas, signal) {
  for (;;) {
    const document = await api.document(id, signal);
    if (document.characters || document.pages || ["ready", "failed"].includes(document.state)) return document;
    fill(
      canvas,
      h(
        "div",
        { class: "empty", role: "status" },
        h("span", { class: "spinner" }),
        h("h2", null, "Still being read"),
        h("p", null, "Its text appears here as soon as it is."),
      ),
    );
    await new Promise((resolve) => setTimeout(resolve, AGAIN));
    signal?.throwIfAborted();
  }
}

export const address = ({ id, page, start, end }) => {
  const search = new URLSearchParams();
  for (const [key, value] of Object.entries({ page, start, end }))
    if (value !== null && value !== undefined) search.set(key, value);
  return `/documents/${encodeURIComponent(id)}${search.size ? `?${search}` : ""}`;
};

function pageCanvas(document, spot, { canvas, controls, signal }) {
  let page = Math.min(Math.max(1, spot.page ?? 1), document.pages);
  let zoom = 2;
  const image = h("img", { alt: "" });
  const sheet = h("div", { class: "sheetpage loading" }, image);
  const field = h("input", {
    class: "field",
    inputmode: "numeric",
    "aria-label": "Page",
    onchange: () => go(Number(field.value) || page),
  });
  const back = h(
    "button",
    { type: "button", class: "iconbutton", "aria-label": "Previous page", onclick: () => go(page - 1) },
    icon("left"),
  );
  const on = h(
    "button",
    { type: "button", class: "iconbutton", "aria-label": "Next page", onclick: () => go(page + 1) },
    icon("right"),
  );
  fill(
    controls,
    h("span", { class: "pager" }, back, field, h("span", null, `of ${number(document.pages)}`), on),
    h(
      "button",
      { type: "button", class: "iconbutton", "aria-label": "Smaller", onclick: () => scale(-1) },
      icon("zoomout"),
    ),
    h(
      "button",
      { type: "button", class: "iconbutton", "aria-label": "Larger", onclick: () => scale(1) },
      icon("zoomin"),
    ),
  );

  const hasSpan = spot.start !== undefined && spot.start !== null && spot.end > spot.start;
  const span = () => (hasSpan ? { start: spot.start, end: spot.end } : {});

  async function show() {
    const across = Math.min(BASE, canvas.clientWidth - 44 || BASE) * ZOOMS[zoom];
    sheet.style.width = `${across}px`;
    sheet.classList.add("loading");
    field.value = page;
    back.disabled = page <= 1;
    on.disabled = page >= document.pages;
    const wanted = page;
    fill(canvas, sheet);
    image.alt = `Page ${page} of ${document.title || document.name}${hasSpan && page === spot.page ? ", the quoted words marked" : ""}`;
    image.onload = () => {
      if (wanted === page) {
        sheet.classList.remove("loading");
        reach(wanted);
      }
    };
    image.onerror = () =>
      wanted === page &&
      fill(
        canvas,
        h(
          "div",
          { class: "empty" },
          h("h2", null, "This page could not be drawn"),
          h("p", null, "The file may be damaged. You can still download the original."),
        ),
      );
    image.src = api.pageUrl(document.id, page, {
      width: Math.min(2400, Math.round((across * Math.min(devicePixelRatio, 2)) / 100) * 100),
      ...span(),
    });
  }

  async function reach(wanted) {
    canvas.scrollTop = 0;
    if (!hasSpan) return;
    try {
      const { boxes } = await api.marks(document.id, wanted, span(), signal);
      if (boxes.length && wanted === page) {
        canvas.scrollTop = Math.max(0, boxes[0][1] * sheet.clientHeight - canvas.clientHeight / 3);
        canvas.scrollLeft = Math.max(0, boxes[0][0] * sheet.clientWidth - 24);
      }
      canvas.dataset.marks = boxes.length;
    } catch {
      /* the picture has the marks already; only the scroll is missing */
    }
  }

  function go(to) {
    page = Math.min(Math.max(1, to), document.pages);
    show();
  }
  function scale(step) {
    const next = zoom + step;
    if (ZOOMS[next]) {
      zoom = next;
      show();
    }
  }

  const keys = (event) => {
    if (event.target.closest?.("input, textarea") || event.ctrlKey || event.metaKey || event.altKey || !singleKeys())
      return;
    if (event.key === "[") go(page - 1);
    if (event.key === "]") go(page + 1);
  };
  globalThis.document.addEventListener("keydown", keys, { signal });
  show();
}

export function openViewer(spot) {
  const stop = new AbortController();
  const dialog = h("dialog", { class: "viewdialog", "aria-labelledby": "viewer-title", onclose: () => stop.abort() });
  const view = viewer(spot, { close: () => dialog.close(), signal: stop.signal });
  dialog.append(view.element);
  open(dialog);
  view.focus();
  return dialog;
}
