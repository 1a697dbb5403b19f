// The reading list by keyboard: a marked row that can be moved, opened, and survives reloading the list.

import { bind } from "./keys.js";
import { post } from "./post.js";
import { goBack } from "./last.js";

let after = null; // { scan, words }: the mark to restore after the list is reloaded, and a message

const rows = () => [...document.querySelectorAll("[data-row]")];

function marked() {
  return rows().findIndex((row) => row.getAttribute("aria-selected") === "true");
}

function mark(index) {
  const all = rows();
  if (!all.length) return;
  const wanted = all[Math.min(Math.max(index, 0), all.length - 1)];
  for (const row of all) row.removeAttribute("aria-selected");
  wanted.setAttribute("aria-selected", "true");
  wanted.querySelector("a").focus({ preventScroll: true });
  wanted.scrollIntoView({ block: "nearest" });
}

function open() {
  const row = rows()[Math.max(marked(), 0)];
  if (row) window.location.assign(row.dataset.href);
}

function turn(rel) {
  const link = document.querySelector(`#list a[rel=${rel}]`);
  if (link) link.click();
}

bind(["j", "ArrowDown"], "Reading list", "next scan", () => mark(marked() + 1));
bind(["k", "ArrowUp"], "Reading list", "previous scan", () => mark(marked() - 1));
bind("Home", "Reading list", "first scan of this page", () => mark(0));
bind("End", "Reading list", "last scan of this page", () => mark(Infinity));
bind(["Enter", "o"], "Reading list", "open the scan", open);
bind(["PageDown", "]"], "Reading list", "next page", () => turn("next"));
bind(["PageUp", "["], "Reading list", "previous page", () => turn("prev"));
// Assign the marked scan to oneself or the chosen reader, or end that assignment.
async function keep() {
  const row = rows()[marked()];
  if (!row) return tell("Mark a scan first, with j and k.");
  const to = document.getElementById("assignee")?.value || document.querySelector(".who").firstChild.textContent.trim();
  const what = row.dataset.kept === to ? "unassign" : "assign";
  const fields = { csrf: document.querySelector("[name=csrf]").value, to };
  const answer = await post(`${row.dataset.scan}/${what}`, fields).catch((failure) => tell(failure.message));
  if (!answer) return undefined;
  after = { scan: row.dataset.scan, words: await answer.text() };
  return window.htmx.ajax("GET", window.location.pathname + window.location.search, { target: "#list", swap: "outerHTML" });
}

function tell(words) {
  document.getElementById("list-words").textContent = words;
}

bind("a", "Reading list", "assign the scan, or end its assignment", keep);
document.querySelector("[data-keep]")?.addEventListener("click", keep);
bind("z", "Reading list", "go back to my last decision", goBack);
bind("/", "Reading list", "search", () => document.getElementById("search").focus());
bind("m", "Reading list", "only my scans, or everybody's", () => {
  const whose = document.getElementById("whose");
  whose.value = whose.value === "held" ? "" : "held";
  whose.dispatchEvent(new Event("change", { bubbles: true }));
});
bind(["1", "2", "3", "4", "5", "6", "7", "8"], "Reading list", "show a state", (event) => {
  const tab = document.querySelectorAll("[name=state]")[Number(event.key) - 1];
  if (tab) tab.click();
});

document.addEventListener("click", (event) => {
  const row = event.target.closest("[data-row]");
  if (row && !event.target.closest("a")) window.location.assign(row.dataset.href);
});

document.addEventListener("htmx:afterSettle", () => {
  const { words, counts } = document.getElementById("list").dataset;
  const shown = document.querySelectorAll(".tabs b");
  counts.split(";").forEach((count, place) => (shown[place].textContent = count));
  tell(after ? after.words : words);
  if (after) mark(rows().findIndex((row) => row.dataset.scan === after.scan));
  after = null;
});

// A picture that cannot be loaded says so; an empty frame would look like a black image.
function replaceMissing(picture) {
  picture.replaceWith(Object.assign(document.createElement("span"), { className: "none", textContent: "no picture" }));
}

document.addEventListener("error", (event) => event.target.matches?.(".picture img") && replaceMissing(event.target), true);
for (const picture of document.querySelectorAll(".picture img")) {
  if (picture.complete && !picture.naturalWidth && picture.currentSrc) replaceMissing(picture);
}

// A list that the browser brings back as it was left may show scans that are decided or taken by now.
window.addEventListener("pageshow", (event) => event.persisted && window.location.reload());
