// Files on their way: at most three at a time, each with its progress, shown in a tray until dismissed.

import { h, fill, announce } from "../dom.js";
import { bytes, plural } from "../format.js";
import { watchJobs } from "../feed.js";
import { sendForm } from "../sendfile.js";
import { icon } from "./icons.js";
import { withNames } from "./limitwords.js";

const AT_A_TIME = 3;
const entries = [];
const changes = new EventTarget();
let running = 0;
let tray = null;
let watching = null;

// Runs `run(document)` whenever the server has taken a file.
export const onUploaded = (run, signal) =>
  changes.addEventListener("uploaded", (event) => run(event.detail), { signal });

export function upload(files, { collection = "default", tags = [] } = {}) {
  for (const file of files) entries.push({ file, collection, tags, state: "waiting", part: 0, note: "", row: null });
  if (files.length) announce(`Uploading ${plural(files.length, "file")}.`);
  pump();
  draw();
}

function pump() {
  for (const entry of entries) {
    if (running >= AT_A_TIME) return;
    if (entry.state === "waiting") send(entry);
  }
}

async function send(entry) {
  running += 1;
  entry.state = "sending";
  try {
    const { document } = await posted(entry);
    entry.document = document;
    entry.state = document.duplicate ? "duplicate" : document.state === "ready" ? "ready" : "reading";
    if (entry.state === "reading") watch();
    changes.dispatchEvent(new CustomEvent("uploaded", { detail: document }));
  } catch (error) {
    entry.state = "failed";
    entry.note = withNames(error.message);
    announce(`${entry.file.name}: ${entry.note}`);
  }
  running -= 1;
  pump();
  draw();
}

function posted(entry) {
  const form = new FormData();
  form.append("collection", entry.collection);
  if (entry.tags.length) form.append("tags", entry.tags.join(","));
  form.append("file", entry.file, entry.file.name);
  const progress = (part) => {
    entry.part = part;
    paint(entry);
  };
  return sendForm("/api/documents/upload", form, { progress });
}

function watch() {
  if (watching) return;
  watching = new AbortController();
  watchJobs(
    {
      job: (job) => {
        const entry = entries.find(
          (each) => each.document && (each.document.job_id === job.id || each.document.id === job.payload?.document_id),
        );
        if (!entry || entry.state !== "reading") return;
        if (job.state === "succeeded") entry.state = "ready";
        else if (job.state === "failed" || job.state === "cancelled") {
          entry.state = "failed";
          entry.note = job.error?.message ?? "Reading was stopped.";
        } else {
          entry.note = job.progress?.note || (job.state === "queued" ? "Waiting its turn" : "Reading");
          entry.part = job.progress?.total ? job.progress.done / job.progress.total : 0;
        }
        paint(entry);
        heading();
        if (!entries.some((each) => ["reading", "sending", "waiting"].includes(each.state))) {
          watching?.abort();
          watching = null;
          const failed = entries.filter((each) => each.state === "failed").length;
          announce(failed ? `${plural(failed, "file")} could not be read.` : "All files are read.");
        }
      },
    },
    watching.signal,
  );
}

const WORDS = {
  waiting: "Waiting",
  sending: "Uploading",
  reading: "Reading",
  ready: "Ready to be asked",
  duplicate: "Already here",
  failed: "Failed",
};

function paint(entry) {
  if (!entry.row) return;
  entry.row.className = entry.state === "failed" ? "first" : "";
  const busy = entry.state === "sending" || entry.state === "reading";
  const words =
    entry.state === "sending"
      ? `${Math.round(entry.part * 100)}% of ${bytes(entry.file.size)}`
      : entry.state === "reading"
        ? entry.note || "Reading"
        : WORDS[entry.state];
  const bar = h("i");
  bar.style.width = `${entry.part * 100}%`;
  fill(
    entry.row,
    h(
      "div",
      { class: "line" },
      h("span", { class: "clip", title: entry.file.name }, entry.file.name),
      h("span", { class: entry.state === "failed" ? "bad" : "faint" }, words),
    ),
    busy && h("div", { class: entry.part ? "bar" : "bar unknown", "aria-hidden": "true" }, bar),
    entry.state === "failed" &&
      h(
        "div",
        { class: "line" },
        h("span", { class: "bad" }, entry.note),
        !entry.document &&
          h(
            "button",
            {
              type: "button",
              class: "button little",
              onclick: () => {
                entry.state = "waiting";
                entry.part = 0;
                pump();
                draw();
              },
            },
            "Retry",
          ),
      ),
  );
}

function heading() {
  if (!tray) return;
  const left = entries.filter((entry) => entry.state === "waiting" || entry.state === "sending").length;
  const reading = entries.filter((entry) => entry.state === "reading").length;
  const failed = entries.filter((entry) => entry.state === "failed").length;
  const text = left
    ? `Uploading ${entries.length - left + 1} of ${entries.length}`
    : reading
      ? `Reading ${plural(reading, "file")}`
      : failed
        ? `${plural(failed, "file")} failed`
        : `${plural(entries.length, "file")} done`;
  tray.querySelector("h2").textContent = text;
}

function draw() {
  if (!entries.length) {
    tray?.remove();
    tray = null;
    return;
  }
  if (!tray) {
    tray = h(
      "section",
      { class: "tray", "aria-label": "Uploads" },
      h(
        "header",
        null,
        h("h2", { class: "grow small" }),
        h(
          "button",
          { type: "button", class: "iconbutton little", "aria-label": "Close uploads", onclick: dismiss },
          icon("close"),
        ),
      ),
      h("ul", { tabindex: "0", "aria-label": "Uploaded files" }),
    );
    document.body.append(tray);
  }
  for (const entry of entries) {
    if (!entry.row) {
      entry.row = h("li");
      tray.querySelector("ul").append(entry.row);
    }
    paint(entry);
  }
  heading();
}

// Hides what is over; what is still on its way goes on and comes back when it changes.
function dismiss() {
  for (let index = entries.length - 1; index >= 0; index -= 1) {
    const { state, row } = entries[index];
    if (state !== "waiting" && state !== "sending") {
      row?.remove();
      entries.splice(index, 1);
    }
  }
  draw();
}

addEventListener("beforeunload", (event) => {
  if (running) event.preventDefault();
});
