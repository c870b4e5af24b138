// The pages of an analysis: pictures that are fetched when they come into sight, with what is said about each.

import { fill, h } from "../dom.js";
import { analyses } from "../analyses.js";
import { number } from "../format.js";
import { icon } from "./icons.js";

const ZOOMS = [0.4, 0.7, 1, 1.5, 2.2, 3.2];

export class PageStrip {
  #pages = new Map(); // number -> {number, label, note, error, picture}
  #places = new Map(); // number -> {place, said, picture, shown}
  #told = new Set(); // numbers the server has spoken of
  #zoom = ZOOMS.indexOf(1);
  #turn = 0;

  constructor(analysis) {
    this.analysis = analysis;
    this.about = h("span", { class: "small faint" });
    this.list = h("ol", { class: "pagelist" });
    this.canvas = h(
      "div",
      { class: "pagecanvas", tabindex: "0", role: "region", "aria-label": "Pictures of the pages" },
      this.list,
    );
    this.smaller = this.#step("Smaller", "zoomout", -1);
    this.larger = this.#step("Larger", "zoomin", 1);
    this.element = h(
      "section",
      { class: "pagestrip", "aria-labelledby": "pages-title" },
      h(
        "header",
        { class: "row spread" },
        h("div", { class: "row" }, h("h2", { id: "pages-title" }, "Pages"), this.about),
        h("div", { class: "row zoom" }, this.smaller, this.larger),
      ),
      this.canvas,
    );
  }

  #step(label, sign, by) {
    const run = () => {
      if (!ZOOMS[this.#zoom + by]) return;
      this.#zoom += by;
      const middle = (this.canvas.scrollTop + this.canvas.clientHeight / 2) / this.canvas.scrollHeight;
      this.canvas.style.setProperty("--zoom", ZOOMS[this.#zoom]);
      this.canvas.scrollTop = middle * this.canvas.scrollHeight - this.canvas.clientHeight / 2;
      this.#limits();
    };
    return h(
      "button",
      { type: "button", class: "iconbutton little", "aria-label": `${label} pages`, title: label, onclick: run },
      icon(sign),
    );
  }

  #limits() {
    this.smaller.setAttribute("aria-disabled", String(this.#zoom === 0));
    this.larger.setAttribute("aria-disabled", String(this.#zoom === ZOOMS.length - 1));
  }

  // How many there are; `drawn` when their pictures may be asked for already.
  expect(count, drawn) {
    for (let each = 1; each <= (count ?? 0); each += 1)
      if (!this.#told.has(each))
        this.#put({ number: each, label: `Page ${each}`, note: "", error: null, picture: drawn });
    this.element.hidden = this.#pages.size === 0;
  }

  // What there is to say about one.
  tell(page) {
    this.#told.add(page.number);
    this.#put(page);
  }

  #put(page) {
    const before = this.#pages.get(page.number);
    if (before && ["label", "note", "error", "picture"].every((name) => before[name] === page[name])) return;
    this.#pages.set(page.number, page);
    let line = this.#places.get(page.number);
    if (!line) {
      line = {
        place: h("li"),
        said: h("div", { class: "said" }),
        picture: h("div", { class: "pagepicture" }),
        shown: false,
      };
      fill(line.place, line.said, line.picture);
      this.#places.set(page.number, line);
      const next = [...this.#places.keys()].filter((each) => each > page.number).sort((a, b) => a - b)[0];
      this.list.insertBefore(line.place, this.#places.get(next)?.place ?? null);
    }
    this.#say(line, page);
    if (page.picture && !line.shown) this.#show(line, page);
    line.picture.hidden = !page.picture;
    this.element.hidden = false;
    this.about.textContent = number(this.#pages.size);
  }

  #say({ place, said }, { label, note, error }) {
    place.classList.toggle("bad", Boolean(error));
    fill(
      said,
      h("h3", null, label),
      note && h("p", { class: "small soft" }, note),
      error && h("p", { class: "small wrong" }, icon("warn"), h("span", null, error)),
    );
  }

  #show(line, { number, label }) {
    line.shown = true;
    line.picture.classList.add("loading");
    const image = h("img", { loading: "lazy", decoding: "async", alt: `${label} of ${this.analysis.name}` });
    image.onload = () => line.picture.classList.remove("loading");
    image.onerror = () => {
      line.shown = false; // it may be there once the page is told of again
      line.picture.hidden = true;
    };
    image.src = analyses.pageUrl(this.analysis.id, number, this.#turn || null);
    fill(line.picture, image);
  }

  // Another attempt begins: what was said before is void.
  restart() {
    this.#turn += 1;
    this.#pages.clear();
    this.#told.clear();
    this.#places.clear();
    fill(this.list);
    this.element.hidden = true;
  }
}
