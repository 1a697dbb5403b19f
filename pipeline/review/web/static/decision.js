// Decisions by keyboard: a letter chooses the outcome, Enter signs and opens the next scan.

import { Drafts } from "./drafts.js";
import { watchLengths } from "./lengths.js";
import { bind } from "./keys.js";
import { post } from "./post.js";
import { goBack, keep, kept, lastDecided, remember } from "./last.js";

const room = document.querySelector("[data-scan]");
let left = false;

const decide = () => document.getElementById("decide");

// Whether the pen is off the image: until then, what it draws is part of nothing yet.
const mayLeave = () => document.dispatchEvent(new Event("decision-leaving", { cancelable: true }));

// A key may be pressed while the other hand draws; it must not take the page away.
function whenDrawn(act) {
  if (mayLeave()) return act();
  const title = "NOT LEFT";
  notSigned("A line is being drawn. Finish it first: leaving now would lose it.", { title });
  const ended = () => document.getElementById("unsigned-title").textContent === title && (box.hidden = true);
  document.addEventListener("stroke-ended", ended, { once: true });
}

function go(where) {
  const link = document.querySelector(`[data-go="${where}"]`);
  if (link) window.location.assign(link.href);
}

function choose(key) {
  const radio = document.querySelector(`[data-key="${key}"]`);
  if (!radio) return;
  radio.checked = true;
  radio.focus({ preventScroll: true });
  radio.closest("label").scrollIntoView({ block: "nearest" }); // what is seen is the label
}

// A key that is held down signs once: when somebody else has decided meanwhile, their decision is to be read first.
function sign(event) {
  if (event.repeat) return;
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
  else whenDrawn(goBack);
});
bind("j", "Reading list", "next scan", () => whenDrawn(() => go("next")));
bind("k", "Reading list", "previous scan", () => whenDrawn(() => go("previous")));
bind("l", "Reading list", "back to the list", () => whenDrawn(() => go("list")));

// A form is sent by script, so that whatever goes wrong is said, and nothing that was typed leaves the page before the
// server has it.
const box = document.getElementById("unsigned");
let failed = null; // the form that could not be sent
let busy = false;

function notSigned(words, { title = "NOT SIGNED", reload = false } = {}) {
  document.getElementById("unsigned-title").textContent = title;
  document.getElementById("unsigned-words").textContent = words;
  box.querySelector("[data-retry]").hidden = reload || !failed;
  box.querySelector("[data-reload]").hidden = !reload;
  box.hidden = false;
}

const drafts = new Drafts(
  room,
  (words) => notSigned(words),
  (words, options) => notSigned(words, { title: failed?.id === "decide" ? "NOT SIGNED" : "NOT KEPT", ...options }),
);
watchLengths();

async function send(form) {
  if (busy) return;
  const isDecision = form.id === "decide";
  const title = isDecision ? "NOT SIGNED" : "NOT WITHDRAWN";
  if (!mayLeave()) return notSigned("A line is being drawn. Finish it first: it is not part of the decision yet.", { title });
  busy = true;
  const button = form.querySelector("button[type=submit]");
  button.disabled = true;
  button.dataset.words = button.textContent;
  const fields = new FormData(form);
  if (isDecision) fields.set("former", drafts.former.join(" "));
  const typedSince = isDecision ? drafts.signing() : () => false;
  try {
    const answer = await post(form.getAttribute("action"), fields);
    box.hidden = true;
    failed = null;
    if (answer.headers.get("X-Decided")) {
      if (!mayLeave()) await new Promise((ended) => document.addEventListener("stroke-ended", ended, { once: true }));
      return signed(isDecision, typedSince());
    }
    swap(await answer.text(), typedSince);
  } catch (failure) {
    failed = form;
    notSigned(isDecision ? drafts.explain(failure) : failure.message, { title, reload: failure.reload });
    if (isDecision) drafts.refused(Boolean(failure.status));
    if (isDecision) drafts.changed();
  } finally {
    busy = false;
    button.disabled = false;
  }
}

