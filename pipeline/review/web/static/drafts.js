// What is typed and not signed. The server keeps it for each window by itself, a moment after each pause, so that no
// window overwrites another. This window keeps it as well (in memory, and in sessionStorage: it survives a reload and a
// log-in, and ends with the tab) until it is signed: the answer of a save may be lost, and a page may have been made
// before it. A reloaded window goes on under its name; a duplicated tab has a copy of the storage, but not the name.

import { post, read } from "./post.js";
import { showOthers } from "./other_drafts.js";

const FIELDS = ["outcome", "code", "text", "comment", "region"];
const PAUSE_MS = 700;
const AGAIN_MS = 5_000;
const NEWER = "A newer text from another window is shown.";
const PAGE_ONLY = "Your session has ended, and this browser keeps nothing: copy what you typed before you log in again.";
const COMES_BACK = "What you typed is kept in this tab: it comes back when you log in here under the same name.";
const FORMER = 20; // names of this window that a signature may end
const KEEPALIVE_BYTES = 60_000; // a page that is left may send no more than 64 KiB

const same = (one, other) => FIELDS.every((name) => (one[name] || "").trim() === (other[name] || "").trim());
const isEmpty = (typed) => FIELDS.every((name) => !typed[name].trim());

function freshName() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export class Drafts {
  // `room` is the element of the scan; `told(words)` is called when a draft was put back into the form, `unkept(words)`,
  // with further options when the server refuses to keep one, or the session has ended.
  constructor(room, told, unkept) {
    Object.assign(this, { room, told, unkept, timer: null, saving: null, again: false, failed: false, unstored: false });
    this.key = `draft ${document.querySelector(".who").firstChild.textContent.trim()} ${room.dataset.scan}`;
    this.closed = false; // signed: nothing is left to keep
    this.former = []; // names under which this window sent this very form without an answer
    this.adopt();
    this.entry = this.resume();
    this.restore();
    for (const event of ["input", "change"]) {
      document.addEventListener(event, ({ target }) => target.form && target.form.id === "decide" && this.changed());
    }
    document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && this.look());
    window.addEventListener("pagehide", () => {
      if (this.pending) this.save(true);
      if (this.entry) this.store({ ...this.entry, left: true });
    });
    window.addEventListener("beforeunload", (event) => this.mustAsk() && event.preventDefault());
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

  // What this window keeps: `typed`, the `window` to save it under, its `former` names, `saved` (its version, 0 before),
  // `at`, and `left` once its page is gone: without that, another tab may hold the same.
  resume() {
    let entry = null;
    try {
      entry = JSON.parse(sessionStorage.getItem(this.key) || "null");
    } catch {
      this.unstored = true; // blocked, or damaged
    }
    if (!entry) return null;
    const own = entry.left ? {} : { window: this.window, former: [] };
    return this.store({ ...entry, ...own, left: false });
  }

  store(entry) {
    this.entry = entry;
    try {
      sessionStorage.removeItem(this.key); // never an older text than the newest
      if (entry) sessionStorage.setItem(this.key, JSON.stringify(entry));
      this.unstored = false;
    } catch {
      this.unstored = true; // no room: only the server keeps it, and leaving before it has asks first
    }
    return entry;
  }

  get pending() {
    return !this.closed && Boolean(this.entry) && !this.entry.saved;
  }

  mustAsk() {
    return this.pending && (this.failed || this.unstored || this.bytes() > KEEPALIVE_BYTES);
  }

  fields() {
    return { ...this.entry.typed, window: this.entry.window, token: this.token, csrf: this.room.dataset.csrf };
  }

  // How long the form of a save is: a character may take nine bytes.
  bytes() {
    return new URLSearchParams(this.fields()).toString().length;
  }

  // Take over the form of an answer, with the name that it goes by and the version of the draft that it shows.
  adopt() {
    const form = this.form();
    this.version = form ? Number(form.elements.base.value) : 0;
    this.token = form ? form.elements.token.value : "";
    this.window = form ? form.elements.window.value : freshName();
    this.show(Array.from(document.querySelectorAll("[data-draft]"), (part) => JSON.parse(part.dataset.draft)));
  }

  changed() {
    const typed = this.closed ? null : this.read();
    if (!typed || (this.entry && same(typed, this.entry.typed))) return; // left, and not changed
    this.store({ typed, window: this.window, former: this.former, saved: 0, at: Date.now() });
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.save(), PAUSE_MS);
  }

  // One save after the other: an older one that arrives late must not replace a newer one. When the page is left, the
  // last text does not wait; then the server ignores the one under way, if that arrives after it.
  save(leaving = false) {
    clearTimeout(this.timer);
    if (leaving) return this.send({}, { keepalive: true });
    this.again = Boolean(this.saving);
    this.saving ||= this.send({ after: this.version }).finally(() => {
      this.saving = null;
      return this.again && this.save();
    });
    return this.saving;
  }

  // `after` is the version that this text follows; without it, the text replaces whatever the server has.
  async send(after, options = {}) {
    const entry = this.entry;
    if (!this.pending) return;
    try {
      const answer = await this.ask("draft", { ...this.fields(), ...after }, options);
      this.failed = false;
      this.version = answer.version;
      if (answer.overtaken) return await this.send({ after: this.version }); // the answer to an earlier save was lost
      const latest = this.entry;
      if (latest && same(latest.typed, entry.typed)) this.store(answer.version ? { ...latest, saved: answer.version } : null);
      this.show(answer.drafts);
    } catch (failure) {
      this.failed = true;
      this.say(failure);
      if (!failure.status || failure.status >= 500) this.timer = setTimeout(() => this.save(), AGAIN_MS);
    }
  }

  // Say at once what no further attempt will change: the session has ended, or the server refuses the draft.
  say(failure) {
    if (failure.status === 401) this.unkept(this.unstored ? PAGE_ONLY : failure.message, { title: "NOT SIGNED", reload: !this.unstored });
    else if (failure.status >= 400 && failure.status < 500) this.unkept(this.explain(failure), { reload: failure.reload });
  }

  // Another user may have logged in with this browser since: what is typed here comes back to its own reader only.
  explain(failure) {
    return failure.status === 403 && !this.unstored ? `${failure.message} ${COMES_BACK}` : failure.message;
  }

  async ask(what, fields, options) {
    const answer = await post(`${this.room.dataset.scan}/${what}`, { ...fields, csrf: this.room.dataset.csrf }, options);
    const data = await answer.json();
    const form = this.form();
    if (form && "version" in data) form.elements.base.value = data.version;
    return data;
  }

  // Put back what this window kept, if the page does not show it already: the newest text is shown, and the other one
  // is offered beside it. What the server does not hold any more is sent again: if it was not signed, it is kept.
  async restore() {
    const entry = this.entry;
    if (!entry) return;
    if (entry.saved && entry.saved === this.version) return this.goBy(entry.window, entry.former);
    const shown = this.read();
    if (!entry.saved && shown) {
      this.fill(entry.typed);
      this.goBy(entry.window, entry.former);
    }
    let answer;
    try {
      answer = await this.held(entry);
    } catch (failure) {
      if (!entry.saved) this.told("What you typed was kept, but it is not signed. Check it, then sign.");
      if (!entry.saved && !failure.reload) this.timer = setTimeout(() => this.save(), AGAIN_MS);
      return;
    }
    const mine = answer.drafts.find((one) => one.version === answer.version);
    const age = (Date.now() - entry.at) / 1000;
    const newer = answer.drafts.find((one) => one !== mine && one.seconds + 1 < age);
    const now = this.read();
    if (now && shown && !same(now, entry.saved ? shown : entry.typed)) return this.changed(); // meanwhile: let it be
    if (mine && !newer) {
      this.take(mine, entry, "What you typed was kept, but it is not signed. Check it, then sign.");
      this.store({ ...entry, typed: this.read() || mine, saved: mine.version, at: Date.now() });
    } else {
      this.store(null);
      if (newer) this.take(newer, { window: freshName() }, NEWER + (mine ? " Yours is kept below it; neither is signed." : " It is not signed."));
      else if (shown) this.fill(shown);
    }
    this.show(answer.drafts);
  }

  // Ask for the drafts of the server, and for the version of an entry among them; send it where the server lacks it.
  async held(entry) {
    const drafts = entry.saved ? await this.list() : [];
    if (drafts.some((one) => one.version === entry.saved)) return { version: entry.saved, drafts };
    return this.ask("draft", { ...this.fields(), ...entry.typed, window: entry.window, token: "" });
  }

  goBy(name, former = []) {
    Object.assign(this, { window: name, former });
    const form = this.form();
    if (form) form.elements.window.value = name;
  }

  // Show a draft, and go on under a name: its own where this window typed it, else a fresh one.
  take(one, { window, former }, words) {
    this.fill(one);
    this.version = one.version;
    this.goBy(window, former);
    const form = this.form();
    if (form) form.elements.base.value = one.version;
    this.told(words);
  }

  fill(typed) {
    const form = this.form();
    if (!form) return;
    for (const name of FIELDS.filter((one) => one !== "outcome")) form.elements[name].value = typed[name] || "";
    for (const radio of form.querySelectorAll("[name=outcome]")) radio.checked = radio.value === typed.outcome;
    document.dispatchEvent(new Event("draft-shown"));
  }

  async list() {
    return (await read(`${this.room.dataset.scan}/draft`)).drafts;
  }

  // Ask what other windows hold, when the reader comes back to this one.
  async look() {
    if (this.closed || !this.form()) return;
    const drafts = await this.list().catch((failure) => failure.status === 401 && this.say(failure)); // without an answer, what is offered stays
    if (drafts) this.show(drafts);
  }

  show(drafts) {
    const typed = this.read() || {};
    const others = drafts.filter((one) => one.version !== this.version && !same(one, typed));
    showOthers(others, this.form() && ((one) => this.use(one)), (one) => this.discard(one));
  }

  // Put another window's text into the form; what is typed here stays, as a draft of its own.
  async use(one) {
    await this.save();
    if (this.pending) return this.unkept("What is typed here is not kept yet, so it cannot give way to the other text.");
    this.goBy(freshName());
    this.version = one.version;
    this.fill(one);
    this.changed();
    return this.save();
  }

  async discard(one) {
    try {
      this.show((await this.ask("draft/discard", { version: one.version })).drafts);
    } catch (failure) {
      this.unkept(failure.message);
    }
  }

  // A signature is under way: what is typed from now on is not part of it, and is kept under another name.
  signing() {
    const sent = this.read();
    this.window = freshName();
    this.token = "";
    return (typed = this.read()) => Boolean(typed) && !same(typed, sent) && !isEmpty(typed);
  }

  // It was not signed. An answer says so, and the form goes on under its name. Without one it may be signed yet: the form
  // goes on under another, and the signature of that ends what the server holds under the former.
  refused(answered) {
    const form = this.form();
    if (!form) return;
    const sent = form.elements.window.value;
    if (answered) this.goBy(sent, this.former);
    else this.goBy(this.window, [...this.former, sent].slice(-FORMER));
    if (this.entry) this.store({ ...this.entry, former: this.former });
  }

  // The server has the signature: there is nothing left to keep.
  end() {
    this.closed = true;
    clearTimeout(this.timer);
    this.store(null);
  }
}
