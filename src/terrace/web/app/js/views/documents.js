// The library: add, follow, filter, open, tag, search, delete.

import { debounce, fill, h } from "../dom.js";
import { api, items } from "../api.js";
import { watchJobs } from "../feed.js";
import { title } from "../router.js";
import { can, isLocal } from "../session.js";
import { ask, confirm } from "../parts/dialog.js";
import { documentLine } from "../parts/documentline.js";
import { dropInto, pickFiles } from "../parts/drop.js";
import { icon } from "../parts/icons.js";
import { searchPane } from "../parts/searchpane.js";
import { attempt, toast } from "../parts/toast.js";
import { onUploaded } from "../parts/uploads.js";
import { openViewer } from "../parts/viewer.js";

const FINAL = new Set(["succeeded", "failed", "cancelled"]);
const INGEST = /^knowledge\./;
const writes = () => can("documents:write");

export async function documentsView(main, _params, { signal, search }) {
  title("Documents");
  const library = new Library(main, signal, search);
  await library.load();
}

class Library {
  documents = [];
  collections = [];
  tags = [];
  jobs = new Map(); // document id -> its latest job
  following = null;
  collection = "";
  tag = "";
  #due = new Set(); // documents to read again
  #timer = null;
  #turn = 0;

  constructor(main, signal, search) {
    this.signal = signal;
    this.pane = search.get("tab") === "search" ? "search" : "files";
    this.query = search.get("q") ?? "";
    this.tabs = h("div", { class: "tabs", role: "group", "aria-label": "What to do here" });
    this.body = h("div", { class: "page-body" });
    this.list = h("ul", { class: "doclist", "aria-label": "Documents" });
    this.chips = h("div", { class: "row", role: "group", "aria-label": "Collections and tags" });
    this.find = h("input", {
      class: "field",
      type: "search",
      placeholder: "Find by name",
      "aria-label": "Find by name",
      oninput: debounce(180, () => attempt(() => this.load())),
    });
    this.more = h(
      "button",
      { type: "button", class: "button", hidden: true, onclick: () => attempt(() => this.load(true)) },
      "Show more",
    );
    fill(
      main,
      h(
        "div",
        { class: "page" },
        h(
          "header",
          null,
          h(
            "div",
            null,
            h("h1", null, "Documents"),
            h("p", null, "What answers are made from. A document can be asked as soon as its words are read."),
          ),
          writes() &&
            h(
              "button",
              { type: "button", class: "button primary", onclick: () => this.choose() },
              icon("upload"),
              "Add documents",
            ),
        ),
        h("div", { class: "toolbar spread" }, this.tabs),
        this.body,
      ),
    );
    this.drawPane();
    const options = () => ({ collection: this.collection || "default" });
    dropInto(options, signal);
    onUploaded((document) => {
      if (!document.duplicate) this.changed(document);
      this.loadGroups();
    }, signal);
    watchJobs({ job: (job) => this.follow(job), opened: () => this.load().catch(() => {}) }, signal);
  }

  choose() {
    pickFiles(() => ({ collection: this.collection || "default" }));
  }

  drawPane() {
    fill(
      this.tabs,
      [
        ["files", "Files"],
        ["search", "Try a search"],
      ].map(([key, label]) =>
        h(
          "button",
          {
            type: "button",
            "aria-pressed": String(this.pane === key),
            onclick: () => {
              this.pane = key;
              history.replaceState(null, "", key === "files" ? "/documents" : "/documents?tab=search");
              this.drawPane();
            },
          },
          label,
        ),
      ),
    );
    if (this.pane === "search") {
      fill(
        this.body,
        searchPane({
          query: this.query,
          signal: this.signal,
          filters: () => ({
            ...(this.collection ? { collections: [this.collection] } : {}),
            ...(this.tag ? { tags: [this.tag] } : {}),
          }),
        }),
      );
      this.body.querySelector("input")?.focus();
    } else
      fill(
        this.body,
        h("div", { class: "toolbar" }, h("div", { class: "searchfield" }, icon("search"), this.find), this.chips),
        this.list,
        h("div", { class: "row" }, this.more),
      );
  }

