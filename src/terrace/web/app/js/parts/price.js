// What a model costs, as its operator sets it.

import { h } from "../dom.js";
import { accounts } from "../accounts.js";
import { modal } from "./dialog.js";
import { field, form, group } from "./form.js";
import { attempt, toast } from "./toast.js";

export function priceDialog(model, changed) {
  const amount = (label, name) =>
    field({ label, name, type: "number", min: 0, step: "any", inputmode: "decimal", autocomplete: "off" });
  const both = [amount("Input", "input"), amount("Output", "output")];
  const dialog = modal(
    `The price of ${model}`,
    h(
      "p",
      { class: "soft" },
      "In dollars for a million tokens, as the provider lists it. It counts from the next call on.",
    ),
    form({
      parts: [
        group(
          h(
            "div",
            { class: "pair" },
            both.map(({ element }) => element),
          ),
          ...both,
        ),
      ],
      action: "Set the price",
      cancel: () => dialog.close(),
      submit: async ({ input, output }) => {
        await accounts.setPrice(model, { input: Number(input), output: Number(output) });
        dialog.close();
        toast("Price set");
        await attempt(changed);
      },
    }),
  );
}
