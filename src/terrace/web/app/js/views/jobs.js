// Everything that works in the background, live.

import { fill, h } from "../dom.js";
import { api, get } from "../api.js";
import { watchJobs } from "../feed.js";
import { ago, duration, exact, plural } from "../format.js";
import { title } from "../router.js";
import { can } from "../session.js";
import { follow } from "../stream.js";
import { drawer } from "../parts/dialog.js";
import { icon } from "../parts/icons.js";
import { attempt } from "../parts/toast.js";

const KINDS = {
  "chat.generate": "Answer",
  "knowledge.ingest": "Read a document",
  "knowledge.embed": "Learn the meaning of a document",
  "knowledge.batch": "Read a batch of files",
  "models.pull": "Fetch a model",
  "analysis.run": "Analyse a document",
  "contacts.import": "Import contacts",
  "databases.import": "Import contacts from a database",
  "campaign.preview": "Preview a campaign",
  "campaign.run": "Prepare a campaign",
  "campaign.message": "Write a campaign's message",
  "webhooks.deliver": "Tell a webhook",
  "source.run": "Look a source through",
  "index.reembed": "Learn all meanings anew",
  "index.health": "Check the index",
  "index.health.all": "Check every index",
  "library.tidy": "Tidy the library",
  "batch.run": "Answer a batch of requests",
};
const STATES = {
  queued: "Waiting its turn",
  waiting: "Waiting",
  running: "Running",
  succeeded: "Done",
  failed: "Failed",
  cancelled: "Cancelled",
};
const BADGES = { queued: "warn", waiting: "warn", running: "busy", succeeded: "good", failed: "bad", cancelled: "" };
const FILTERS = [
  ["", "All"],
  ["running", "Running"],
  ["queued", "Waiting"],
  ["succeeded", "Done"],
  ["failed", "Failed"],
  ["cancelled", "Cancelled"],
];
const FINAL = new Set(["succeeded", "failed", "cancelled"]);

// What jobs are about: names of documents, titles of conversations and so on, by id.
const names = new Map();
const ABOUT = ["document_id", "conversation_id", "analysis_id", "campaign_id", "source_id"];
const subject = ({ payload }) =>
  ABOUT.map((each) => names.get(payload?.[each])).find(Boolean) ?? payload?.name ?? payload?.model;

async function learnNames(signal) {
  const lists = await Promise.all([
    api.documents({ limit: 200 }, signal),
    api.conversations({ limit: 100 }, signal),
    ...["analyses", "campaigns", "sources"].filter(can).map((each) => get(`/api/${each}`, { limit: 100 }, signal)),
  ]);
  for (const each of lists.flatMap(({ items }) => items)) names.set(each.id, each.name ?? each.title);
}

export const kindName = (kind) => KINDS[kind] ?? kind;

export async function jobsView(main, _params, { signal, search }) {
  title("Jobs");
  let state = search.get("state") ?? "";
  let jobs = [];
  let following = null;
  const list = h("ul", { class: "joblist", "aria-label": "Jobs" });
  const tabs = h("div", { class: "tabs", role: "group", "aria-label": "Which jobs" });
  const more = h(
    "button",
    { type: "button", class: "button", hidden: true, onclick: () => attempt(() => load(true)) },
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
          h("h1", null, "Jobs"),
          h("p", null, "Reading, answering and fetching go on in the background, whatever happens to this page."),
        ),
      ),
      h("div", { class: "toolbar" }, tabs),
      list,
      h("div", { class: "row" }, more),
    ),
  );

  async function load(add = false) {
    const [answer] = await Promise.all([
      api.jobs({ state, limit: 50, cursor: add ? following : null }, signal),
      learnNames(signal),
    ]);
    jobs = add ? [...jobs, ...answer.items] : answer.items;
    following = answer.next;
    draw();
  }

  function draw() {
    fill(
      tabs,
      FILTERS.map(([value, label]) =>
        h(
          "button",
          {
            type: "button",
            "aria-pressed": String(value === state),
            onclick: () => {
              state = value;
              history.replaceState(null, "", state ? `/jobs?state=${state}` : "/jobs");
              attempt(() => load());
            },
          },
          label,
        ),
      ),
    );
    fill(list, jobs.map(line));
    if (!jobs.length)
      fill(
        list,
        h(
          "li",
          { class: "empty" },
          icon("jobs"),
          h("h2", null, "Nothing here"),
          h(
            "p",
            null,
            state ? "No job is in this state." : "Upload a document or ask a question, and its work will show here.",
          ),
        ),
      );
    more.hidden = !following;
  }

  function changed(job) {
    const index = jobs.findIndex((each) => each.id === job.id);
    const fits = !state || job.state === state;
    if (index >= 0) {
      if (fits) jobs[index] = job;
      else jobs.splice(index, 1);
    } else if (fits) jobs.unshift(job);
    if (!list.contains(document.activeElement) || document.activeElement === list) draw();
    else if (index >= 0 && fits) repaint(index, job);
    else draw();
  }

  // Keeps the focus where it is while a line changes under it.
  function repaint(index, job) {
    const old = list.children[index];
    const fresh = line(job);
    if (!old) return;
    const within = [...old.querySelectorAll("button")].indexOf(document.activeElement);
    old.replaceWith(fresh);
    if (within >= 0) (fresh.querySelectorAll("button")[within] ?? fresh.querySelector("button"))?.focus();
  }

  watchJobs({ job: changed, opened: () => load().catch(() => {}) }, signal);
  await load();
}

