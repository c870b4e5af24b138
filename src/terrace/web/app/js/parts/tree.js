// The branches of a conversation: messages by parent, and the visible path that ends at the head.

export function tree(messages, head) {
  const byId = new Map(messages.map((message) => [message.id, message]));
  const children = new Map();
  for (const message of messages) {
    const parent = message.parent_id ?? null;
    children.set(parent, [...(children.get(parent) ?? []), message]);
  }

  const path = [];
  for (let each = byId.get(head); each; each = byId.get(each.parent_id)) path.unshift(each);

  const among = (message) => children.get(message.parent_id ?? null) ?? [message];

  return {
    path,
    place(message) {
      const all = among(message);
      return { index: all.indexOf(message), count: all.length };
    },
    // The newest leaf under the sibling `step` away: the head that shows it.
    beside(message, step) {
      const all = among(message);
      let leaf = all[all.indexOf(message) + step];
      for (let below = leaf && children.get(leaf.id); below?.length; below = children.get(leaf.id)) leaf = below.at(-1);
      return leaf ?? null;
    },
  };
}
