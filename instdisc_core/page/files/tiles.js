"use strict";
// Photos as tiles: in a grid that holds only what is near the screen, or in groups.

const BATCH = 200; // photos that are loaded at a time

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

// A link to an image's neighbors; its frame says whether it has the label of the query.
function tile(store, item, query) {
  const opens = store.opens(item.id);
  const made = element(opens ? "a" : "div", {
    class: "tile",
    href: opens ? `#/image/${item.id}` : null,
    title: item.name,
  });
  const same = query && item.label !== null && query.label !== null && query.label !== undefined;
  if (same && item.id !== query.id) made.classList.add(item.label === query.label ? "same" : "other");
  if (query && item.id === query.id) made.classList.add("query");
  const score = item.score === null || item.score === undefined ? "" : item.score.toFixed(2);
  made.append(
    element("img", { src: store.thumbnail(item.id), alt: item.name, decoding: "async", loading: "lazy" }),
    element("span", { class: "caption" }, element("b", {}, score), " ", nameOf(item.name))
  );
  return made;
}

class Grid {
  constructor(store, path, first) {
    Object.assign(this, { store, path, total: first.total, query: first.query });
    this.items = new Map(first.items.map((item, i) => [i, item]));
    this.asked = new Set([0]);
    this.tiles = new Map();
    this.host = element("div", { class: "grid" });
    this.update = () => {
      this.frame ??= requestAnimationFrame(() => {
        this.frame = null;
        this.render();
      });
    };
    this.observer = new ResizeObserver(() => this.layout());
    this.observer.observe(this.host);
    addEventListener("scroll", this.update, { passive: true });
  }

  close() {
    this.closed = true;
    this.observer.disconnect();
    removeEventListener("scroll", this.update);
  }

  layout() {
    const gap = 8;
    const width = this.host.clientWidth;
    const wanted = width < 500 ? 108 : 160;
    this.columns = Math.max(1, Math.floor((width + gap) / (wanted + gap)));
    this.width = (width - gap * (this.columns - 1)) / this.columns;
    this.height = this.width + 24;
    this.step = [this.width + gap, this.height + gap];
    this.host.style.height = `${Math.ceil(this.total / this.columns) * this.step[1]}px`;
    for (const [index, made] of this.tiles) this.place(made, index);
    this.render();
  }

  place(made, index) {
    made.style.width = `${this.width}px`;
    made.style.height = `${this.height}px`;
    made.style.left = `${(index % this.columns) * this.step[0]}px`;
    made.style.top = `${Math.floor(index / this.columns) * this.step[1]}px`;
  }

  render() {
    if (this.closed || !this.columns) return;
    const top = -this.host.getBoundingClientRect().top;
    const row = (y) => Math.floor(y / this.step[1]) * this.columns;
    const first = Math.max(0, row(top - innerHeight / 2));
    const last = Math.min(this.total, row(top + 1.5 * innerHeight) + this.columns);
    for (const [index, made] of this.tiles) {
      if (index < first || index >= last) {
        made.remove();
        this.tiles.delete(index);
      }
    }
    let next = this.host.firstChild;
    for (let index = first; index < last; index += 1) {
      const made = this.tiles.get(index);
      if (made) {
        next = made.nextSibling;
      } else if (this.items.has(index)) {
        const fresh = tile(this.store, this.items.get(index), this.query);
        fresh.dataset.index = index;
        this.place(fresh, index);
        this.tiles.set(index, fresh);
        this.host.insertBefore(fresh, next);
      } else {
        this.load(Math.floor(index / BATCH));
      }
    }
  }

  async load(batch) {
    if (this.asked.has(batch)) return;
    this.asked.add(batch);
    try {
      const found = await this.store.load(this.path, batch * BATCH, (batch + 1) * BATCH);
      found.items.forEach((item, i) => this.items.set(batch * BATCH + i, item));
      this.render();
    } catch {
      this.asked.delete(batch); // again when it is looked at again
    }
  }
}

// Groups below each other; more are added when the end comes near the screen.
class Groups {
  constructor(store, path, first) {
    Object.assign(this, { store, path, total: first.total, shown: 0, count: 0 });
    this.end = element("div", { class: "end" });
    this.host = element("div", { class: "groups" }, this.end);
    this.add(first.items);
    this.observer = new IntersectionObserver((seen) => seen[0].isIntersecting && this.more(), {
      rootMargin: "600px",
    });
    this.observer.observe(this.end);
  }

  close() {
    this.observer.disconnect();
  }

  add(groups) {
    for (const group of groups) {
      const strip = element("div", { class: group.query ? "strip row" : "strip" });
      for (const item of group.items) {
        const made = tile(this.store, item, group.query);
        made.dataset.index = this.count;
        this.count += 1;
        strip.append(made);
      }
      const all = `#/${group.path}`;
      const heading = group.query
        ? []
        : [element("h2", {}, `${group.title} `, element("a", { href: all }, `${group.total} photos`))];
      this.end.before(element("section", {}, ...heading, strip));
    }
    this.shown += groups.length;
  }

  async more() {
    if (this.busy || this.shown >= this.total) return;
    this.busy = true;
    const found = await this.store.load(this.path, this.shown, this.shown + 20).catch(() => null);
    this.busy = false;
    if (!found) return;
    this.add(found.items);
    this.observer.unobserve(this.end); // so that it tells again if the end is still near
    this.observer.observe(this.end);
  }
}