function words(job) {
  if (job.state === "queued") {
    const ahead = job.position ? `, ${job.position} ahead` : "";
    return `${STATES.queued}${ahead}${job.expected_wait > 1 ? `, about ${duration(job.expected_wait)}` : ""}`;
  }
  if (job.state === "waiting")
    return job.children && Object.keys(job.children).length
      ? `Waiting for ${count(job.children)}`
      : job.failures
        ? `Will try again ${ago(job.run_at)}`
        : `Starts ${ago(job.run_at)}`;
  if (job.state === "running" && job.progress?.note) return job.progress.note;
  if (job.dead) return "Failed for good";
  return STATES[job.state];
}

const count = (children) =>
  Object.entries(children)
    .map(([state, n]) => `${n} ${state}`)
    .join(", ");

function progress(job) {
  if (job.state !== "running") return null;
  const part = job.progress?.total ? job.progress.done / job.progress.total : 0;
  const bar = h("i");
  bar.style.width = `${part * 100}%`;
  return h(
    "div",
    {
      class: part ? "bar" : "bar unknown",
      role: "progressbar",
      "aria-label": kindName(job.kind),
      "aria-valuemin": 0,
      "aria-valuemax": 100,
      "aria-valuenow": part ? Math.round(part * 100) : null,
    },
    bar,
  );
}

function actions(job) {
  return h(
    "div",
    { class: "acts" },
    !FINAL.has(job.state) &&
      h(
        "button",
        {
          type: "button",
          class: "button little",
          disabled: job.cancel_requested,
          onclick: () => attempt(() => api.cancelJob(job.id)),
        },
        job.cancel_requested ? "Stopping" : "Cancel",
      ),
    (job.state === "failed" || job.state === "cancelled") &&
      h(
        "button",
        { type: "button", class: "button little", onclick: () => attempt(() => api.retryJob(job.id)) },
        "Retry",
      ),
  );
}

function line(job) {
  const tries = job.failures + job.crashes;
  return h(
    "li",
    null,
    h(
      "div",
      { class: "what" },
      h(
        "button",
        { type: "button", class: "clip", onclick: () => detail(job) },
        subject(job) ? `${kindName(job.kind)}: ${subject(job)}` : kindName(job.kind),
      ),
      h(
        "span",
        { class: "small faint", title: exact(job.created_at) },
        ago(job.created_at),
        tries > 0 && ` · ${plural(tries + (job.state === "failed" ? 0 : 1), "attempt")}`,
      ),
    ),
    h("div", { class: "how" }, h("span", { class: `badge ${BADGES[job.state]}` }, words(job)), progress(job)),
    actions(job),
    job.error && job.state !== "succeeded" && h("p", { class: "why" }, job.error.message),
  );
}

const took = (job) =>
  job.started_at && job.finished_at ? duration((new Date(job.finished_at) - new Date(job.started_at)) / 1000) : "";

function detail(job) {
  const stop = new AbortController();
  const log = h("ol", { class: "log" });
  const facts = h("dl", { class: "facts" });
  const acts = h("div");
  const show = (now) => {
    fill(
      facts,
      Object.entries({
        State: words(now),
        Kind: now.kind,
        Id: now.id,
        Created: exact(now.created_at),
        Started: exact(now.started_at),
        Ended: exact(now.finished_at),
        Took: took(now),
        Attempts: `${now.attempt} (${now.failures} failed, ${now.crashes} crashed)`,
        Reason: now.error?.message,
        Payload: JSON.stringify(now.payload),
      })
        .filter(([, value]) => value)
        .map(([name, value]) => [h("dt", null, name), h("dd", null, value)]),
    );
    fill(acts, actions(now));
  };
  show(job);
  const dialog = drawer(kindName(job.kind), acts, facts, h("h3", null, "Event log"), log);
  dialog.addEventListener("close", () => stop.abort());
  watchJobs(
    {
      job: (now) => {
        if (now.id === job.id) show(now);
      },
    },
    stop.signal,
  );
  follow(
    api.jobEventsUrl(job.id),
    (event) => {
      add(log, event);
      return event.type === "done";
    },
    { signal: stop.signal },
  ).catch((error) => log.append(h("li", null, error.message)));
}

// Pieces of text one after the other become one line.
function add(log, { id, type, data }) {
  const last = log.lastElementChild;
  if (type === "text" && last?.dataset.type === "text") {
    last.lastElementChild.append(data.text);
    return;
  }
  const told =
    type === "text"
      ? data.text
      : type === "progress"
        ? `${data.note || ""} ${data.done}/${data.total}`
        : JSON.stringify(data);
  log.append(
    h(
      "li",
      { data: { type } },
      h("code", null, id),
      h("span", null, type),
      h("span", { class: "text" }, told.length > 2000 ? `${told.slice(0, 2000)}…` : told),
    ),
  );
  while (log.childElementCount > 500) log.firstElementChild.remove();
}
