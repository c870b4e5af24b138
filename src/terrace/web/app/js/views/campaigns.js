// All campaigns, newest first, each with how far it is.

import { debounce, fill, h } from "../dom.js";
import { campaigns } from "../campaigns.js";
import { watchJobs } from "../feed.js";
import { ago, exact, number } from "../format.js";
import { id } from "../api.js";
import { ended, OVER, sentence, spent, stateBadge } from "../parts/campaignwords.js";
import { CampaignDraft } from "../parts/campaigndraft.js";
import { confirm } from "../parts/dialog.js";
import { icon } from "../parts/icons.js";
import { menuButton } from "../parts/menu.js";
import { page } from "../parts/page.js";
import { progressBar } from "../parts/progressbar.js";
import { attempt } from "../parts/toast.js";

const TOGETHER = 50;

export async function view(main, _params, { signal }) {
  const list = new CampaignList(signal);
  const begun = new CampaignDraft().begun;
  page(
    main,
    {
      name: "Campaigns",
      lead: "A message for each contact of a list, written from your template and your documents, for you to export.",
      actions: [
        h(
          "a",
          { href: "/campaigns/new", class: "button primary" },
          icon(begun ? "edit" : "plus"),
          begun ? "Go on with the new campaign" : "New campaign",
        ),
      ],
    },
    list.element,
    h("div", { class: "row" }, list.more),
  );
  await list.load();
  const again = debounce(700, () => list.load().catch(() => {}));
  watchJobs({ job: (job) => job.kind.startsWith("campaign.") && again(), opened: again }, signal);
}

const address = (campaign) =>
  campaign.state === "draft" ? `/campaigns/new?draft=${id(campaign.id)}` : `/campaigns/${id(campaign.id)}`;

class CampaignList {
  #campaigns = [];
  #next = null;
  #shown = TOGETHER;

  constructor(signal) {
    this.signal = signal;
    this.element = h("ul", { class: "lines campaignlist", "aria-label": "Campaigns" });
    this.more = h(
      "button",
      { type: "button", class: "button", hidden: true, onclick: () => attempt(() => this.#further()) },
      "Show more",
    );
  }

  // What is shown, anew.
  async load() {
    const limit = Math.min(200, Math.max(TOGETHER, this.#shown));
    const { items, next } = await campaigns.list({ limit }, this.signal);
    const kept = this.#campaigns.slice(items.length);
    this.#campaigns = [...items, ...kept];
    if (!kept.length) this.#next = next;
    this.#draw();
  }

  async #further() {
    const { items, next } = await campaigns.list({ limit: TOGETHER, cursor: this.#next }, this.signal);
    this.#campaigns.push(...items);
    this.#next = next;
    this.#shown = this.#campaigns.length;
    this.#draw();
  }

  #draw() {
    if (this.element.querySelector("[aria-expanded=true]")) return; // a menu hangs from it
    const within = [...this.element.querySelectorAll("a, button")].indexOf(document.activeElement);
    this.more.hidden = !this.#next;
    fill(this.element, this.#campaigns.length ? this.#campaigns.map((each) => this.#line(each)) : nothing());
    if (within >= 0) this.element.querySelectorAll("a, button")[within]?.focus();
  }

  #line(campaign) {
    const { counts } = campaign;
    return h(
      "li",
      null,
      h(
        "div",
        { class: "grow" },
        h(
          "p",
          { class: "row" },
          h("a", { class: "name", href: address(campaign) }, campaign.name),
          stateBadge(campaign),
        ),
        h("p", { class: "small soft" }, sentence(campaign)),
        !OVER.has(campaign.state) && counts.total > 0 && progressBar(campaign.name).show(counts).element,
      ),
      h(
        "dl",
        { class: "small campaignfacts" },
        counts.total > 0 && [
          h("dt", null, "Written"),
          h("dd", { class: "nums" }, `${number(ended(counts))} of ${number(counts.total)}`),
        ],
        h("dt", null, "Cost"),
        h("dd", { class: "nums" }, spent(campaign)),
        h("dt", null, "Made"),
        h("dd", { title: exact(campaign.created_at) }, ago(campaign.created_at)),
      ),
      menuButton(`More about ${campaign.name}`, () => [
        { label: campaign.state === "draft" ? "Go on with it" : "Open", icon: "open", href: address(campaign) },
        counts.done > 0 && {
          label: "Export CSV",
          icon: "download",
          href: campaigns.exportUrl(campaign.id),
          download: "",
        },
        { label: "Delete", icon: "trash", bad: true, run: () => this.#remove(campaign) },
      ]),
    );
  }

  async #remove(campaign) {
    const sure = await confirm({
      title: `Delete ${campaign.name}?`,
      text: "Its messages go with it. This can't be undone.",
      action: "Delete",
    });
    if (!sure || !(await attempt(() => campaigns.remove(campaign.id), "Campaign deleted"))) return;
    this.#campaigns = this.#campaigns.filter((each) => each !== campaign);
    this.#draw();
  }
}

const nothing = () =>
  h(
    "li",
    { class: "empty" },
    icon("letters"),
    h("h2", null, "No campaigns yet"),
    h("p", null, "Upload a table of people, write what each shall be told, look at five, and start."),
    h("a", { href: "/campaigns/new", class: "button" }, "Make the first"),
  );
