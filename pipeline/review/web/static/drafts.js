// What is typed and not signed. The server keeps it, a moment after each pause; until it has answered, and while it
// does not answer, this window keeps it (sessionStorage: it survives a reload and a log-in, and ends with the tab).

import { post } from "./post.js";

const FIELDS = ["outcome", "code", "text", "comment", "region"];
const PAUSE_MS = 700;
const AGAIN_MS = 5_000;

export class Drafts {
  // `room` is the element of the scan; `told(words)` is called when a draft of this window was put back.
  constructor(room, told) {
    this.room = room;
    this.key = `draft ${document.querySelector(".who").firstChild.textContent.trim()} ${room.dataset.scan}`;
    this.timer = null;
    this.closed = false; // signed: nothing is left to keep
    this.restore(told);
    for (const event of ["input", "change"]) {
      document.addEventListener(event, ({ target }) => target.form && target.form.id === "decide" && this.changed());
    }
    window.addEventListener("pagehide", () => this.pending && this.save(true));
    window.addEventListener("beforeunload", (event) => this.pending && this.failed && event.preventDefault());
  }

  form() {
    return document.getElementById("decide");
  }

  read() {
    const form = this.form();
    if (!form) return null;
    const data = new FormData(form);
    return Object.fromEntries(FIELDS.map((name) => [name, String(data.get(name) || "")]));
  }

  get pending() {
    return !this.closed && sessionStorage.getItem(this.key) !== null;
  }

  changed() {
    if (this.closed) return;
    const typed = this.read();
    if (!typed) return;
    sessionStorage.setItem(this.key, JSON.stringify(typed));
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.save(), PAUSE_MS);
  }

  async save(leaving = false) {
    clearTimeout(this.timer);
    const stored = sessionStorage.getItem(this.key);
    const form = this.form();
    if (this.closed || stored === null) return;
    const token = form ? new FormData(form).get("token") : "";
    try {
      await post(`${this.room.dataset.scan}/draft`, { ...JSON.parse(stored), token, csrf: this.room.dataset.csrf }, leaving ? { keepalive: true } : {});
      this.failed = false;
      if (sessionStorage.getItem(this.key) === stored) sessionStorage.removeItem(this.key);
    } catch (failure) {
      this.failed = true;
      if (!failure.reload) this.timer = setTimeout(() => this.save(), AGAIN_MS);
    }
  }

  // Put back what this window kept and the server did not.
  restore(told) {
    const stored = JSON.parse(sessionStorage.getItem(this.key) || "null");
    const form = this.form();
    if (!stored) return;
    if (form) {
      for (const name of FIELDS.filter((one) => one !== "outcome")) form.elements[name].value = stored[name];
      const radio = form.querySelector(`[name=outcome][value="${CSS.escape(stored.outcome)}"]`);
      if (radio) radio.checked = true;
      document.dispatchEvent(new Event("decision-shown"));
    }
    told("What you typed was kept, but it is not signed. Check it, then sign.");
    this.save();
  }

  // The server has the signature: there is nothing left to keep.
  end() {
    this.closed = true;
    clearTimeout(this.timer);
    sessionStorage.removeItem(this.key);
  }
}
