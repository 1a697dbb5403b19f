// Texts that are longer than can be signed: said while they are typed or pasted, and never cut.

const NEAR = 0.95; // of the longest: from here on the count is shown

function measure(field) {
  const words = document.getElementById(`${field.id}-length`);
  if (!words) return;
  const longest = Number(field.dataset.longest);
  const count = Array.from(field.value.trim()).length; // characters, as the server counts them
  const over = count > longest;
  words.hidden = count < longest * NEAR;
  words.classList.toggle("over", over);
  field.setAttribute("aria-invalid", String(over));
  const advice = over ? ` Shorten it by ${count - longest} to sign it; until then all of it is kept as a draft.` : "";
  words.textContent = words.hidden ? "" : `${count} of at most ${longest} characters.${advice}`;
}

export function watchLengths() {
  const all = () => document.querySelectorAll("[data-longest]").forEach(measure);
  document.addEventListener("input", ({ target }) => target.matches("[data-longest]") && measure(target));
  for (const event of ["decision-shown", "draft-shown"]) document.addEventListener(event, all);
  all();
}
