// A campaign's live board: how far it is, what it costs, its messages as they are written.

import { announce, fill, h } from "../dom.js";
import { campaigns } from "../campaigns.js";
import { money, number } from "../format.js";
import { navigate, title } from "../router.js";
import { follow } from "../stream.js";
import { id } from "../api.js";
import { ended, eta, OVER, sentence, spent, stateBadge } from "../parts/campaignwords.js";
import { ask, confirm } from "../parts/dialog.js";
import { icon } from "../parts/icons.js";
import { LetterDialog } from "../parts/letterdialog.js";
import { menuButton } from "../parts/menu.js";
import { FILTERS, MessageList } from "../parts/messagelist.js";
import { page } from "../parts/page.js";
import { progressBar } from "../parts/progressbar.js";
import { attempt, toast } from "../parts/toast.js";

export async function view(main, { id: key }, { signal }) {
  const campaign = await campaigns.get(key, signal);
  if (campaign.state === "draft") {
    navigate(`/campaigns/new?draft=${id(key)}`, { replace: true });
    return;
  }
  await new Board(main, campaign, signal).show();
}

const ACTIVE = new Set(["scheduled", "preparing", "running", "paused"]);

class Board {
  #last = null; // the id of the event seen last
  #following = false;
  #again = false; // something began while the line was about to end
  #said = null; // the state that was announced
  #dialog = null;

