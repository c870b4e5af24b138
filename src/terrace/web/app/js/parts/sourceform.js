// Adding a source, and changing one.

import { fill, h } from "../dom.js";
import { api, items } from "../api.js";
import { can } from "../session.js";
import { field, form, group } from "./form.js";
import { icon } from "./icons.js";
import { timing } from "./timing.js";

// Of each kind: its name, what it brings, its sign, how its place is asked for, and which bounds it has.
export const KINDS = {
  folder: {
    name: "Folder",
    brings: "Every file in a folder of the server",
    sign: "folder",
    label: "Folder",
    placeholder: "/srv/documents",
    hint: "Its whole path. The operator names the folders that may be read.",
    bounds: ["patterns", "watch"],
  },
  url: {
    name: "Page",
    brings: "One page or file of the web",
    sign: "link",
    label: "Address",
    placeholder: "https://example.org/handbook.pdf",
    hint: "Of the page or file itself.",
    bounds: [],
  },
  site: {
    name: "Site",
    brings: "The pages a site's first page or sitemap leads to",
    sign: "globe",
    label: "First page, or sitemap",
    placeholder: "https://example.org/sitemap.xml",
    hint: "Pages of this site alone are fetched, as its robots.txt allows.",
    bounds: ["patterns", "reach"],
  },
  feed: {
    name: "Feed",
    brings: "Each entry of an RSS or Atom feed",
    sign: "feed",
    label: "Address of the feed",
    placeholder: "https://example.org/feed.xml",
    hint: "Entries stay when they leave the feed.",
    bounds: [],
  },
};
export const signOf = (kind) => icon(KINDS[kind].sign);

const list = (text) => [...new Set(text.split(/[\n,]+/).map((each) => each.trim()))].filter(Boolean);
const count = (text) => (text === "" ? null : Number(text));

const plain = { required: false, autocomplete: "off", spellcheck: "false" };

function bounds(options = {}) {
  const include = field({
    ...plain,
    label: "Only what matches",
    name: "include",
    value: (options.include ?? []).join(", "),
    placeholder: "**/*.pdf, reports/**",
    hint: "Patterns of paths, separated by commas. Empty: everything.",
  });
  const exclude = field({
    ...plain,
    label: "Leave out",
    name: "exclude",
    value: (options.exclude ?? []).join(", "),
    placeholder: "drafts/**",
  });
  const number = (label, name, value, least) =>
    field({ ...plain, label, name, value: value ?? "", type: "number", min: least, step: 1, inputmode: "numeric" });
  const depth = number("Links followed", "depth", options.depth, 0);
  const pages = number("Pages at most", "pages", options.pages, 1);
  const reach = h("div", { class: "pair" }, depth.element, pages.element);
  const all = [include, exclude, depth, pages];
  const element = h(
    "details",
    { class: "more", open: all.some((each) => each.value !== "") },
    h("summary", null, "What to bring and what not"),
    include.element,
    exclude.element,
    reach,
  );
  const shown = (kind) => {
    element.hidden = !KINDS[kind].bounds.includes("patterns");
    reach.hidden = !KINDS[kind].bounds.includes("reach");
  };
  return { ...group(element, ...all), shown };
}

// Both of a change's and a new source's bounds.
const boundsOf = (kind, { include, exclude, depth, pages }) => ({
  ...(KINDS[kind].bounds.includes("patterns") ? { include: list(include), exclude: list(exclude) } : {}),
  ...(KINDS[kind].bounds.includes("reach") ? { depth: count(depth), pages: count(pages) } : {}),
});

const tagField = (tags = []) =>
  field({
    ...plain,
    label: "Tags",
    name: "tags",
    value: tags.join(", "),
    placeholder: "handbook, 2026",
    hint: "For what it brings, separated by commas.",
  });

function watchBox(on) {
  const input = h("input", { type: "checkbox", checked: on });
  const element = h(
    "label",
    { class: "check" },
    input,
    h("span", null, "Watch it", h("span", { class: "small faint" }, "Changes are brought within seconds")),
  );
  return { element, input };
}

const AT = {
  bad_folder: "location",
  folder_not_allowed: "location",
  bad_url: "location",
  private_target: "location",
  bad_name: "name",
  bad_pattern: "include",
  bad_bounds: "depth",
};

// `submit` gets the body of POST.
export function newSource({ submit, cancel, signal }) {
  const location = field({ label: "Folder", name: "location", ...plain, required: true, maxlength: 4096, hint: " " });
  const name = field({ ...plain, label: "Name", name: "name", maxlength: 200 });
  const collection = field({
    ...plain,
    label: "Collection",
    name: "collection",
    required: true,
    value: "default",
    maxlength: 100,
    list: "collections-known",
  });
  const tags = tagField();
  const known = h("datalist", { id: "collections-known" });
  if (can("documents:read"))
    api
      .collections(signal)
      .then((answer) => fill(known, items(answer).map((each) => h("option", { value: each.name }))))
      .catch(() => {}); // names to choose from are a courtesy
  const watch = watchBox(true);
  const limits = bounds();
  const when = timing({ byHand: true, signal });
  const kinds = h(
    "fieldset",
    { class: "formfield kindchoice" },
    h("legend", null, "What brings the documents"),
    Object.entries(KINDS).map(([value, { name: title, brings }], index) =>
      h(
        "label",
        null,
        h("input", { type: "radio", name: "kind", value, checked: index === 0, onchange: paint }),
        signOf(value),
        h("span", null, h("b", null, title), h("span", { class: "small faint" }, brings)),
      ),
    ),
  );
  const kind = () => kinds.querySelector("input:checked").value;

  function paint() {
    const { label, placeholder, hint, bounds: has } = KINDS[kind()];
    location.element.querySelector("label").textContent = label;
    location.label = label;
    location.input.placeholder = placeholder;
    location.fail("");
    location.element.querySelector(".faint").textContent = hint;
    watch.element.hidden = !has.includes("watch");
    limits.shown(kind());
  }
  paint();
  return form({
    parts: [
      kinds,
      location,
      watch.element,
      when,
      group(h("div", { class: "pair" }, name.element, collection.element), name, collection),
      known,
      tags,
      limits,
    ],
    action: "Add and look now",
    cancel,
    signal,
    at: { ...AT, ...when.at },
    submit: (values) =>
      submit({
        kind: kind(),
        location: values.location,
        name: values.name,
        collection: values.collection,
        tags: list(values.tags),
        watch: kind() === "folder" && watch.input.checked,
        ...boundsOf(kind(), values),
        ...when.times(),
      }),
  });
}

// `submit` gets the body of PATCH.
export function changedSource({ source, submit, cancel, signal }) {
  const name = field({ ...plain, label: "Name", name: "name", required: true, maxlength: 200, value: source.name });
  const tags = tagField(source.tags);
  const watch = watchBox(source.watch);
  const limits = bounds(source.options);
  limits.shown(source.kind);
  const before = JSON.stringify({ ...source.options });
  return form({
    parts: [name, source.kind === "folder" && watch.element, tags, limits],
    action: "Save",
    cancel,
    signal,
    at: AT,
    submit: (values) => {
      const options = { ...source.options, ...boundsOf(source.kind, values) };
      return submit({
        name: values.name,
        tags: list(values.tags),
        ...(source.kind === "folder" ? { watch: watch.input.checked } : {}),
        ...(JSON.stringify(options) === before ? {} : { options }), // other options read every page again
      });
    },
  });
}
