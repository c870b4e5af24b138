// A campaign that is being made: kept in this browser until it is started, for whoever makes it alone.

import { remember } from "../dom.js";
import { campaigns, contacts, templates } from "../campaigns.js";
import { session } from "../session.js";

const owner = () => `${session().tenant?.id ?? ""}/${session().user?.id ?? ""}`;
const TEXTS = ["body", "mode", "system", "knowledge_query"];

const fresh = () => ({
  by: owner(),
  key: [...crypto.getRandomValues(new Uint8Array(12))].map((each) => each.toString(16).padStart(2, "0")).join(""),
  step: 0,
  list: null, // {id, name, contacts}
  importing: null, // {job_id, list}
  template: null, // {id, name, version, text}
  templateName: "",
  text: { body: "", mode: "write", system: "", knowledge_query: "" },
  lacking: 0,
  model: "",
  collection: "",
  campaign: null, // its id
  previewed: null, // what the preview was made of
  budget: "",
  concurrency: "",
});

export class CampaignDraft {
  constructor() {
    const kept = remember.get("campaigndraft");
    this.now = kept?.by === owner() ? kept : fresh();
  }

  set(values) {
    Object.assign(this.now, values);
    remember.set("campaigndraft", this.now);
  }

  drop() {
    remember.set("campaigndraft", null);
    this.now = fresh();
  }

  get begun() {
    const { list, importing, text, template } = this.now;
    return Boolean(list || importing || text.body || template);
  }

  // Goes on with a campaign that was made before. `step`: where.
  async load(key, signal) {
    const campaign = await campaigns.get(key, signal);
    if (this.now.campaign === key) return campaign;
    const [{ items: lists }, template] = await Promise.all([
      contacts.lists(signal),
      templates.get(campaign.template_id, campaign.template_version, signal).catch(() => null),
    ]);
    this.now = fresh();
    this.set({
      campaign: key,
      step: template ? 2 : 1,
      list: lists.find((each) => each.id === campaign.list_id) ?? null,
      template: template && { id: template.id, name: template.name, version: template.version, text: textOf(template) },
      text: template ? textOf(template) : this.now.text,
      model: campaign.model ?? "",
      collection: campaign.collection ?? "",
      budget: campaign.budget ?? "",
      concurrency: campaign.concurrency,
    });
    this.set({ previewed: campaign.preview && this.basis });
    return campaign;
  }

  // What messages are made of; a preview of anything else is old.
  get basis() {
    const { list, template, model, collection } = this.now;
    return JSON.stringify([list?.id, template?.id, template?.version, model, collection]);
  }

  get changedText() {
    const { template, text } = this.now;
    return !template || TEXTS.some((name) => (template.text[name] ?? "") !== (text[name] ?? ""));
  }

  // The text as a template, a new version of the one it began with.
  async keepTemplate() {
    const { template, text, templateName } = this.now;
    if (!this.changedText) return;
    const kept = template
      ? await templates.change(template.id, text)
      : await templates.create({ name: templateName, ...text });
    this.set({
      template: { id: kept.id, name: kept.name, version: kept.version, text: textOf(kept) },
      text: textOf(kept),
    });
  }

  // The campaign as a draft on the server.
  async keepCampaign() {
    const { list, template, model, collection, key, campaign } = this.now;
    const body = {
      list_id: list.id,
      template_id: template.id,
      template_version: template.version,
      collection,
      ...(model ? { model } : {}),
    };
    if (campaign) {
      try {
        return await campaigns.change(campaign, body);
      } catch (error) {
        if (error.status !== 404) throw error;
        this.set({ campaign: null, previewed: null, key: fresh().key });
        return this.keepCampaign();
      }
    }
    const made = await campaigns.create(body, key);
    this.set({ campaign: made.id });
    return made;
  }
}

const textOf = (template) => Object.fromEntries(TEXTS.map((name) => [name, template[name]]));