  constructor(main, campaign, signal) {
    Object.assign(this, { main, campaign, signal });
    this.state = h("div", { class: "boardstate" });
    this.acts = h("div", { class: "row" });
    this.bar = progressBar("Messages", { big: true });
    this.figures = h("dl", { class: "figures boardfigures" });
    this.tabs = h("div", { class: "tabs", role: "group", "aria-label": "Which messages" });
    this.approve = h(
      "button",
      { type: "button", class: "button little", onclick: () => this.#approveAll() },
      icon("check"),
      "Approve all that are written",
    );
    this.list = new MessageList({ campaign: campaign.id, signal, open: (message) => this.#open(message) });
  }

  async show() {
    const { campaign } = this;
    const download = (label, params) => ({
      label,
      icon: "download",
      href: campaigns.exportUrl(campaign.id, params),
      download: "",
    });
    page(
      this.main,
      {
        name: campaign.name,
        actions: [
          menuButton(
            "Export",
            () => [
              download("CSV, all messages", { format: "csv" }),
              download("CSV, approved only", { format: "csv", approved: "true" }),
              download("JSONL, all messages", { format: "jsonl" }),
              download("JSONL, approved only", { format: "jsonl", approved: "true" }),
            ],
            { class: "button", face: [icon("download"), "Export"] },
          ),
          menuButton("More about this campaign", () => this.#more(), { class: "iconbutton" }),
        ],
      },
      h(
        "section",
        { class: "board", "aria-label": "Progress" },
        h("div", { class: "row spread boardhead" }, this.state, this.acts),
        this.bar.element,
        this.figures,
      ),
      h("div", { class: "toolbar spread" }, this.tabs, this.approve),
      h("div", { class: "page-body" }, this.list.note, this.list.element, h("div", { class: "row" }, this.list.more)),
    );
    this.#said = campaign.state;
    this.#draw();
    const live = ACTIVE.has(campaign.state);
    this.#drawTabs();
    await this.list.show("all", { live });
    if (live || campaign.counts.writing) this.#follow();
  }

  // -- live

  async #follow() {
    this.#again = true;
    if (this.#following) return;
    this.#following = true;
    const { signal } = this;
    try {
      while (this.#again && !signal.aborted) {
        this.#again = false;
        await follow(campaigns.eventsUrl(this.campaign.id), (event) => this.#take(event), { signal, last: this.#last });
        if (!signal.aborted) this.#take({ type: "campaign", data: await campaigns.get(this.campaign.id, signal) });
      }
    } catch (error) {
      if (!this.signal.aborted) toast(error.message, { error: true });
    } finally {
      this.#following = false;
    }
  }

  #take({ id: at, type, data }) {
    if (at) this.#last = at;
    if (type === "message") {
      this.list.take(data);
      this.#dialog?.update(data);
    } else if (type === "progress") this.#progress(data);
    else if (type === "state" || type === "campaign") {
      Object.assign(this.campaign, data);
      this.#draw();
      if (type === "campaign" || !OVER.has(data.state)) this.#say();
    } else if (type === "done") {
      this.#progress(data);
      return true;
    }
    return false;
  }

  // Each state once, and its end with what came of it.
  #say() {
    if (this.#said !== this.campaign.state) announce(sentence(this.campaign));
    this.#said = this.campaign.state;
  }

  #progress({ done, failed, skipped, writing, total, cost, per_second, eta: left }) {
    const { counts } = this.campaign;
    Object.assign(counts, {
      done,
      failed,
      skipped,
      writing,
      total,
      waiting: total - done - failed - skipped - writing,
    });
    Object.assign(this.campaign, { cost, per_second, eta: left });
    this.#drawProgress();
  }

  // -- drawing

  #draw() {
    const { campaign } = this;
    const within = [...this.acts.children].indexOf(document.activeElement);
    fill(this.state, stateBadge(campaign), h("p", null, sentence(campaign)));
    fill(this.acts, this.#buttons());
    if (within >= 0) (this.acts.children[within] ?? this.acts.lastElementChild ?? this.main).focus();
    this.#drawProgress();
  }

  #buttons() {
    const { state, reason, counts } = this.campaign;
    const act = (label, sign, verb, look = "button") =>
      h("button", { type: "button", class: look, onclick: () => this.#act(verb) }, icon(sign), label);
    const broke = state === "paused" && reason?.code === "budget_exhausted";
    return [
      state === "running" && act("Pause", "pause", "pause"),
      broke &&
        h("button", { type: "button", class: "button primary", onclick: () => this.#budget() }, "Raise the budget"),
      state === "paused" && act("Resume", "play", "resume", broke ? "button" : "button primary"),
      state === "failed" && act("Start again", "play", "start", "button primary"),
      counts.failed > 0 &&
        ["finished", "paused", "running"].includes(state) &&
        act("Retry the failed", "redo", "retry"),
      ACTIVE.has(state) &&
        h("button", { type: "button", class: "button quietdanger", onclick: () => this.#cancel() }, "Cancel"),
    ].filter(Boolean);
  }

  #drawProgress() {
    const { campaign } = this;
    const { counts, budget, per_second: speed, state } = campaign;
    this.bar.show(counts);
    const left = counts.total - ended(counts);
    const cell = (name, value, note = "") =>
      h("div", null, h("dt", null, name), h("dd", null, value, note && h("small", null, note)));
    fill(
      this.figures,
      cell("Written", number(counts.done), `of ${number(counts.total)}`),
      cell("Failed", number(counts.failed), counts.skipped ? `${number(counts.skipped)} left out` : ""),
      cell("Left", number(left), eta(campaign)),
      cell(
        "Speed",
        state === "running" && speed !== null ? number(Math.round(speed * 10) / 10) : "–",
        "messages a second",
      ),
      cell("Cost", spent(campaign), budget === null ? "no budget" : `of ${money(budget)}`),
    );
    const words = this.state.querySelector("p");
    if (words.textContent !== sentence(campaign)) words.textContent = sentence(campaign);
  }

  #drawTabs() {
    const within = this.tabs.contains(document.activeElement);
    fill(
      this.tabs,
      Object.entries(FILTERS).map(([name, [label]]) =>
        h(
          "button",
          { type: "button", "aria-pressed": String(name === this.list.filter), onclick: () => this.#pick(name) },
          label,
        ),
      ),
    );
    if (within) this.tabs.querySelector("[aria-pressed=true]").focus();
    this.approve.hidden = this.list.filter !== "approval";
  }

  async #pick(filter) {
    await attempt(async () => {
      this.list.filter = filter;
      this.#drawTabs();
      await this.list.show(filter);
      this.list.live = !OVER.has(this.campaign.state); // what comes now is put on top
    });
  }

  // -- acts

  #more() {
    return [
      { label: "Rename", icon: "edit", run: () => this.#rename() },
      { label: "Set the budget", icon: "chart", run: () => this.#budget() },
      { label: "Delete", icon: "trash", bad: true, run: () => this.#remove() },
    ];
  }

  async #act(verb) {
    const campaign = await attempt(() => campaigns.act(this.campaign.id, verb));
    if (!campaign) return;
    this.#take({ type: "campaign", data: campaign });
    if (verb === "retry" && this.list.filter === "failed") await this.#pick("failed");
    if (!OVER.has(campaign.state) || campaign.counts.writing) this.#follow();
  }

  async #cancel() {
    const sure = await confirm({
      title: "Cancel this campaign?",
      text: "For good: no further message is written. What is written stays, and can be exported.",
      action: "Cancel the campaign",
    });
    if (sure) await this.#act("cancel");
  }

  async #approveAll() {
    const campaign = await attempt(
      () => campaigns.act(this.campaign.id, "approve"),
      "All that are written are approved",
    );
    if (!campaign) return;
    this.#take({ type: "campaign", data: campaign });
    await this.#pick("approval");
  }

  async #budget() {
    const { budget, id: key } = this.campaign;
    const told = await ask({
      title: "The budget",
      label: "Dollars; empty for none",
      value: budget === null ? "" : String(budget),
      hint: "Writing pauses before it is exceeded.",
      max: 12,
    });
    if (told === null) return;
    const dollars = told === "" ? null : Number(told.replace(",", "."));
    if (Number.isNaN(dollars)) {
      toast("A budget is an amount of dollars.", { error: true });
      return;
    }
    const campaign = await attempt(() => campaigns.change(key, { budget: dollars }), "Budget set");
    if (campaign) this.#take({ type: "campaign", data: campaign });
    const enough = dollars === null || dollars > (budget ?? Infinity);
    if (campaign?.state === "paused" && campaign.reason?.code === "budget_exhausted" && enough)
      await this.#act("resume");
  }

  async #rename() {
    const name = await ask({ title: "Rename the campaign", label: "Name", value: this.campaign.name });
    if (!name) return;
    const campaign = await attempt(() => campaigns.change(this.campaign.id, { name }), "Renamed");
    if (!campaign) return;
    this.#take({ type: "campaign", data: campaign });
    this.main.querySelector("h1").textContent = campaign.name;
    title(campaign.name);
  }

  async #remove() {
    const sure = await confirm({
      title: `Delete ${this.campaign.name}?`,
      text: "Its messages go with it. This can't be undone.",
      action: "Delete",
    });
    if (sure && (await attempt(() => campaigns.remove(this.campaign.id), "Campaign deleted"))) navigate("/campaigns");
  }

  #open(message) {
    this.#dialog = new LetterDialog(message, {
      over: this.campaign.state === "cancelled",
      beside: (each, way) => this.list.beside(each, way),
      changed: (each) => {
        this.list.put(each);
        if (each.state === "writing") this.#follow();
      },
      closed: (each) => {
        this.#dialog = null;
        this.list.focus(each);
      },
    });
    this.signal.addEventListener("abort", () => this.#dialog?.dialog.close(), { once: true });
  }
}
