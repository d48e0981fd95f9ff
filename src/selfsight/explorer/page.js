import { ask, byId, complain, make, number, say, short, thumbs } from "/parts.js";
import { drawMap, drawMasks, drawScale, put } from "/picture.js";

let about;
let panels = [];
let picture = null; // what the server says of the open one
let point = [0.5, 0.5]; // shares of width and height, the same for every encoder
let turn = 0; // rises with each picture, so that answers about an earlier one are dropped

// One encoder: its picture, its maps, its neighbours.
class Panel {
  constructor(facts, index) {
    this.index = index;
    this.root = byId("encoder").content.firstElementChild.cloneNode(true);
    this.find = (selector) => this.root.querySelector(selector);
    this.find("h2").textContent = facts.spec;
    const millions = (facts.parameters / 1e6).toFixed(facts.parameters < 1e7 ? 1 : 0);
    const told = [facts.kind, `${millions} M parameters`, `${facts.size} px, a place each ${facts.patch} px`, facts.weights];
    this.find(".facts").textContent = told.join(" · ");
    this.find(".index").textContent = facts.memory ? `index: ${facts.memory}` : "";
    this.stage = this.find(".stage");
    this.stage.setAttribute("aria-label", `${facts.spec}: the picture. Click a point, or move it with the arrow keys`);
    this.stage.addEventListener("click", (event) => this.click(event));
    this.stage.addEventListener("keydown", (event) => this.key(event));
    this.overlay = this.find(".overlay");
    this.find(".strength input").addEventListener("input", () => this.paint());
    this.find("select").addEventListener("change", () => this.seekNow());
    drawScale(this.find(".scale canvas"));
    for (const selector of [".near-place", ".near-image"]) this.find(selector).hidden = !about.data;
    this.shown = "likeness";
  }

  url(what) {
    return `/api/pictures/${picture.picture}/${this.index}/${what}`;
  }

  async open(mine) {
    this.stage.classList.add("busy");
    // Of what is far longer than wide the longer side is pressed together, as it is for the encoder.
    this.stage.style.setProperty("--ratio", Math.min(Math.max(picture.width / picture.height, 1 / 4), 4));
    this.find(".picture").src = `/api/pictures/${picture.picture}/shown`;
    this.likeness = this.look = this.objects = null;
    const look = await ask(this.url("look"));
    if (mine !== turn) return;
    this.look = look;
    this.map = 0;
    this.offer();
    this.showHeads();
    thumbs(this.find(".near-image .thumbs"), look.images, choose);
    await this.move(mine);
    await this.seek(mine);
    if (mine === turn) this.stage.classList.remove("busy");
  }

  // The buttons above the heads: what can be laid over the picture.
  offer() {
    const first = this.look.attention ? "Attention" : "Feature length";
    const choices = { likeness: "Likeness", map: first, object: "Object", nothing: "Picture" };
    const shows = this.find(".shows");
    shows.querySelectorAll("label").forEach((label) => label.remove());
    for (const [value, text] of Object.entries(choices)) {
      const input = make("input", { type: "radio", name: `shows-${this.index}`, value, checked: value === this.shown });
      input.addEventListener("change", () => this.show(value));
      shows.append(make("label", {}, input, make("span", { textContent: text })));
    }
    const remark = this.find(".remark");
    remark.hidden = this.look.attention;
    remark.textContent = "A CNN, or a ViT without a CLS token, has no attention to show; in its place stands the length of the feature at each place.";
    const select = this.find("select");
    select.replaceChildren(...this.look.finders.map((name) => make("option", { value: name, textContent: name })));
    this.find(".finding label").hidden = !this.look.finders.length;
    this.find(".result").textContent = this.look.finders.length ? "" : "No way to find objects is at hand that works without attention.";
  }

  showHeads() {
    const heads = this.look.maps.length > 1 ? this.look.maps : [];
    this.find(".heads-of").hidden = !heads.length;
    this.find(".heads").replaceChildren(...heads.map((map, place) => {
      const canvas = make("canvas");
      drawMap(canvas, this.look.grid, map.values);
      const button = make("button", { type: "button" }, canvas, place ? `head ${place - 1}` : "mean");
      button.addEventListener("click", () => { this.map = place; this.show("map"); });
      return make("li", {}, button);
    }));
  }

  show(what) {
    this.shown = what;
    this.find(`.shows input[value="${what}"]`).checked = true;
    this.paint();
    if (what === "object" && !this.objects && this.look.finders.length) this.seekNow();
  }

  seekNow() {
    this.find(".result").textContent = "looking";
    this.seek().catch((error) => complain(error.message));
  }

  paint() {
    const map = { likeness: this.likeness?.map, map: this.look?.maps[this.map] }[this.shown];
    const objects = this.shown === "object" ? this.objects : null;
    const strength = this.find(".strength input").value / 100;
    this.overlay.style.opacity = map || objects?.length ? strength : 0;
    if (map) drawMap(this.overlay, this.look.grid, map.values);
    if (objects) drawMasks(this.overlay, this.look.grid, objects.map((each) => each.mask));
    this.find(".boxes").replaceChildren(...(objects || []).map((each) => {
      const [left, top, right, bottom] = each.box;
      const box = make("i");
      put(box, [left, top, right - left, bottom - top]);
      return box;
    }));
    this.find(".finding").hidden = this.shown !== "object";
    this.find(".scale").hidden = !map;
    if (map) {
      this.find(".low").textContent = number(map.low);
      this.find(".high").textContent = number(map.high);
      this.find(".what").textContent = map.name;
    }
    this.find(".heads").querySelectorAll("button").forEach((button, place) => {
      button.setAttribute("aria-pressed", String(this.shown === "map" && place === this.map));
    });
  }

