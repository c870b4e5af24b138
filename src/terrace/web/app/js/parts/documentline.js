// One document in the list: its state in words, its tags, what one can do with it.

import { h } from "../dom.js";
import { api } from "../api.js";
import { ago, bytes, exact, fileType, number, plural } from "../format.js";
import { ask, confirm } from "./dialog.js";
import { icon } from "./icons.js";
import { can } from "../session.js";
import { menuButton } from "./menu.js";
import { attempt, toast } from "./toast.js";

const STATES = { queued: "Waiting its turn", parsing: "Reading", embedding: "Learning its meaning" };
const SEARCHABLE = {
  meaning: ["badge good", "Found by meaning", "Searchable by words and by meaning"],
  words: ["badge half", "Found by words", "Searchable by words"],
  no: ["badge", "Not searchable", ""],
};

function state(document, job) {
  if (document.state === "failed") return h("span", { class: "badge bad" }, "Could not be read");
  if (document.state === "ready") {
    const [name, text, hint] = SEARCHABLE[document.searchable] ?? SEARCHABLE.no;
    return h("span", { class: name, title: hint }, text);
  }
  const running = job && job.id === document.job_id && job.state === "running";
  const part = running && job.progress?.total ? job.progress.done / job.progress.total : 0;
  const bar = h("i");
  bar.style.width = `${part * 100}%`;
  const text = (running && job.progress?.note) || STATES[document.state];
  return [
    h(
      "span",
      { class: "badge busy", title: document.searchable === "words" ? "Already searchable by words" : "" },
      h("span", { class: "clip" }, text),
    ),
    h(
      "div",
      {
        class: part ? "bar" : "bar unknown",
        role: "progressbar",
        "aria-label": `Reading ${document.name}`,
        "aria-valuemin": 0,
        "aria-valuemax": 100,
        "aria-valuenow": part ? Math.round(part * 100) : null,
      },
      bar,
    ),
  ];
}

// `act`: {open(document), changed(document), gone(document), tag(name)}.
export function documentLine(document, job, act) {
  const change = async (body, done) => {
    const fresh = await attempt(() => api.changeDocument(document.id, body), done);
    if (fresh) act.changed(fresh);
  };
  const reprocess = async () => {
    const answer = await attempt(() => api.reprocess(document.id), "Reading it again");
    if (answer) act.changed(answer.document);
  };
  const remove = async () => {
    const sure = await confirm({
      title: "Delete this document?",
      text: `“${document.name}” will be gone, with everything read from it. Answers that cite it keep their words but can't open it.`,
      action: "Delete",
    });
    if (sure && (await attempt(() => api.deleteDocument(document.id)))) {
      toast("Document deleted");
      act.gone(document);
    }
  };
  const rename = async () => {
    const name = await ask({ title: "Rename", label: "Name", value: document.name, max: 255 });
    if (name && name !== document.name) change({ name });
  };
  const retag = async () => {
    const text = await ask({
      title: "Tags",
      label: "Tags, separated by commas",
      value: document.tags.join(", "),
      hint: "A tag groups documents across collections; a question can be limited to it.",
      max: 1000,
    });
    if (text !== null)
      change({
        tags: [
          ...new Set(
            text
              .split(",")
              .map((each) => each.trim())
              .filter(Boolean),
          ),
        ],
      });
  };
  const move = async () => {
    const collection = await ask({
      title: "Move to a collection",
      label: "Collection",
      value: document.collection,
      hint: "A name that isn't there yet makes a new one.",
    });
    if (collection && collection !== document.collection) change({ collection }, `Moved to ${collection}`);
  };
  const facts = [
    document.collection,
    document.pages ? plural(document.pages, "page") : "",
    bytes(document.bytes),
    document.chunks ? plural(document.chunks, "passage") : "",
  ].filter(Boolean);
  return h(
    "li",
    { class: "doc", data: { id: document.id } },
    h("span", { class: "filetype", "aria-hidden": "true" }, fileType(document)),
    h(
      "div",
      { class: "name" },
      h(
        "a",
        {
          href: `/documents/${document.id}`,
          class: "clip",
          title: document.name,
          onclick: (event) => {
            if (event.metaKey || event.ctrlKey || event.shiftKey) return;
            event.preventDefault();
            act.open(document);
          },
        },
        document.name,
      ),
      h(
        "div",
        { class: "meta" },
        h("span", null, facts.join(" · ")),
        document.tags.map((tag) =>
          h(
            "button",
            { type: "button", class: "tag clip", "aria-label": `Show tag ${tag}`, onclick: () => act.tag(tag) },
            tag,
          ),
        ),
      ),
    ),
    h("div", { class: "status" }, state(document, job)),
    h("span", { class: "when", title: exact(document.created_at) }, ago(document.created_at)),
    h(
      "div",
      { class: "acts" },
      menuButton(`More about ${document.name}`, () => [
        { label: "Open", icon: "open", run: () => act.open(document) },
        { label: "Download original", icon: "download", href: api.originalUrl(document.id), download: "" },
        ...(can("documents:write")
          ? [
              { label: "Rename", icon: "edit", run: rename },
              { label: "Tags", icon: "tag", run: retag },
              { label: "Move", icon: "folder", run: move },
              { label: "Read again", icon: "redo", run: reprocess },
              { label: "Delete", icon: "trash", bad: true, run: remove },
            ]
          : []),
      ]),
    ),
    document.error &&
      h(
        "div",
        { class: "why" },
        h("span", { class: "grow" }, document.error.message),
        can("documents:write") &&
          h("button", { type: "button", class: "button little", onclick: reprocess }, "Try again"),
      ),
    document.warnings?.length > 0 && h("div", { class: "why warn" }, document.warnings.slice(0, 3).join(" ")),
    document.characters === 0 &&
      document.state === "ready" &&
      h("div", { class: "why warn" }, `No text was found in it (${number(document.bytes)} bytes).`),
  );
}
