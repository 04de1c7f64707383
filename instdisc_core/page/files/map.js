"use strict";
// The map: a point for each photo, to pan and zoom; where there are few on the screen, the photos.

const COLORS = ["#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#8c564b", "#f2a6d9", "#7f7f7f", "#b8a900", "#56b4e9"];
const SIDE = 10000; // of the map, in its own units
const CELLS = 128; // to each side of the grid in which points are looked for
const FEW = 400; // points on the screen, below which photos are drawn

function argb(color) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
  return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}

class MapView {
  constructor(store, found) {
    Object.assign(this, { store, points: found.points, labels: found.labels });
    this.total = found.points.length / 2;
    const kinds = PAGE.classes.length;
    this.colored = found.labels !== null && kinds > 1;
    this.canvas = element("canvas", { tabindex: 0, role: "img", "aria-label": "Map of all photos; they are in the tab Photos too" });
    this.tip = element("div", { class: "tip" }, element("img", { alt: "" }), element("span"));
    this.tip.hidden = true;
    this.frame = element("div", { class: "map" }, this.canvas, this.tip);
    this.host = element("div", {}, this.frame);
    if (this.colored && kinds <= COLORS.length) this.host.append(this.legend());
    this.corner = [1, 1]; // of the points; the other one is 0, 0
    found.points.forEach((value, at) => {
      this.corner[at % 2] = Math.max(this.corner[at % 2], value);
    });
    this.pictures = new Map();
    this.pointers = new Map();
    this.bucket();
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(this.frame);
    this.canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    for (const kind of ["down", "move", "up", "cancel", "leave"]) {
      this.canvas.addEventListener(`pointer${kind}`, (event) => this[kind](event));
    }
  }

  close() {
    this.observer.disconnect();
    this.closed = true;
  }

  text() {
    return "Photos that are alike are close to each other. Drag and scroll; + and - zoom; click opens.";
  }

  legend() {
    const items = PAGE.classes.map((name, label) => {
      const dot = element("i");
      dot.style.background = COLORS[label];
      return element("li", {}, dot, name);
    });
    return element("ul", { class: "legend" }, ...items);
  }

  // The points of each cell of a grid: those of cell c are order[starts[c]] to order[starts[c + 1]].
  bucket() {
    const cell = new Uint16Array(this.total);
    this.starts = new Uint32Array(CELLS * CELLS + 1);
    for (let i = 0; i < this.total; i += 1) {
      cell[i] = this.cell(this.points[2 * i + 1]) * CELLS + this.cell(this.points[2 * i]);
      this.starts[cell[i] + 1] += 1;
    }
    for (let c = 0; c < CELLS * CELLS; c += 1) this.starts[c + 1] += this.starts[c];
    const next = this.starts.slice();
    this.order = new Uint32Array(this.total);
    for (let i = 0; i < this.total; i += 1) this.order[next[cell[i]]++] = i;
  }

  cell(value) {
    return Math.max(0, Math.min(CELLS - 1, Math.floor((value / SIDE) * CELLS)));
  }

  // Calls visit for each point between two corners, given in units of the map.
  within(left, top, right, bottom, visit) {
    for (let row = this.cell(top); row <= this.cell(bottom); row += 1) {
      const from = this.starts[row * CELLS + this.cell(left)];
      const to = this.starts[row * CELLS + this.cell(right) + 1];
      for (let at = from; at < to; at += 1) visit(this.order[at]);
    }
  }

  resize() {
    const ratio = devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = this.frame;
    if (!width) return;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.ratio = ratio;
    const [right, bottom] = this.corner;
    const scale = 0.94 * Math.min(width / right, height / bottom); // at which the whole map is seen
    const [oldWidth, oldHeight, oldScale] = this.fitted ?? [width, height, scale];
    const factor = scale / oldScale; // what was in the middle stays there
    this.left = width / 2 - (oldWidth / 2 - (this.left ?? (width - right * scale) / 2)) * factor;
    this.top = height / 2 - (oldHeight / 2 - (this.top ?? (height - bottom * scale) / 2)) * factor;
    this.scale = (this.scale ?? scale) * factor;
    this.least = scale / 2;
    this.fitted = [width, height, scale];
    this.redraw();
  }

