// Decisions by keyboard: a letter chooses the outcome, Enter signs and opens the next scan.

import { bind } from "./keys.js";
import { goBack, lastDecided, remember } from "./last.js";

const room = document.querySelector("[data-scan]");
let left = false;

const decide = () => document.getElementById("decide");

function go(where) {
  const link = document.querySelector(`[data-go="${where}"]`);
  if (link) window.location.assign(link.href);
}

function choose(key) {
  const radio = document.querySelector(`[data-key="${key}"]`);
  if (!radio) return;
  radio.checked = true;
  radio.focus();
}

function sign() {
  const form = decide();
  if (form && form.querySelector("[name=outcome]:checked")) form.requestSubmit();
  else if (form) form.querySelector("[name=outcome]").focus();
}

for (const [key, words] of [["c", "confirm"], ["d", "dismiss"], ["u", "unsure"], ["s", "second opinion"]]) {
  bind(key, "Decision", words, () => choose(key));
}
bind(["Enter", "Ctrl+Enter"], "Decision", "sign the chosen outcome", sign);
bind("n", "Decision", "write the finding", () => document.getElementById("text")?.focus());
bind("z", "Decision", "withdraw my decision; go back to the last one", () => {
  const undo = document.getElementById("undo");
  if (undo) undo.requestSubmit();
  else goBack();
});
bind("j", "Reading list", "next scan", () => go("next"));
bind("k", "Reading list", "previous scan", () => go("previous"));
bind("l", "Reading list", "back to the list", () => go("list"));

// After a decision, go on to the next scan, or reload to reveal what was hidden before it.
document.addEventListener("htmx:afterRequest", (event) => {
  const { requestConfig, successful, xhr } = event.detail;
  if (!successful || !xhr.getResponseHeader("X-Decided")) return;
  left = true;
  const decided = requestConfig.path.endsWith("/decision");
  remember(decided ? { path: room.dataset.scan, study: room.dataset.study } : null);
  if (decided && sessionStorage.getItem("stay") !== "1" && document.querySelector('[data-go="next"]')) go("next");
  else window.location.reload();
});

document.addEventListener("change", (event) => {
  if (event.target.id === "go-on") sessionStorage.setItem("stay", event.target.checked ? "0" : "1");
});

const last = lastDecided();
if (last && !last.told && last.path !== room.dataset.scan) {
  document.getElementById("last-words").textContent = last.study;
  document.getElementById("last-link").href = last.path;
  document.getElementById("last-decided").hidden = false;
  remember({ ...last, told: true }); // shown once; the key z still goes back later
}

const goOn = document.getElementById("go-on");
if (goOn) goOn.checked = sessionStorage.getItem("stay") !== "1";

// Renew the lease while the page is in use, and release it when the page is left undecided.
const KEEP_MS = 60_000;
const AWAY_MS = 5 * 60_000; // after so long without input, let the lease and the session expire
let moved = Date.now();
for (const sign of ["keydown", "pointermove", "wheel"]) document.addEventListener(sign, () => (moved = Date.now()));

function send(what) {
  const body = new URLSearchParams({ csrf: room.dataset.csrf });
  return fetch(`${room.dataset.scan}/${what}`, { method: "POST", body, keepalive: true, credentials: "same-origin" });
}

if (room.dataset.holds === "yes") {
  setInterval(async () => {
    if (document.visibilityState !== "visible" || left || Date.now() - moved > AWAY_MS) return;
    const answer = await send("hold").catch(() => null);
    if (answer && answer.status === 409) window.location.reload();
  }, KEEP_MS);
  window.addEventListener("pagehide", () => {
    if (!left) send("release").catch(() => {});
  });
}
