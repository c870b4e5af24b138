// A message of a campaign as it is shown: whom it is for, its words, what it rests on.

import { h } from "../dom.js";
import { money } from "../format.js";
import { called, under } from "./campaignwords.js";
import { icon } from "./icons.js";
import { viewSource } from "./sources.js";

// Sources that the text rests on, each opens its place.
export function citations(sources) {
  const cited = sources.filter((each) => each.cited);
  if (!cited.length) return null;
  return h(
    "ul",
    { class: "citations", "aria-label": "What it rests on" },
    h("li", { class: "small faint" }, "Rests on"),
    cited.map((source) =>
      h(
        "li",
        null,
        h(
          "button",
          { type: "button", class: "chip", onclick: () => viewSource(source) },
          icon("book"),
          h(
            "span",
            { class: "clip" },
            source.title || source.document_name,
            source.page ? `, page ${source.page}` : "",
          ),
        ),
      ),
    ),
  );
}

// A message of a preview.
export function previewCard({ contact, text, prompt, sources, error, model, cost, unpriced }, dry) {
  const price = unpriced ? "price unknown" : cost ? money(cost) : "";
  return h(
    "article",
    { class: "letter", "aria-label": `Message to ${called(contact)}` },
    h("header", null, h("b", null, called(contact)), h("p", { class: "small faint clip" }, under(contact))),
    error && h("p", { class: "wrong" }, icon("warn"), error.message),
    !dry && text && h("p", { class: "saying" }, text),
    dry && prompt && h("p", { class: "saying asked" }, prompt),
    citations(sources),
    !dry &&
      prompt &&
      prompt !== text &&
      h(
        "details",
        { class: "more" },
        h("summary", null, "What the model was asked"),
        h("p", { class: "saying asked" }, prompt),
      ),
    (model || price) && h("p", { class: "small faint" }, [model, price].filter(Boolean).join(" · ")),
  );
}