  redraw() {
    this.waiting ??= requestAnimationFrame(() => {
      this.waiting = null;
      if (!this.closed) this.draw();
    });
  }

  draw() {
    const { canvas, scale, ratio, points } = this;
    const context = canvas.getContext("2d");
    const [width, height] = [canvas.width / ratio, canvas.height / ratio];
    const seen = [];
    const corners = [-this.left, -this.top, width - this.left, height - this.top].map((v) => v / scale);
    this.within(...corners, (i) => seen.push(i));
    const style = getComputedStyle(document.documentElement);
    const back = argb(this.hex(style.getPropertyValue("--back").trim()));
    const plain = argb(this.hex(style.getPropertyValue("--accent").trim()));
    const colors = COLORS.map(argb);
    const picture = context.createImageData(canvas.width, canvas.height);
    const pixels = new Uint32Array(picture.data.buffer).fill(back);
    const wanted = Math.sqrt((0.15 * width * height) / Math.max(1, seen.length)); // less if crowded
    const dot = Math.round(ratio * Math.max(2, Math.min(6, wanted)));
    const [line, lines] = [canvas.width, canvas.height];
    for (const i of seen) {
      const x = Math.round((this.left + points[2 * i] * scale) * ratio - dot / 2);
      const y = Math.round((this.top + points[2 * i + 1] * scale) * ratio - dot / 2);
      if (x < 0 || y < 0 || x + dot > line || y + dot > lines) continue;
      const color = this.colored ? colors[this.labels[i] % colors.length] : plain;
      for (let row = 0; row < dot; row += 1) {
        const start = (y + row) * line + x;
        for (let at = start; at < start + dot; at += 1) pixels[at] = color; // faster than fill
      }
    }
    context.putImageData(picture, 0, 0);
    this.drawn = seen.length <= FEW ? this.drawPictures(context, seen, width) : 0;
  }

  hex(color) {
    return color.length === 4 ? color.replace(/[^#]/g, "$&$&") : color;
  }

  // Photos where they do not cover each other; the closer together the rest, the smaller.
  drawPictures(context, seen, width) {
    const side = Math.max(40, Math.min(96, Math.sqrt((width * this.canvas.height) / this.ratio / Math.max(1, seen.length)) * 0.8));
    const taken = {};
    let drawn = 0;
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    for (const i of seen) {
      const [x, y] = this.screen(i);
      const [column, row] = [Math.floor(x / side), Math.floor(y / side)];
      const near = [-1, 0, 1].some((a) => [-1, 0, 1].some((b) => {
        const other = taken[`${column + a},${row + b}`];
        return other && Math.abs(other[0] - x) < side && Math.abs(other[1] - y) < side;
      }));
      if (near) continue;
      taken[`${column},${row}`] = [x, y];
      const image = this.picture(i);
      if (!image.complete || !image.naturalWidth) continue;
      const fit = side / Math.max(image.naturalWidth, image.naturalHeight);
      const [w, h] = [image.naturalWidth * fit, image.naturalHeight * fit];
      context.drawImage(image, x - w / 2, y - h / 2, w, h);
      if (this.colored) {
        context.strokeStyle = COLORS[this.labels[i] % COLORS.length];
        context.lineWidth = 2;
        context.strokeRect(x - w / 2, y - h / 2, w, h);
      }
      drawn += 1;
    }
    context.setTransform(1, 0, 0, 1, 0, 0);
    return drawn;
  }

  picture(id) {
    let image = this.pictures.get(id);
    if (!image) {
      image = new Image();
      image.addEventListener("load", () => this.redraw(), { once: true });
      image.src = this.store.thumbnail(id);
      this.pictures.set(id, image);
      if (this.pictures.size > 3 * FEW) this.pictures.delete(this.pictures.keys().next().value);
    }
    return image;
  }

  screen(id) {
    return [this.left + this.points[2 * id] * this.scale, this.top + this.points[2 * id + 1] * this.scale];
  }

  // The point nearest to a place on the screen, at most so many pixels away; null if there is none.
  nearest(x, y, reach = 14) {
    let [best, least] = [null, reach * reach];
    const toMap = (value, start) => (value - start) / this.scale;
    this.within(
      toMap(x - reach, this.left), toMap(y - reach, this.top),
      toMap(x + reach, this.left), toMap(y + reach, this.top),
      (i) => {
        const [px, py] = this.screen(i);
        const distance = (px - x) ** 2 + (py - y) ** 2;
        if (distance < least) [best, least] = [i, distance];
      }
    );
    return best;
  }

  zoom(factor, x, y) {
    const scale = Math.max(this.least, Math.min(20, this.scale * factor));
    this.left = x - ((x - this.left) * scale) / this.scale;
    this.top = y - ((y - this.top) * scale) / this.scale;
    this.scale = scale;
    this.redraw();
  }

  wheel(event) {
    event.preventDefault();
    this.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), event.offsetX, event.offsetY);
  }

