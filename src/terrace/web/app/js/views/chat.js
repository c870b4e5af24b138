// The conversation: its visible branch, the answer being written, the composer, the sources.

import { fill, h } from "../dom.js";
import { api } from "../api.js";
import { path, readdress, title } from "../router.js";
import { connection } from "../connection.js";
import { can } from "../session.js";
import { models } from "../parts/answering.js";
import { composer } from "../parts/composer.js";
import { ask, watch } from "../parts/generation.js";
import { firstRun, ideas, quoteBanner, readersWelcome } from "../parts/guide.js";
import { icon } from "../parts/icons.js";
import { answerMessage, userMessage } from "../parts/message.js";
import { refresh as refreshSidebar } from "../parts/sidebar.js";
import { peek, sourcesPanel, sourcesSheet, viewSource, wide } from "../parts/sources.js";
import { attempt, toast } from "../parts/toast.js";
import { tree } from "../parts/tree.js";
import { Unsent } from "../parts/unsent.js";
import { onUploaded } from "../parts/uploads.js";

const NEAR = 80; // pixels from the end within which new text keeps the end in sight

export async function chatView(main, { id }, { signal }) {
  const chat = new Chat(main, signal);
  chat.opening = id ? chat.load(id) : null;
  await (chat.opening ?? chat.welcome());
}

class Chat {
  conversation = null;
  opening = null; // settles when the conversation of the address is here
  unsent = new Unsent();
  #drawn = new Map(); // message id -> {key, element, stream}
  #watched = new Map(); // message id -> AbortController
  #panelFor = null; // a message id, or "closed"
  #latest = null; // the last answer drawn
  #sending = false;

