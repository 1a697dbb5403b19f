// What a pane can show: the series of this study, those of the patient's earlier studies, and the reconstruction.

import { reformats } from "./mpr.js";
import { Slices } from "./slices.js";
import { said } from "./post.js";

export const RECONSTRUCTION = "reconstruction";

export class Sources {
  constructor(scan, loaders) {
    this.scan = scan;
    this.own = scan.stacks.map((stack, number) => ({ key: `own/${number}`, stack, loader: loaders[number], same: true, number }));
    this.reformatted = this.own.flatMap(reformats);
    this.earlier = scan.earlier.map((about, number) => ({ ...about, number, asked: null, sources: [] }));
  }

  get(key) {
    return [...this.own, ...this.reformatted, ...this.earlier.flatMap((study) => study.sources)].find((source) => source.key === key);
  }

  // Load what an earlier study holds, once, and return its sources.
  open(number) {
    const study = this.earlier[number];
    study.asked ||= ask(`${this.scan.base}/earlier/${number}`)
      .then(({ base, layout, stacks }) => {
        study.sources = stacks.map((stack, place) => ({
          key: `earlier/${number}/${place}`,
          stack,
          loader: new Slices((index) => `${base}/pixels/${place}/${index}?layout=${layout}`, stack.slices.length, 1),
          same: false,
          when: this.name(study),
        }));
        return study.sources;
      })
      .catch((error) => {
        study.asked = null;
        throw error;
      });
    return study.asked;
  }

  name({ words, date }) {
    return date ? `${words} (${date})` : words;
  }

  // Return the series that is most like the one that is read: the same title, else the same modality and most images.
  like(sources, title) {
    const modality = title.split(" ")[0];
    const rank = ({ stack }) => (stack.title === title ? 1e6 : stack.title.split(" ")[0] === modality ? 1e3 : 0) + Math.min(stack.slices.length, 999);
    return sources.reduce((best, source) => (!best || rank(source) > rank(best) ? source : best), null);
  }

  // Fill the choices of a pane: grouped by study; a study that is not loaded yet is one choice.
  offer(select, chosen) {
    const groups = [group("This study", this.own.map((source) => option(source.key, titled(source))))];
    if (this.reformatted.length) {
      groups.push(group("Reformatted", this.reformatted.map((source) => option(source.key, titled(source)))));
    }
    if (this.scan.stacks.some((stack) => stack.scored)) {
      groups.push(option(RECONSTRUCTION, "If it were normal (reconstruction)"));
    }
    for (const study of this.earlier) {
      const choices = study.sources.length
        ? study.sources.map((source) => option(source.key, titled(source)))
        : [option(`earlier/${study.number}`, "open")];
      groups.push(group(this.name(study), choices));
    }
    if (!chosen) groups.unshift(option("", "choose ..."));
    select.replaceChildren(...groups);
    select.value = chosen || "";
  }
}

async function ask(url) {
  const answer = await fetch(url, { headers: { Accept: "application/json" } }).catch(() => null);
  if (!answer) throw new Error("The server does not answer: choose it again in a moment.");
  if (!answer.ok) throw new Error(await said(answer));
  return answer.json();
}

function titled({ stack }) {
  return `${stack.title} (${stack.slices.length})`;
}

function option(value, text) {
  return new Option(text, value);
}

function group(label, options) {
  const made = document.createElement("optgroup");
  made.label = label;
  made.append(...options);
  return made;
}
