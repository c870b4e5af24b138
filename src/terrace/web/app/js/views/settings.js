// Which model answers and why, how to connect another, what this installation is.

import { fill, h } from "../dom.js";
import { api } from "../api.js";
import { bytes, duration, number, plural } from "../format.js";
import { can, isLocal } from "../session.js";
import { follow } from "../stream.js";
import { chatModels, models, quotes } from "../parts/answering.js";
import { connectWays, doors } from "../parts/connect.js";
import { icon } from "../parts/icons.js";
import { page, section } from "../parts/page.js";
import { setTheme, theme } from "../parts/theme.js";
import { toast } from "../parts/toast.js";

export async function settingsView(main, _params, { signal }) {
  const [answer, status] = await Promise.all([models(true), api.status(signal)]);
  if (signal.aborted) return;
  page(
    main,
    {
      name: "Settings",
      lead: "Settings are environment variables or terrace.toml, read at the start. This page shows what is in force.",
    },
    h(
      "div",
      { class: "settings" },
      section(
        "answering",
        "Who answers",
        who(answer),
        providers(answer),
        can("operator") && ollama(answer) && pull(answer, signal),
      ),
      can("operator") && section("connect", "Connect a model", connectWays()),
      section("embedding", "Search", embedding(status)),
      section("looks", "Appearance", appearance()),
      section(
        "programs",
        "From programs",
        h(
          "p",
          { class: "soft" },
          "Everything this page does is the ",
          h("a", { href: "/docs" }, "HTTP API"),
          "; OpenAI's own SDKs work unchanged.",
        ),
        doors(location.origin),
      ),
      isLocal() && section("accounts", "Accounts", setUp()),
      section("about", "About", about(status)),
    ),
  );
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

const setUp = () =>
  h(
    "div",
    { class: "row spread" },
    h("p", { class: "soft" }, "Whoever uses this machine is its owner; nobody logs in."),
    h("a", { href: "/setup", class: "button" }, "Set up accounts"),
  );

function who(answer) {
  const { answering } = answer;
  if (!answering) return h("div", { class: "notice warn" }, icon("warn"), "No model can answer now.");
  return h(
    "div",
    { class: quotes(answer) ? "notice warn" : "notice good" },
    icon(quotes(answer) ? "info" : "check"),
    h(
      "div",
      null,
      h("p", null, h("b", null, answering.model)),
      h("p", null, answering.why),
      answering.advice && h("p", { class: "soft" }, withCode(answering.advice)),
    ),
  );
}

// `code` in a sentence of the server, as code.
const withCode = (text) => text.split("`").map((part, index) => (index % 2 ? h("code", null, part) : part));

function providers(answer) {
  const all = chatModels(answer);
  return h(
    "ul",
    { class: "providers" },
    answer.providers.map((provider) => {
      const own = all.filter((model) => model.provider === provider.name);
      const good = provider.state === "ok";
      return h(
        "li",
        null,
        h(
          "div",
          { class: "grow" },
          h("b", null, provider.name),
          h("span", { class: "faint small" }, [
            provider.kind === provider.name ? "" : ` ${provider.kind}`,
            provider.base_url && ` ${provider.base_url}`,
          ]),
          !good && provider.why && h("p", { class: "small soft" }, provider.why),
          own.length > 0 &&
            h(
              "details",
              { class: "small" },
              h("summary", { class: "soft" }, plural(own.length, "model")),
              h(
                "ul",
                null,
                own.map((model) =>
                  h(
                    "li",
                    { class: "soft" },
                    h("code", null, model.id),
                    model.size_bytes ? ` · ${bytes(model.size_bytes)}` : "",
                    model.context_tokens ? ` · ${number(model.context_tokens)} tokens` : "",
                  ),
                ),
              ),
            ),
        ),
        h("span", { class: good ? "badge good" : "badge warn" }, good ? "Reachable" : "Not reachable"),
      );
    }),
  );
}

const ollama = (answer) => answer.providers.find((provider) => provider.kind === "ollama" && provider.state === "ok");

function pull(answer, signal) {
  const { name } = ollama(answer);
  const input = h("input", {
    class: "field",
    "aria-label": "Model to fetch with Ollama",
    placeholder: "llama3.2",
    maxlength: 200,
    required: true,
  });
  const bar = h("i");
  const told = h("p", { class: "small soft", role: "status" });
  const progress = h("div", { class: "bar", hidden: true }, bar);
  const run = async (event) => {
    event.preventDefault();
    const wanted = input.value.trim();
    try {
      const job = await api.pull(wanted.startsWith(`${name}/`) ? wanted : `${name}/${wanted}`);
      progress.hidden = false;
      await follow(
        api.jobEventsUrl(job.id),
        ({ type, data }) => {
          if (type === "progress") {
            bar.style.width = `${data.total ? (100 * data.done) / data.total : 0}%`;
            told.textContent = `${data.note || "Fetching"}${data.total > 100 ? ` · ${bytes(data.done)} of ${bytes(data.total)}` : ""}`;
          }
          if (type === "error") told.textContent = data.message;
          return type === "done";
        },
        { signal },
      );
      const ended = await api.job(job.id, signal);
      progress.hidden = true;
      told.textContent =
        ended.state === "succeeded" ? `${wanted} is here.` : (ended.error?.message ?? "It was stopped.");
      if (ended.state === "succeeded") await models(true);
    } catch (error) {
      if (error.name !== "AbortError") toast(error.message, { error: true });
    }
  };
  return h(
    "div",
    null,
    h("h3", null, "Fetch a model with Ollama"),
    h(
      "form",
      { class: "inline-form", onsubmit: run },
      input,
      h("button", { type: "submit", class: "button" }, icon("download"), "Fetch"),
    ),
    progress,
    told,
  );
}

function embedding(status) {
  const { model, state, why } = status.embedding ?? {};
  const words = {
    ready: "in memory",
    unloaded: "resting; it loads by itself",
    absent: "not available: search goes by words alone",
  };
  return h(
    "div",
    { class: state === "absent" ? "notice warn" : "notice" },
    icon("search"),
    h(
      "div",
      null,
      h("p", null, h("b", null, model ?? "No embedding model"), ` ${words[state] ?? state ?? ""}`),
      why && h("p", { class: "soft" }, why),
    ),
  );
}

function appearance() {
  const group = h("div", { class: "tabs", role: "group", "aria-label": "Colours" });
  const paint = () =>
    fill(
      group,
      [
        ["system", "As the system"],
        ["light", "Light"],
        ["dark", "Dark"],
      ].map(([value, label]) =>
        h(
          "button",
          {
            type: "button",
            "aria-pressed": String(theme() === value),
            onclick: () => {
              setTheme(value);
              paint();
              group.querySelector("[aria-pressed=true]").focus();
            },
          },
          label,
        ),
      ),
    );
  paint();
  return h("div", null, group);
}

function about(status) {
  const jobs = status.jobs ?? {};
  const facts = {
    Version: status.version,
    "Running for": status.uptime !== undefined ? duration(status.uptime) : null,
    Documents: number(status.documents ?? 0),
    Passages:
      status.chunks !== undefined
        ? `${number(status.chunks)}, of which ${number(status.vectors ?? 0)} by meaning`
        : null,
    Jobs: `${number(jobs.running ?? 0)} running, ${number(jobs.queued ?? 0)} waiting, ${number(jobs.failed ?? 0)} failed`,
    Data: status.data,
  };
  return h(
    "dl",
    { class: "facts" },
    Object.entries(facts)
      .filter(([, value]) => value !== null && value !== undefined)
      .map(([name, value]) => [h("dt", null, name), h("dd", null, value)]),
  );
}
