// Keyboard shortcuts: one table, displayed by the help dialog.

const table = new Map();
const NAMES = { ArrowUp: "↑", ArrowDown: "↓", PageUp: "Page ↑", PageDown: "Page ↓", ArrowLeft: "←", ArrowRight: "→" };

// Bind a key ("j", "?", "ArrowUp", "Shift+N"). `group` and `says` are shown in the help.
export function bind(keys, group, says, run) {
  const entry = { keys: [].concat(keys), group, says, run };
  for (const key of entry.keys) table.set(key, entry);
}

function typing(target) {
  return target.matches && target.matches("input:not([type=radio]):not([type=checkbox]):not([type=range]), textarea, select");
}

function nameOf(event) {
  const shift = event.shiftKey && event.key.length > 1 ? "Shift+" : "";
  return (event.ctrlKey ? "Ctrl+" : "") + shift + event.key;
}

document.addEventListener("keydown", (event) => {
  if (event.altKey || event.metaKey || event.defaultPrevented) return;
  const dialog = document.querySelector("dialog[open]");
  if (dialog) return;
  if (event.key === "Escape" && typing(event.target)) {
    event.target.blur();
    return;
  }
  const found = table.get(nameOf(event));
  if (!found || (typing(event.target) && !event.ctrlKey)) return;
  if (event.key === "Enter" && event.target.closest("a, button, summary")) return;
  event.preventDefault();
  found.run(event);
});

function row({ keys, says }) {
  const line = document.createElement("tr");
  const left = document.createElement("td");
  for (const key of keys) {
    const cap = document.createElement("kbd");
    cap.textContent = key.replace("Shift+", "⇧ ").replace(/Arrow\w+|Page\w+/, (name) => NAMES[name]);
    left.append(cap, " ");
  }
  const right = document.createElement("td");
  right.textContent = says;
  line.append(left, right);
  return line;
}

export function help() {
  const dialog = document.getElementById("help");
  const place = dialog.querySelector("[data-keys]");
  place.replaceChildren();
  const groups = new Map();
  for (const entry of new Set(table.values())) groups.set(entry.group, [...(groups.get(entry.group) || []), entry]);
  for (const [name, entries] of groups) {
    const section = document.createElement("section");
    const title = document.createElement("h3");
    title.textContent = name;
    const lines = document.createElement("table");
    lines.append(...entries.map(row));
    section.append(title, lines);
    place.append(section);
  }
  dialog.showModal();
}

bind("?", "Everywhere", "show these keys", help);
const opener = document.querySelector("[data-help]");
if (opener) opener.addEventListener("click", help);
