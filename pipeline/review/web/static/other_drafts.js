// Texts for this scan that other windows of the same reader hold: shown beside the form, to be used or discarded.

function part(name, text, className = "") {
  return Object.assign(document.createElement(name), { textContent: text, className });
}

function button(words, act) {
  const made = Object.assign(part("button", words), { type: "button" });
  made.addEventListener("click", () => {
    made.disabled = true;
    Promise.resolve(act()).finally(() => (made.disabled = false));
  });
  return made;
}

function quote(one, use, discard) {
  const about = [one.age, one.outcome && one.outcome.replace("-", " "), one.region && "with a drawn region"];
  const block = part("blockquote", "", "kept-draft");
  block.append(part("p", about.filter(Boolean).join(", "), "dim"));
  if (one.text) block.append(part("p", one.text));
  if (one.comment) block.append(part("p", one.comment, "comment"));
  const acts = part("p", "", "acts");
  if (use) acts.append(button("Put this into the form", () => use(one)), " ");
  acts.append(button("Discard", () => discard(one)));
  block.append(acts);
  return block;
}

export function showOthers(drafts, use, discard) {
  const box = document.getElementById("other-drafts");
  if (!box) return;
  for (const old of box.querySelectorAll("blockquote")) old.remove();
  box.append(...drafts.map((one) => quote(one, use, discard)));
  box.hidden = !drafts.length;
}
