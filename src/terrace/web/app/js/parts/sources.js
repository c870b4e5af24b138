// Numbered sources: beside the answer on wide screens, in a sheet on small ones; a peek at a mark.

import { fill, h } from "../dom.js";
import { closer, open } from "./dialog.js";
import { icon } from "./icons.js";
import { openViewer } from "./viewer.js";

export const wide = matchMedia("(min-width: 68.75em)");

const where = (source) => (source.page ? `Page ${source.page}` : "");

export function viewSource(source) {
  const span = source.quote
    ? { start: source.start, end: source.end }
    : { start: source.start ?? source.chunk_start, end: source.end ?? source.chunk_end };
  return openViewer({
    id: source.document_id,
    name: source.title || source.document_name,
    page: source.page,
    quote: source.quote,
    ...span,
  });
}

export function sourceCards(sources) {
  return h(
    "ol",
    { class: "cards" },
    sources.map((source) =>
      h(
        "li",
        null,
        h(
          "a",
          {
            class: "source",
            id: `source-${source.n}`,
            href: source.url,
            data: { n: source.n },
            onclick: (event) => {
              if (event.metaKey || event.ctrlKey || event.shiftKey) return;
              event.preventDefault();
              viewSource(source);
            },
          },
          h(
            "span",
            { class: "head" },
            h("span", { class: "n" }, source.n),
            h(
              "span",
              null,
              h("span", { class: "title" }, source.title || source.document_name),
              h(
                "span",
                { class: "where" },
                [where(source), source.title && source.title !== source.document_name ? source.document_name : ""]
                  .filter(Boolean)
                  .join(" · "),
              ),
            ),
          ),
          source.quote && h("span", { class: "quote" }, source.quote),
        ),
      ),
    ),
  );
}

// The panel beside the conversation.
export function sourcesPanel(close) {
  const list = h("div", { class: "list", tabindex: "0", role: "region", "aria-label": "Sources of the answer" });
  const element = h(
    "aside",
    { class: "sources", "aria-label": "Sources", hidden: true },
    h(
      "header",
      null,
      h("h2", null, "Sources"),
      h(
        "button",
        { type: "button", class: "iconbutton little", "aria-label": "Hide sources", onclick: close },
        icon("close"),
      ),
    ),
    list,
  );
  return {
    element,
    show(sources) {
      element.hidden = !sources.length;
      fill(list, sourceCards(sources));
    },
    light(n) {
      for (const card of list.querySelectorAll(".source")) card.classList.toggle("lit", Number(card.dataset.n) === n);
      list.querySelector(".source.lit")?.scrollIntoView({ block: "nearest" });
    },
  };
}

export function sourcesSheet(sources) {
  const dialog = h(
    "dialog",
    { class: "sheet sources", "aria-labelledby": "sheet-title" },
    h(
      "header",
      null,
      h("h2", { id: "sheet-title" }, "Sources"),
      closer(() => dialog),
    ),
    h("div", { class: "list" }, sourceCards(sources)),
  );
  return open(dialog);
}

let peeking = null;

// A card beside a mark while it is pointed at or focused; `null` takes it away.
export function peek(source, mark) {
  peeking?.remove();
  peeking = null;
  if (!source || !mark) return;
  peeking = h(
    "div",
    { class: "peek", "aria-hidden": "true" },
    h("b", null, source.title || source.document_name),
    where(source) && h("span", { class: "faint" }, ` · ${where(source)}`),
    source.quote && h("p", null, source.quote),
  );
  document.body.append(peeking);
  const box = mark.getBoundingClientRect();
  const left = Math.min(Math.max(12, box.left - 20), innerWidth - peeking.offsetWidth - 12);
  const above = box.top - peeking.offsetHeight - 8;
  peeking.style.left = `${left}px`;
  peeking.style.top = `${above > 8 ? above : box.bottom + 8}px`;
}
