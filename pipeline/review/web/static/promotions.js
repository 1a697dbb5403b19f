// Promotions are sent by script, so that a failure is said beside the form and the reason stays where it was typed. It
// also survives a reload and a new log-in in this window, until it is recorded.

import { keep, kept } from "./last.js";
import { post } from "./post.js";

const who = document.querySelector(".who").firstChild.textContent.trim(); // another person may use this tab later

for (const form of document.querySelectorAll("[data-decides]")) {
  const key = `promotion:${who}:${form.dataset.decides}`;
  const why = form.querySelector("[name=why]");
  const problem = form.querySelector("[data-problem]");
  let busy = false;

  const typed = kept(key);
  if (typed && !why.value) {
    why.value = typed;
    const folded = form.closest("details");
    if (folded) folded.open = true;
  }
  why.addEventListener("input", () => keep(key, why.value));

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (busy) return;
    busy = true;
    problem.hidden = true;
    try {
      await post(form.getAttribute("action"), new FormData(form, event.submitter));
      keep(key, "");
      window.location.reload();
    } catch (failure) {
      problem.textContent = failure.message;
      problem.hidden = false;
      busy = false;
    }
  });
}
