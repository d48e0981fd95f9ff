// What both the page and its panels use.
import { put } from "/picture.js";

export const byId = (id) => document.getElementById(id);
export const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
export const short = (text) => (text.length > 80 ? text.slice(0, 79) + "…" : text);
export const number = (value) => (Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(2));

export async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("the server does not answer; is selfsight explore still running?");
  }
  const body = await answer.json().catch(() => ({ error: `the server answers ${answer.status}` }));
  if (!answer.ok) throw new Error(body.error);
  return body;
}

export function complain(text) {
  byId("message").textContent = text;
  byId("message").hidden = !text;
}

export function say(text) {
  byId("status").textContent = text;
}

// Small pictures that open what they show by `choose`. Names of files come as text and stay text.
export function thumbs(list, images, choose) {
  list.replaceChildren(...images.map((image) => {
    const frame = make("span", {}, make("img", { src: `/api/data/${image.sample}/small`, alt: "", loading: "lazy" }));
    if (image.box) {
      const place = make("i", { className: "place" });
      put(place, image.box);
      frame.append(place);
    }
    const cosine = image.similarity === undefined ? [] : [make("b", { textContent: image.similarity.toFixed(3) })];
    const key = make("span", { className: "key", textContent: short(image.key.split("/").pop()) });
    const button = make("button", { type: "button", title: short(image.key) }, make("span", { className: "frame" }, frame), ...cosine, key);
    button.dataset.sample = image.sample;
    button.addEventListener("click", () => choose(image));
    return make("li", {}, button);
  }));
}
