// Requests whose failure is said in plain words: every one of them ends in an answer or a Failure.

const PATIENCE_MS = 30_000;

export const NO_ANSWER = "The server does not answer: it may be restarting, or the network is down.";
const WORDS = {
  401: "Your session has ended. Log in again: what you typed is kept.",
  413: "It is too large to be sent. Shorten the texts.",
};

export class Failure extends Error {
  // `status` is 0 where no answer came; `reload`: whether only a new page can help.
  constructor(words, status) {
    super(words);
    this.status = status;
    this.reload = status === 401 || status === 403;
  }
}

// Send a form and return the response; anything but success throws a Failure.
export function post(path, fields, options = {}) {
  return ask(path, { method: "POST", body: new URLSearchParams(fields), ...options });
}

// Return the data of an address.
export async function read(path) {
  return (await ask(path, {})).json();
}

async function ask(path, options) {
  const answer = await fetch(path, {
    credentials: "same-origin",
    redirect: "manual", // nothing here leads elsewhere but a proxy's way to its log-in
    headers: { "HX-Request": "true", Accept: "*/*" },
    signal: AbortSignal.timeout(PATIENCE_MS),
    ...options,
  }).catch(() => {
    throw new Failure(NO_ANSWER, 0);
  });
  if (answer.type === "opaqueredirect") throw new Failure(WORDS[401], 401);
  if (answer.ok) return answer;
  throw new Failure(WORDS[answer.status] || (await said(answer)), answer.status);
}

// Return what the server said: JSON with `detail`, a plain text, or the message of a page.
export async function said(answer) {
  const text = await answer.text().catch(() => "");
  const type = answer.headers.get("content-type") || "";
  if (type.includes("json")) {
    try {
      return String(JSON.parse(text).detail);
    } catch {
      return `The server answered ${answer.status}.`;
    }
  }
  if (type.includes("html")) {
    const notice = new DOMParser().parseFromString(text, "text/html").querySelector("[role=alert]");
    return notice ? notice.textContent : `The server answered ${answer.status}.`;
  }
  return text.slice(0, 500) || `The server answered ${answer.status}.`;
}
