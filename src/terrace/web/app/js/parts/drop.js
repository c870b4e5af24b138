// Files and folders dropped anywhere on the page.

import { h } from "../dom.js";
import { icon } from "./icons.js";
import { upload } from "./uploads.js";
import { toast } from "./toast.js";

const MOST = 1000;
let depth = 0;
let veil = null;
const LIBRARY = { says: "Drop to add to your documents", take: (files) => upload(files) };
let target = LIBRARY;

// What a drop belongs to now (`{collection, tags}`), as the view in charge says.
export const dropInto = (options, signal) =>
  takeDrops({ ...LIBRARY, take: (files) => upload(files, options()) }, signal);

// While the view is there, files dropped anywhere are given to `take(files)`; `says` stands on the veil.
export function takeDrops(taker, signal) {
  target = taker;
  signal.addEventListener("abort", () => {
    if (target === taker) target = LIBRARY;
  });
}

const carriesFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");

async function walk(entry, found) {
  if (found.length >= MOST) return;
  if (entry.isFile) {
    if (!entry.name.startsWith("."))
      found.push(
        await new Promise((resolve, reject) => {
          entry.file(resolve, reject);
        }),
      );
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    // a reader gives a hundred entries at a time
    const batch = await new Promise((resolve, reject) => {
      reader.readEntries(resolve, reject);
    });
    if (!batch.length) return;
    for (const each of batch) await walk(each, found);
  }
}

export async function filesOf(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files];
  const found = [];
  for (const entry of entries) await walk(entry, found);
  if (found.length >= MOST) toast(`Only the first ${MOST} files are taken at once.`);
  return found;
}

function lower() {
  depth = 0;
  veil?.remove();
  veil = null;
}

export function listen() {
  addEventListener("dragenter", (event) => {
    if (!carriesFiles(event)) return;
    depth += 1;
    veil ??= document.body.appendChild(h("div", { class: "dropveil" }, icon("upload"), target.says));
  });
  addEventListener("dragover", (event) => {
    if (carriesFiles(event)) event.preventDefault();
  });
  addEventListener("dragleave", () => {
    depth -= 1;
    if (depth <= 0) lower();
  });
  addEventListener("drop", async (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    lower();
    const { take } = target;
    take(await filesOf(event.dataTransfer));
  });
}

// A file picker behind a button.
export const pickFiles = (options = () => ({})) => chooseFiles((files) => upload(files, options()));

export function chooseFiles(take, { accept = null, multiple = true } = {}) {
  const input = h("input", { type: "file", multiple, accept, class: "quiet", "aria-hidden": "true", tabindex: "-1" });
  input.addEventListener("change", () => {
    take([...input.files]);
    input.remove();
  });
  input.addEventListener("cancel", () => input.remove());
  document.body.append(input);
  input.click();
}
