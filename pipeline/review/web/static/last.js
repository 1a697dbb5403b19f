// The scan that was decided last in this window, so that a slip can be corrected.

const KEY = "decided";
const who = () => document.querySelector(".who").textContent;

export function remember(scan) {
  if (scan) sessionStorage.setItem(KEY, JSON.stringify({ ...scan, by: who() }));
  else sessionStorage.removeItem(KEY);
}

export function lastDecided() {
  const last = JSON.parse(sessionStorage.getItem(KEY) || "null");
  return last && last.by === who() ? last : null;
}

export function goBack() {
  const last = lastDecided();
  if (last) window.location.assign(last.path);
}