  down(event) {
    if (event.button !== 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
    this.moved = this.pointers.size > 1;
  }

  move(event) {
    const old = this.pointers.get(event.pointerId);
    if (!old) return this.hover(event);
    const now = [event.offsetX, event.offsetY];
    const other = [...this.pointers].find(([id]) => id !== event.pointerId)?.[1];
    this.tip.hidden = true;
    if (other) {
      const apart = (place) => Math.hypot(place[0] - other[0], place[1] - other[1]) + 1;
      this.zoom(apart(now) / apart(old), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
    } else if (this.moved || Math.hypot(now[0] - old[0], now[1] - old[1]) > 3) {
      this.moved = true;
      this.left += now[0] - old[0];
      this.top += now[1] - old[1];
      this.redraw();
    } else {
      return;
    }
    this.pointers.set(event.pointerId, now);
  }

  up(event) {
    if (!this.pointers.delete(event.pointerId)) return;
    const found = this.moved ? null : this.nearest(event.offsetX, event.offsetY, this.drawn ? 40 : 14);
    if (found !== null) location.hash = `#/image/${found}`;
  }

  cancel(event) {
    this.pointers.delete(event.pointerId);
  }

  leave() {
    this.tip.hidden = true;
  }

  hover(event) {
    const found = this.nearest(event.offsetX, event.offsetY, this.drawn ? 40 : 14);
    this.canvas.style.cursor = found === null ? "grab" : "pointer";
    this.tip.hidden = found === null;
    if (found === null || this.hovered === found) return this.placeTip(event);
    this.hovered = found;
    this.tip.firstChild.setAttribute("src", this.store.thumbnail(found));
    this.tip.lastChild.textContent = "";
    this.placeTip(event);
    this.sayName(found);
  }

  async sayName(id) {
    const name = await this.store.name(id).catch(() => "");
    if (this.hovered === id) this.tip.lastChild.textContent = name;
  }

  placeTip(event) {
    const { clientWidth: width, clientHeight: height } = this.frame;
    this.tip.style.left = `${Math.min(event.offsetX + 14, width - 170)}px`;
    this.tip.style.top = `${event.offsetY + 200 > height ? event.offsetY - 195 : event.offsetY + 14}px`;
  }

  press(key) {
    const { clientWidth: width, clientHeight: height } = this.frame;
    const steps = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };
    const factor = { "+": 1.4, "=": 1.4, "-": 1 / 1.4 }[key];
    if (factor) {
      this.zoom(factor, width / 2, height / 2);
    } else if (steps[key]) {
      this.left += steps[key][0];
      this.top += steps[key][1];
      this.redraw();
    } else {
      return false;
    }
    return true;
  }
}