  async load(add = false) {
    const turn = (this.#turn += 1);
    const wanted = {
      collection: this.collection,
      tag: this.tag,
      q: this.find.value.trim(),
      limit: 50,
      cursor: add ? this.following : null,
    };
    const [answer] = await Promise.all([api.documents(wanted, this.signal), add ? null : this.loadGroups()]);
    if (turn !== this.#turn) return; // a newer question is on its way
    this.documents = add ? [...this.documents, ...answer.items] : answer.items;
    this.following = answer.next;
    this.draw();
  }

  async loadGroups() {
    try {
      const [collections, tags] = await Promise.all([api.collections(this.signal), api.tags(this.signal)]);
      this.collections = items(collections);
      this.tags = items(tags);
      this.drawChips();
    } catch {
      /* the list tells what is wrong */
    }
  }

  pick(collection, tag) {
    this.collection = collection;
    this.tag = tag;
    attempt(() => this.load());
  }

  drawChips() {
    const chip = (on, label, count, run, sign) =>
      h(
        "button",
        { type: "button", class: "chip", "aria-pressed": String(on), onclick: run },
        sign && icon(sign),
        h("span", { class: "clip" }, label),
        count !== undefined && h("span", { class: "faint nums" }, count),
      );
    const several = this.collections.length > 1 || this.tags.length > 0;
    const current = this.collections.find((each) => each.name === this.collection);
    fill(
      this.chips,
      several && chip(!this.collection && !this.tag, "All", undefined, () => this.pick("", "")),
      this.collections.length > 1 &&
        this.collections.map((each) =>
          chip(
            this.collection === each.name,
            each.name,
            each.documents,
            () => this.pick(this.collection === each.name ? "" : each.name, this.tag),
            "folder",
          ),
        ),
      this.tags.map((each) =>
        chip(
          this.tag === each.name,
          each.name,
          each.documents,
          () => this.pick(this.collection, this.tag === each.name ? "" : each.name),
          "tag",
        ),
      ),
      writes() &&
        h(
          "button",
          { type: "button", class: "button plain little", onclick: () => this.newCollection() },
          icon("plus"),
          "New collection",
        ),
      writes() &&
        current &&
        current.name !== "default" &&
        h(
          "button",
          { type: "button", class: "button plain little", onclick: () => this.dropCollection(current) },
          icon("trash"),
          `Delete ${current.name}`,
        ),
    );
  }

  async newCollection() {
    const name = await ask({
      title: "New collection",
      label: "Name",
      action: "Create",
      hint: "A question can be limited to a collection, and rag:<name> is a model on /v1.",
    });
    if (!name || !(await attempt(() => api.createCollection(name)))) return;
    this.pick(name, "");
  }

  async dropCollection(collection) {
    const sure = await confirm({
      title: `Delete “${collection.name}”?`,
      text: `The collection and its ${collection.documents} documents will be gone for good.`,
      action: "Delete all",
    });
    if (sure && (await attempt(() => api.deleteCollection(collection.id), "Collection deleted"))) this.pick("", "");
  }

  draw() {
    const filtered = this.collection || this.tag || this.find.value.trim();
    this.more.hidden = !this.following;
    if (this.documents.length) {
      fill(
        this.list,
        this.documents.map((document) => this.line(document)),
      );
      return;
    }
    fill(
      this.list,
      h(
        "li",
        null,
        filtered || !writes()
          ? h(
              "div",
              { class: "empty" },
              icon("search"),
              h("h2", null, filtered ? "Nothing matches" : "No documents yet"),
              h(
                "p",
                null,
                filtered ? "No document has this name, collection or tag." : "Somebody who may add them will.",
              ),
            )
          : h(
              "div",
              { class: "dropzone big" },
              icon("files"),
              h("h2", null, "Drop files or folders here"),
              h(
                "p",
                null,
                `PDF, Word, PowerPoint, Excel, web pages, Markdown, text, CSV, e-books and mail. They stay on this ${isLocal() ? "machine" : "server"}.`,
              ),
              h(
                "button",
                { type: "button", class: "button primary", onclick: () => this.choose() },
                icon("upload"),
                "Choose files",
              ),
            ),
      ),
    );
  }

  line(document) {
    return documentLine(document, this.jobs.get(document.id), {
      open: (each) => openViewer({ id: each.id, name: each.title || each.name }),
      changed: (each) => {
        this.changed(each);
        this.loadGroups();
      },
      gone: (each) => {
        this.documents = this.documents.filter((other) => other.id !== each.id);
        this.draw();
        this.loadGroups();
      },
      tag: (name) => this.pick(this.collection, name),
    });
  }

  changed(document) {
    const index = this.documents.findIndex((each) => each.id === document.id);
    if (index < 0) {
      if (this.tag || (this.collection && document.collection !== this.collection)) return;
      this.documents.unshift(document);
      this.draw();
      return;
    }
    this.documents[index] = document;
    this.repaint(document);
  }

  repaint(document) {
    const old = this.list.querySelector(`[data-id="${CSS.escape(document.id)}"]`);
    if (!old) return;
    const within = [...old.querySelectorAll("a, button")].indexOf(globalThis.document.activeElement);
    const fresh = this.line(document);
    old.replaceWith(fresh);
    if (within >= 0) fresh.querySelectorAll("a, button")[within]?.focus();
  }

  follow(job) {
    if (!INGEST.test(job.kind)) return;
    const document = this.documents.find((each) => each.id === job.payload?.document_id || each.job_id === job.id);
    if (!document) return;
    const before = this.jobs.get(document.id);
    this.jobs.set(document.id, job);
    if (FINAL.has(job.state) || before?.state !== job.state || before?.progress?.note !== job.progress?.note)
      this.later(document.id);
    this.repaint(document);
  }

  // Documents whose job moved are read again, at most every 400 ms, however many move at once.
  later(id) {
    this.#due.add(id);
    this.#timer ??= setTimeout(async () => {
      this.#timer = null;
      const due = [...this.#due].slice(0, 20);
      for (const each of due) this.#due.delete(each);
      try {
        for (const fresh of await Promise.all(
          due.map((each) =>
            api.document(each, this.signal).catch((error) => {
              if (error.status === 404) return null;
              throw error;
            }),
          ),
        ))
          if (fresh) this.changed(fresh);
      } catch (error) {
        if (error.name !== "AbortError") toast(error.message, { error: true });
      }
      if (this.#due.size && !this.signal.aborted) this.later(this.#due.values().next().value);
    }, 400);
  }
}
