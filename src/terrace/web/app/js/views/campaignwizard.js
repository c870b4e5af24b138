// Making a campaign, in four steps that can be gone back and forth. Nothing is lost on the way.

import { announce, fill, h } from "../dom.js";
import { navigate, readdress } from "../router.js";
import { CampaignDraft } from "../parts/campaigndraft.js";
import { confirm } from "../parts/dialog.js";
import { bad } from "../parts/form.js";
import { icon } from "../parts/icons.js";
import { limitNotice } from "../parts/limitwords.js";
import { page } from "../parts/page.js";
import { ContactsStep } from "../parts/wizardcontacts.js";
import { PreviewStep } from "../parts/wizardpreview.js";
import { RunStep } from "../parts/wizardrun.js";
import { TemplateStep } from "../parts/wizardtemplate.js";

const STEPS = [ContactsStep, TemplateStep, PreviewStep, RunStep];
const NAMES = ["Contacts", "Template", "Preview", "Run"];

export async function view(main, _params, { signal, search }) {
  const draft = new CampaignDraft();
  const key = search.get("draft");
  if (key && (await mayLeave(draft, key))) {
    const campaign = await draft.load(key, signal);
    if (campaign.state !== "draft") {
      draft.drop();
      navigate(`/campaigns/${key}`, { replace: true });
      return;
    }
    readdress("/campaigns/new");
  }
  await new Wizard(main, draft, signal).show();
}

// What was written for another campaign and is kept nowhere else would be gone.
async function mayLeave(draft, key) {
  const { campaign } = draft.now;
  if (campaign === key || !draft.begun || (campaign && !draft.changedText)) return true;
  const text =
    "You have begun another campaign here, whose text is not kept yet. To go on with this one, it is dropped.";
  return confirm({ title: "Drop what you began?", text, action: "Drop it and go on" });
}

class Wizard {
  #turn = null; // of the step that is shown

  constructor(main, draft, signal) {
    Object.assign(this, { draft, signal });
    this.steps = h("ol", { class: "wizardsteps", "aria-label": "Steps" });
    this.heading = h("h2", { tabindex: "-1" });
    this.body = h("div");
    this.told = h("div", { class: "told", role: "alert" });
    this.why = h("p", { class: "small soft", id: "wizard-why" });
    this.acts = h("div", { class: "row spread wizardacts" });
    this.anew = h("button", { type: "button", class: "button plain", onclick: () => this.#anew() }, "Begin anew");
    page(
      main,
      { name: "New campaign", lead: "One message for each contact of a list, written for them.", actions: [this.anew] },
      this.steps,
      h("section", { class: "wizard", "aria-label": "This step" }, this.heading, this.body, this.told, this.acts),
    );
    signal.addEventListener("abort", () => this.#turn?.abort());
  }

  async #anew() {
    const text = "What you wrote here is dropped. Lists and templates that were kept stay.";
    if (!(await confirm({ title: "Begin anew?", text, action: "Begin anew" }))) return;
    this.draft.drop();
    await this.show();
  }

  // How far one may go with what there is.
  get #furthest() {
    const { list, template, campaign, importing } = this.draft.now;
    if (!list || importing) return 0;
    return template && campaign && !this.draft.changedText ? 3 : 1;
  }

  async show({ moved = false } = {}) {
    this.#turn?.abort();
    const turn = new AbortController();
    this.#turn = turn;
    const at = Math.min(this.draft.now.step, this.#furthest);
    this.at = at;
    fill(this.told);
    this.step = new STEPS[at]({ draft: this.draft, signal: turn.signal, ready: () => this.#ready() });
    this.heading.textContent = this.step.heading;
    fill(this.body, this.step.element);
    this.#ready();
    if (moved) {
      this.heading.focus();
      announce(`Step ${at + 1} of 4: ${NAMES[at]}.`);
    }
    try {
      await this.step.show();
    } catch (error) {
      if (!turn.signal.aborted) this.#refuse(error);
    }
    if (!turn.signal.aborted) this.#ready();
  }

  #ready() {
    const { at, step } = this;
    if (!step) return;
    this.anew.hidden = !this.draft.begun;
    this.#drawSteps();
    this.why.textContent = step.problem;
    if (this.acts.dataset.at === String(at)) {
      this.next.setAttribute("aria-disabled", String(Boolean(step.problem)));
      return;
    }
    this.acts.dataset.at = at;
    this.next = h(
      "button",
      { type: "button", class: "button primary", "aria-describedby": "wizard-why", onclick: () => this.#forward() },
      step.action ? [icon("play"), step.action] : ["Next", icon("right")],
    );
    this.next.setAttribute("aria-disabled", String(Boolean(step.problem)));
    fill(
      this.acts,
      at > 0
        ? h("button", { type: "button", class: "button", onclick: () => this.#go(at - 1) }, icon("left"), "Back")
        : h("a", { class: "button plain", href: "/campaigns" }, icon("left"), "To the campaigns"),
      h("div", { class: "row" }, this.why, this.next),
    );
  }

  #drawSteps() {
    const focused = [...this.steps.querySelectorAll("button")].indexOf(document.activeElement);
    fill(
      this.steps,
      NAMES.map((name, index) =>
        h(
          "li",
          { class: index < this.at ? "past" : "" },
          h(
            "button",
            {
              type: "button",
              "aria-current": index === this.at && "step",
              disabled: index > Math.max(this.at, this.#furthest),
              onclick: () => (index > this.at ? this.#forward(index) : this.#go(index)),
            },
            h("span", { class: "n" }, index + 1),
            name,
          ),
        ),
      ),
    );
    if (focused >= 0) this.steps.querySelectorAll("button")[focused]?.focus();
  }

  #go(at) {
    this.draft.set({ step: at });
    return this.show({ moved: true });
  }

  async #forward(to = this.at + 1) {
    const { step, at } = this;
    if (step.problem) {
      announce(step.problem);
      return;
    }
    if (this.busy) return;
    this.busy = true;
    this.next.setAttribute("aria-disabled", "true");
    fill(this.told);
    let on = false;
    try {
      on = !step.next || (await step.next());
    } catch (error) {
      this.#refuse(error);
    } finally {
      this.busy = false; // the next step may be gone on from while it still loads what it offers
      this.#ready();
    }
    if (on) await this.#go(at === 0 ? Math.min(to, 1) : to);
  }

  #refuse(error) {
    if (error.name === "AbortError") return;
    fill(this.told, error.limit ? limitNotice(error.limit, { signal: this.signal }) : bad(error.message));
  }
}
