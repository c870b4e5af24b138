// The last step: what will happen, in words, and the button.

import { fill, h } from "../dom.js";
import { campaigns } from "../campaigns.js";
import { money, number, plural } from "../format.js";
import { navigate } from "../router.js";
import { estimated } from "./campaignwords.js";
import { field } from "./form.js";

export class RunStep {
  name = "Run";
  heading = "Ready";
  action = "Start";

  constructor({ draft, signal }) {
    Object.assign(this, { draft, signal, problem: "" });
    this.words = h("div", { class: "summary" });
    this.title = field({ label: "Name of the campaign", name: "name", maxlength: 200 });
    this.skip = h("input", { type: "checkbox", checked: false });
    this.skipping = h(
      "label",
      { class: "check" },
      this.skip,
      h(
        "span",
        null,
        "Leave out contacts that lack a value",
        h("span", { class: "small soft" }, "Otherwise the start is refused as long as somebody lacks one."),
      ),
    );
    this.at = field({ label: "Begin later", name: "start_at", type: "datetime-local", required: false });
    this.webhook = field({
      label: "Tell this address",
      name: "webhook",
      type: "url",
      required: false,
      placeholder: "https://",
      hint: "It is called, signed, for each message and at the end.",
    });
    this.element = h(
      "div",
      { class: "stepbody" },
      this.words,
      this.title.element,
      this.skipping,
      h("details", { class: "more" }, h("summary", null, "More"), this.at.element, this.webhook.element),
    );
  }

  async show() {
    const campaign = await campaigns.get(this.draft.now.campaign, this.signal);
    this.title.input.value = campaign.name;
    this.skip.checked = campaign.options?.incomplete === "skip";
    this.skipping.hidden = !this.draft.now.lacking && !this.skip.checked;
    this.webhook.input.value = campaign.webhook ?? "";
    fill(
      this.words,
      this.#sentences(campaign).map((text) => h("p", null, text)),
    );
  }

  #sentences({ mode, model, budget, concurrency, preview }) {
    const { list, template, collection, text, lacking } = this.draft.now;
    const how = mode === "fill" ? "the text itself, with its places filled," : `one message, written by ${model}`;
    const told = [
      `${plural(list.contacts, "contact")} of the list “${list.name}” ${list.contacts === 1 ? "gets" : "each get"} ${how} from the template “${template.name}”, version ${template.version}.`,
    ];
    if (text.body.includes("knowledge"))
      told.push(
        `For each, passages are looked up in ${collection ? `the collection “${collection}”` : "all your documents"}, and the message says which it rests on.`,
      );
    if (preview && this.draft.now.previewed === this.draft.basis) {
      const [figure] = estimated(preview.estimate, true);
      told.push(figure === "Unknown" ? "What it costs is unknown." : `It may cost ${figure}.`);
    }
    if (mode === "write")
      told.push(
        budget === null
          ? "There is no budget: nothing but your limits stops it."
          : `It pauses before it costs more than ${money(budget)}.`,
      );
    told.push(
      `${number(concurrency)} messages are written at a time. You can pause or cancel whenever you like, and nothing is sent: you export what is written.`,
    );
    if (lacking)
      told.push(
        `${plural(lacking, "contact")} ${lacking === 1 ? "lacks" : "lack"} a value that the template asks for.`,
      );
    return told;
  }

  async next() {
    const name = this.title.value;
    if (!name) {
      this.title.fail("Name of the campaign is missing.");
      this.title.input.focus();
      return false;
    }
    const key = this.draft.now.campaign;
    await campaigns.change(key, {
      name,
      options: { incomplete: this.skip.checked ? "skip" : "refuse" },
      start_at: this.at.value ? new Date(this.at.value).toISOString() : null,
      webhook: this.webhook.value || null,
    });
    try {
      await campaigns.act(key, "start");
    } catch (error) {
      if (error.code === "values_missing") this.skipping.hidden = false;
      throw error;
    }
    this.draft.drop();
    await navigate(`/campaigns/${key}`);
    return false;
  }
}
