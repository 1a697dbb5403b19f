// The scan that was decided last in this window, so that a slip can be corrected.

const KEY = "decided";
const who = () => document.querySelector(".who").textContent;

// The browser's storage may be full or blocked: what is kept there is a convenience, and its lack stops nothing.
export function keep(key, value) {
  try {
    sessionStorage.removeItem(key);
    if (value) sessionStorage.setItem(key, value);
  } catch {
    // not kept
  }
}

export function kept(key) {
  try {
    return sessionStorage.getItem(key);
  } catch {
    return null;
  }
}

export function remember(scan) {
  keep(KEY, scan && JSON.stringify({ ...scan, by: who() }));
}

export function lastDecided() {
  const last = JSON.parse(kept(KEY) || "null");
  return last && last.by === who() ? last : null;
}

export function goBack() {
  const last = lastDecided();
  if (last) window.location.assign(last.path);
}