  constructor(main, signal) {
    this.signal = signal;
    this.messages = h("div", { class: "messages" });
    this.scroller = h(
      "div",
      { class: "scroller", tabindex: "0", role: "region", "aria-label": "Conversation" },
      this.messages,
    );
    this.composer = composer({ send: (text, options) => this.send(text, options), stop: () => this.stop(), signal });
    this.banner = quoteBanner(signal);
    this.bottom = h(
      "button",
      {
        type: "button",
        class: "iconbutton tobottom",
        "aria-label": "To the end",
        hidden: true,
        onclick: () => this.toEnd(true),
      },
      icon("down"),
    );
    this.panel = sourcesPanel(() => this.showPanel(null));
    this.name = h("h1", { class: "quiet" });
    this.element = h(
      "div",
      { class: "chat" },
      this.name,
      h(
        "div",
        { class: "talkpane" },
        this.scroller,
        h("div", { class: "dockplace" }, this.bottom),
        h(
          "div",
          { class: "dock" },
          can("chat") && [
            this.banner,
            this.composer.element,
            h("p", { class: "hint" }, "Answers can be wrong. Open the sources."),
          ],
        ),
      ),
      this.panel.element,
    );
    fill(main, this.element);
    this.entitle("");
    this.scroller.addEventListener(
      "scroll",
      () => {
        this.bottom.hidden = this.atEnd(NEAR * 3);
        peek(null);
      },
      { passive: true },
    );
    addEventListener(
      "keydown",
      (event) => {
        if (
          event.key === "Escape" &&
          !event.defaultPrevented &&
          !document.querySelector("dialog[open], .menu") &&
          this.running()
        )
          this.stop();
      },
      { signal },
    );
    addEventListener(
      "renamed",
      (event) => {
        if (event.detail.id === this.conversation?.id) this.entitle(event.detail.title);
      },
      { signal },
    );
    signal.addEventListener("abort", () => {
      for (const each of this.#watched.values()) each.abort();
      peek(null);
    });
    connection.onReturn(() => this.refresh(), signal);
    addEventListener("focus", () => this.refresh(), { signal }); // another tab may have gone on with it
  }

  async welcome() {
    if (!can("chat")) {
      fill(this.messages, readersWelcome());
      return;
    }
    if (matchMedia("(hover: hover)").matches) this.composer.focus();
    onUploaded(() => this.greet().catch(() => {}), this.signal);
    await this.greet();
  }

  // What stands where there is no conversation yet; whoever asks before it is here keeps the place.
  async greet() {
    const [found, talks, answer] = await Promise.all([
      api.documents({ limit: 5 }, this.signal),
      api.conversations({ limit: 1 }, this.signal),
      models().catch(() => null),
    ]);
    if (this.conversation || this.#sending || this.unsent.elements.length || this.signal.aborted) return;
    const first = !found.items.length || !talks.items.length;
    fill(
      this.messages,
      first
        ? firstRun({ documents: found.items.length, answering: answer, focus: () => this.composer.focus() })
        : ideas({ documents: found.items, write: (text) => this.composer.write(text) }),
    );
  }

  async load(id) {
    const conversation = await api.conversation(id, this.signal);
    if (this.signal.aborted) return;
    this.conversation = conversation;
    this.entitle(conversation.title);
    this.draw();
  }

  // Reads the conversation again without moving what is being read.
  async refresh() {
    const id = this.conversation?.id;
    if (!id || this.#sending) return;
    try {
      const conversation = await api.conversation(id, this.signal);
      if (this.#sending || this.running() || this.signal.aborted) return;
      this.conversation = conversation;
      this.draw({ end: false });
    } catch {
      /* gone or away; the next thing done here tells */
    }
  }

  entitle(text) {
    title(text);
    this.name.textContent = text;
    this.name.hidden = !text; // the welcome has a heading of its own
  }

  get tree() {
    return tree(this.conversation.messages, this.conversation.head_id);
  }

  draw({ end = true } = {}) {
    const branch = this.tree;
    const stay = this.atEnd();
    const fresh = new Map();
    for (const message of branch.path) {
      const place = branch.place(message);
      const key = [message.state, place.index, place.count, message.html?.length, message.sources?.length].join();
      const old = this.#drawn.get(message.id);
      const kept = old && (old.key === key || (message.state === "running" && this.#watched.has(message.id)));
      fresh.set(
        message.id,
        kept ? old : { key, ...(message.role === "user" ? userMessage : answerMessage)(message, place, this.acts) },
      );
    }
    this.#drawn = fresh;
    for (const [id, line] of this.#watched)
      if (!fresh.has(id)) {
        line.abort();
        this.#watched.delete(id);
      } // on another branch now
    const elements = [...[...fresh.values()].map((each) => each.element), ...this.unsent.elements];
    const focused = this.messages.contains(document.activeElement);
    if (
      elements.length !== this.messages.childElementCount ||
      elements.some((each, index) => this.messages.children[index] !== each)
    )
      fill(this.messages, elements);
    if (focused && !this.messages.contains(document.activeElement)) elements.at(-1)?.focus({ preventScroll: true });
    for (const message of branch.path) if (message.state === "running") this.follow(message);
    this.composer.setBusy(Boolean(this.running()));
    const last = branch.path.findLast((message) => message.role === "assistant");
    if (last?.state !== "running" && (this.#panelFor !== "closed" || last?.id !== this.#latest))
      this.showPanel(last?.sources?.length ? last : null);
    this.#latest = last?.id;
    if (end || stay) this.toEnd();
  }

  running() {
    return this.conversation && this.tree.path.findLast((message) => message.state === "running");
  }

  async follow(message) {
    if (this.#watched.has(message.id)) return;
    const line = new AbortController();
    this.#watched.set(message.id, line);
    const view = this.#drawn.get(message.id).stream;
    const stick =
      (run) =>
      (...given) => {
        const stay = this.atEnd();
        const result = run(...given);
        if (stay) this.toEnd();
        return result;
      };
    const stream = Object.fromEntries(Object.entries(view).map(([name, run]) => [name, stick(run)]));
    message.content = "";
    try {
      await watch(message, stream, {
        signal: line.signal,
        sources: (sources) => {
          if (wide.matches) this.showPanel({ id: message.id, sources });
        },
      });
    } catch (error) {
      toast(error.message, { error: true });
    }
    if (this.#watched.get(message.id) === line) this.#watched.delete(message.id);
    if (line.signal.aborted || this.signal.aborted) return;
    await this.settle(message, stream);
  }

  // What the server keeps is the truth: read it once more when an answer is over.
  async settle(message, stream) {
    const conversation = await attempt(() => api.conversation(this.conversation.id, this.signal));
    if (!conversation) return;
    this.conversation = conversation;
    Object.assign(
      message,
      conversation.messages.find((each) => each.id === message.id),
    );
    const drawn = this.#drawn.get(message.id);
    if (drawn) {
      stream.finish();
      const place = this.tree.place(conversation.messages.find((each) => each.id === message.id) ?? message);
      drawn.key = [message.state, place.index, place.count, message.html?.length, message.sources?.length].join();
    }
    this.draw({ end: false });
    this.entitle(conversation.title);
    refreshSidebar();
  }

  async send(text, options, extra = {}) {
    try {
      await this.opening; // who is quicker than the network goes on with this conversation, too
    } catch {
      return false; // the place where it would be shown says why
    }
    this.unsent.forget();
    const before = [...this.messages.children];
    if (!this.conversation) fill(this.messages);
    const waiting = [
      userMessage({ id: "sending", content: text }, { count: 1 }, {}).element,
      answerMessage({ id: "answering", state: "running", model: "Terrace" }, { count: 1 }, {}).element,
    ];
    if (!extra.parent_id) {
      this.messages.append(...waiting);
      this.toEnd(true);
    }
    this.composer.setBusy(true);
    this.#sending = true;
    try {
      const started = await ask(
        {
          message: text,
          ...options,
          ...(this.conversation ? { conversation_id: this.conversation.id } : {}),
          ...extra,
        },
        this.signal,
      );
      if (this.signal.aborted) {
        refreshSidebar();
        return true;
      }
      const fresh = !this.conversation;
      await this.load(started.conversation_id);
      if (fresh && path() === "/") readdress(`/chat/${started.conversation_id}`);
      refreshSidebar();
      return true;
    } catch (error) {
      if (this.signal.aborted) return true;
      fill(this.messages, before);
      if (!this.conversation && !before.length) this.greet().catch(() => {});
      this.composer.setBusy(false);
      if (error.limit && !extra.parent_id) return this.refuse(text, options, error.limit);
      toast(error.message, { error: true });
      return false;
    } finally {
      this.#sending = false;
    }
  }

  // There is no room for it now.
  refuse(text, options, limit) {
    if (!this.conversation) {
      fill(this.messages);
      this.entitle("New chat");
    }
    const again = () => this.send(text, options);
    const edit = () => {
      this.composer.write(text);
      if (this.conversation) return;
      this.entitle("");
      this.greet().catch(() => {});
    };
    this.messages.append(...this.unsent.show(text, limit, { again, edit, signal: this.signal }));
    this.toEnd();
    return true;
  }

  async stop() {
    const message = this.running();
    if (message?.job_id) await attempt(() => api.cancelJob(message.job_id));
  }

  acts = {
    edit: (message, text) => this.send(text, this.composer.options(), { parent_id: message.id }),
    again: async (message) => {
      if (this.running()) return;
      const { model } = this.composer.options();
      if (
        await attempt(() =>
          api.regenerate(this.conversation.id, { message_id: message.id, ...(model ? { model } : {}) }),
        )
      )
        await attempt(() => this.load(this.conversation.id));
    },
    switchTo: async (message, step) => {
      const leaf = this.tree.beside(
        this.tree.path.find((each) => each.id === message.id),
        step,
      );
      if (!leaf) return;
      this.conversation.head_id = leaf.id;
      this.draw({ end: false });
      const shown = this.tree.path.find((each) => (each.parent_id ?? null) === (message.parent_id ?? null));
      document.getElementById(shown?.id)?.querySelector(".siblings button:not(:disabled)")?.focus();
      await attempt(() => api.changeConversation(this.conversation.id, { head_id: leaf.id }));
    },
    sources: (message) => (wide.matches ? this.showPanel(message) : sourcesSheet(message.sources)),
    cite: (message, n) => {
      const source = message.sources?.find((each) => each.n === n);
      if (!source) return;
      if (wide.matches) {
        this.showPanel(message);
        this.panel.light(n);
      }
      peek(null);
      viewSource(source);
    },
    peek: (message, n, mark) => {
      if (message && wide.matches && this.#panelFor === message.id) this.panel.light(n);
      else {
        this.panel.light(null);
        peek(
          message?.sources?.find((each) => each.n === n),
          mark,
        );
      }
    },
  };

  showPanel(message) {
    this.#panelFor = message ? message.id : "closed";
    this.panel.show(message?.sources ?? []);
    this.element.classList.toggle("with-sources", Boolean(message?.sources?.length));
  }

  atEnd(near = NEAR) {
    return this.scroller.scrollHeight - this.scroller.scrollTop - this.scroller.clientHeight < near;
  }

  toEnd(smooth = false) {
    this.scroller.scrollTo({
      top: this.scroller.scrollHeight,
      behavior: smooth && !this.running() ? "smooth" : "instant",
    }); // a growing answer outruns a smooth scroll
  }
}
