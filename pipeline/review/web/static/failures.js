// A part of a page that could not be loaded is said, with a way to try again.

import { NO_ANSWER } from "./post.js";

const box = document.getElementById("failure");

function say(words) {
  document.getElementById("failure-words").textContent = words;
  box.hidden = false;
}

document.getElementById("failure-again").addEventListener("click", () => window.location.reload());
document.addEventListener("htmx:sendError", () => say(NO_ANSWER));
document.addEventListener("htmx:timeout", () => say(NO_ANSWER));
document.addEventListener("htmx:responseError", (event) => {
  const { status } = event.detail.xhr;
  if (status !== 401) say(`This part of the page could not be loaded: the server answered ${status}.`);
});
document.addEventListener("htmx:afterRequest", (event) => {
  if (event.detail.successful) box.hidden = true;
});
