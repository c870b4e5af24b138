// How to connect a model, and how to reach this server from programs: snippets to copy.

import { h } from "../dom.js";
import { isLocal } from "../session.js";
import { icon } from "./icons.js";
import { copy } from "./toast.js";

export function snippet(text, label) {
  return h(
    "div",
    { class: "snippet" },
    h("pre", { tabindex: "0", "aria-label": label }, h("code", null, text)),
    h(
      "button",
      { type: "button", class: "iconbutton little", "aria-label": `Copy: ${label}`, onclick: () => copy(text) },
      icon("copy"),
    ),
  );
}

const way = (name, open, ...inside) => h("details", { open }, h("summary", null, name), h("div", null, ...inside));

export function connectWays() {
  return h(
    "div",
    { class: "ways" },
    way(
      "Ollama, on this machine",
      true,
      h("p", { class: "soft" }, "Install Ollama and fetch a model; Terrace finds it by itself."),
      snippet("ollama pull llama3.2\nmake run", "Ollama commands"),
      h("p", { class: "small faint" }, "Ollama elsewhere: set TERRACE_MODELS__OLLAMA_URL=http://other-machine:11434."),
    ),
    way("OpenAI", false, snippet("OPENAI_API_KEY=sk-… make run", "OpenAI settings")),
    way("Anthropic", false, snippet("ANTHROPIC_API_KEY=sk-ant-… make run", "Anthropic settings")),
    way(
      "Any OpenAI-compatible server (vLLM, llama.cpp, LM Studio, Groq, OpenRouter…)",
      false,
      h("p", { class: "soft" }, "Give it a name; its models are then called name/model."),
      snippet(
        "export TERRACE_MODELS__PROVIDERS__MINE__KIND=openai\nexport TERRACE_MODELS__PROVIDERS__MINE__BASE_URL=http://localhost:8080/v1\nexport TERRACE_MODELS__PROVIDERS__MINE__API_KEY=…\nmake run",
        "Settings of another server",
      ),
    ),
  );
}

// Where people have accounts, programs say who they are.
export function doors(origin) {
  const key = isLocal() ? null : "trc_…";
  const header = key ? ` \\\n  -H 'Authorization: Bearer ${key}'` : "";
  return h(
    "div",
    { class: "ways" },
    way(
      "curl",
      true,
      snippet(
        `curl ${origin}/api/chat${header} -H 'Content-Type: application/json' \\\n  -d '{"message": "What does the contract say about notice?"}'\n\ncurl ${origin}/api/documents/upload${header} -F file=@contract.pdf`,
        "curl examples",
      ),
    ),
    way(
      "OpenAI SDK for Python",
      false,
      snippet(
        `from openai import OpenAI\n\nclient = OpenAI(base_url="${origin}/v1", api_key="${key ?? "none"}")\nanswer = client.chat.completions.create(\n    model="rag:default",\n    messages=[{"role": "user", "content": "What does the contract say about notice?"}],\n)\nprint(answer.choices[0].message.content)`,
        "OpenAI SDK example",
      ),
    ),
    way(
      "Command line",
      false,
      snippet(
        'terrace ingest ~/papers\nterrace ask "What does the contract say about notice?"',
        "Command line examples",
      ),
    ),
  );
}