  // One question at a time; of points that were chosen meanwhile the last one is asked for.
  async move(mine = turn) {
    if (!this.look) return;
    const [height, width] = this.look.grid;
    const [column, row] = [Math.min(Math.floor(point[0] * width), width - 1), Math.min(Math.floor(point[1] * height), height - 1)];
    put(this.find(".point"), [column / width, row / height, 1 / width, 1 / height]);
    this.find(".point").hidden = false;
    if (this.asking) {
      this.again = true;
      return this.asking;
    }
    this.asking = this.likenessTo(mine).finally(() => { this.asking = null; });
    return this.asking;
  }

  async likenessTo(mine) {
    do {
      this.again = false;
      const begun = performance.now();
      const answer = await ask(this.url(`place?x=${point[0]}&y=${point[1]}`));
      if (mine !== turn) return;
      this.likeness = answer;
      thumbs(this.find(".near-place .thumbs"), answer.near, choose);
      this.paint();
      say(`answered in ${Math.round(performance.now() - begun)} ms`);
    } while (this.again);
  }

  // Only while objects are shown: some ways to find them take seconds where there are many places.
  async seek(mine = turn) {
    const finder = this.find("select").value;
    if (!finder || this.shown !== "object") return;
    const { objects } = await ask(`${this.url("objects")}?finder=${encodeURIComponent(finder)}`);
    if (mine !== turn) return;
    this.objects = objects;
    const scores = objects.map((each) => number(each.score)).join(", ");
    this.find(".result").textContent = objects.length ? `score ${scores}` : "nothing found";
    this.paint();
  }

  click(event) {
    if (!this.look) return;
    const area = this.stage.getBoundingClientRect();
    const share = (value) => Math.min(Math.max(value, 0), 1);
    moveTo([share((event.clientX - area.left) / area.width), share((event.clientY - area.top) / area.height)]);
  }

  key(event) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!step || !this.look) return;
    event.preventDefault();
    const far = event.shiftKey ? 4 : 1;
    moveTo([1, 0].map((side, axis) => {
      const count = this.look.grid[side];
      const place = Math.min(Math.floor(point[axis] * count), count - 1) + far * step[axis];
      return (Math.min(Math.max(place, 0), count - 1) + 0.5) / count;
    }));
  }
}

function moveTo(place) {
  point = place;
  Promise.all(panels.map((panel) => panel.move())).catch((error) => complain(error.message));
}

function choose(image) {
  open(`/api/data/${image.sample}`, {}, image.key);
}

async function open(path, options, name) {
  const mine = ++turn;
  complain("");
  say(`opening ${short(name)}`);
  try {
    const found = await ask(path, { method: "POST", ...options });
    if (mine !== turn) return;
    picture = found;
    point = [0.5, 0.5];
    byId("invitation").hidden = true;
    byId("encoders").hidden = false;
    document.title = `${short(name)} · selfsight explore`;
    for (const button of byId("album-images").querySelectorAll("button")) {
      button.setAttribute("aria-current", String(Number(button.dataset.sample) === found.sample && found.sample !== null));
    }
    const begun = performance.now();
    await Promise.all(panels.map((panel) => panel.open(mine)));
    if (mine === turn) say(`${short(name)}, ${found.width} x ${found.height} pixels, looked at in ${Math.round(performance.now() - begun)} ms`);
  } catch (error) {
    if (mine !== turn) return;
    complain(`${short(name)}: ${error.message}`);
    say("");
    for (const panel of panels) panel.stage.classList.remove("busy");
  }
}

function upload(files) {
  const file = files[0];
  if (!file) return;
  if (file.size > about.most_bytes) {
    complain(`${short(file.name)}: is larger than ${Math.round(about.most_bytes / 2 ** 20)} MiB, the most that is taken`);
    return;
  }
  open("/api/pictures", { body: file, headers: { "Content-Type": "application/octet-stream" } }, file.name);
}

async function leaf() {
  const list = byId("album-images");
  const { images, total } = await ask(`/api/data?start=${list.children.length}`);
  const added = make("ul");
  thumbs(added, images, choose);
  list.append(...added.children);
  byId("more").hidden = list.children.length >= total;
}

function listen() {
  byId("file").addEventListener("change", (event) => {
    upload(event.target.files);
    event.target.value = "";
  });
  byId("more").addEventListener("click", () => leaf().catch((error) => complain(error.message)));
  window.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  window.addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dropping"); });
  window.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    upload(event.dataTransfer.files);
  });
}

async function start() {
  about = await ask("/api/about");
  panels = about.encoders.map((facts, index) => new Panel(facts, index));
  byId("encoders").append(...panels.map((panel) => panel.root));
  byId("encoders").classList.toggle("one", panels.length === 1);
  const images = about.data && `${about.data.images.toLocaleString("en")} image${about.data.images === 1 ? "" : "s"} of ${about.data.name}`;
  byId("about").textContent = [about.encoders.map((each) => each.spec).join(" beside "), images].filter(Boolean).join(" · ");
  byId("notes").replaceChildren(...about.notes.map((text) => make("li", { textContent: text })));
  listen();
  if (!about.data) return;
  byId("album").hidden = byId("or-choose").hidden = false;
  byId("album-name").textContent = about.data.name;
  await leaf();
}

start().catch((error) => complain(error.message));