// Show the form that came back; what was typed while it was under way is put back into it.
function swap(text, typedSince) {
  const typed = typedSince() && drafts.read();
  const part = new DOMParser().parseFromString(text, "text/html").getElementById("decision");
  if (!part) return notSigned("The server sent an answer that is not this form. Load the page again.", { reload: true });
  document.getElementById("decision").replaceWith(part);
  document.getElementById("decision").scrollIntoView({ block: "nearest" });
  box.hidden = true;
  drafts.adopt();
  document.dispatchEvent(new Event("decision-shown"));
  if (!typed) return;
  drafts.fill(typed);
  drafts.changed();
}

// After a decision, go on to the next scan, or reload to reveal what was hidden before it. What was typed while the
// signature was under way is not part of it: it stays as a draft, and the page with it.
function signed(decided, typedSince) {
  left = true;
  if (decided && typedSince) {
    drafts.changed();
    return window.location.reload();
  }
  if (decided) drafts.end();
  remember(decided ? { path: room.dataset.scan, study: room.dataset.study } : null);
  if (decided && kept("stay") !== "1" && document.querySelector('[data-go="next"]')) go("next");
  else window.location.reload();
}

document.addEventListener("submit", (event) => {
  if (!["decide", "undo"].includes(event.target.id)) return;
  event.preventDefault();
  send(event.target);
});
box.querySelector("[data-retry]").addEventListener("click", () => failed && send(document.getElementById(failed.id) || failed));
box.querySelector("[data-reload]").addEventListener("click", () => window.location.reload());

// The short text is of one line, but keeps the lines of what is pasted; Enter signs there, too.
document.addEventListener("keydown", (event) => {
  if (event.target.id !== "text" || event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (!event.repeat) event.target.form.requestSubmit();
});

// Logging out waits until the server has what is typed.
document.addEventListener("submit", (event) => {
  if (event.target.getAttribute("action") !== "/logout" || !drafts.pending) return;
  event.preventDefault();
  drafts.save().finally(() => event.target.submit());
});

// A page that the browser brings back as it was left holds a form that may be signed by now.
window.addEventListener("pageshow", (event) => event.persisted && window.location.reload());

document.addEventListener("change", (event) => {
  if (event.target.id === "go-on") keep("stay", event.target.checked ? "0" : "1");
});

const last = lastDecided();
if (last && !last.told && last.path !== room.dataset.scan) {
  document.getElementById("last-words").textContent = last.study;
  document.getElementById("last-link").href = last.path;
  document.getElementById("last-decided").hidden = false;
  remember({ ...last, told: true }); // shown once; the key z still goes back later
}

const goOn = document.getElementById("go-on");
if (goOn) goOn.checked = kept("stay") !== "1";

// Renew the lease while the page is in use, and release it when the page is left undecided.
const KEEP_MS = 60_000;
const AWAY_MS = 5 * 60_000; // after so long without input, let the lease and the session expire
let moved = Date.now();
for (const sign of ["keydown", "pointermove", "wheel"]) document.addEventListener(sign, () => (moved = Date.now()));

function tell(what, options = {}) {
  return post(`${room.dataset.scan}/${what}`, { csrf: room.dataset.csrf, opening: room.dataset.opening }, options);
}

async function renew() {
  if (document.visibilityState !== "visible" || left) return;
  try {
    await tell("hold");
  } catch (failure) {
    if (failure.status) notSigned(failure.message, { reload: true }); // held by another, or the session has ended
  }
}

if (room.dataset.holds === "yes") {
  setInterval(() => Date.now() - moved < AWAY_MS && renew(), KEEP_MS);
  document.addEventListener("visibilitychange", renew); // the lease may have ended while another tab was in front
  window.addEventListener("pagehide", () => tell("release", { keepalive: true }).catch(() => {}));
}
