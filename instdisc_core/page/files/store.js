"use strict";
// Where the lists come from: the data in PAGE, or the server. Both answer
// load(path, from, to) -> Promise of {total, items, groups?, query?, title?}, for the same paths:
// photos?q=words, image/7, outliers, cluster/2, duplicate/3, and the lists of groups clusters,
// duplicates, rows. An item is {id, name, label, score}, a group {title, path, total, items}.

const SHOWN = 24; // photos of a group that are shown among other groups

function nameOf(path) {
  return path.slice(path.lastIndexOf("/") + 1);
}

class LocalStore {
  constructor(page) {
    this.page = page;
    this.total = page.names.length;
    this.lower = page.names.map((name) => name.toLowerCase());
    this.places = new Map(); // of queries among the rows
    page.rows.forEach(([query], place) => this.places.set(query, place));
    this.tabs = [
      ["rows", "Neighbors", page.rows.length || null],
      ["photos", "Photos", this.total],
      ["duplicates", "Near-duplicates", page.duplicates?.length ?? null],
      ["outliers", "Outliers", page.outliers.length || null],
      ["clusters", "Clusters", page.clusters.length || null],
      ["map", "Map", page.map ? this.total : null],
    ].filter(([, , count]) => count !== null);
  }

  item(id, score = null) {
    const { names, labels } = this.page;
    return { id, name: names[id], label: labels ? labels[id] : null, score };
  }

  async name(id) {
    return this.page.names[id];
  }

  thumbnail(id) {
    return this.page.thumbnails + this.page.keys[id] + this.page.suffix;
  }

  original(id) {
    const { originals, links, names } = this.page;
    if (originals === undefined) return null;
    return originals + (links[id] ?? names[id].split("/").map(encodeURIComponent).join("/"));
  }

  opens(id) {
    return this.page.k > 0 || this.places.has(id);
  }

  async load(path, from, to) {
    const [kind, number] = path.split("?")[0].split("/");
    const ids = this.ids(kind, Number(number), path);
    if (!ids.groups) {
      const items = ids.list.slice(from, to).map((id, i) => this.item(id, ids.score(from + i)));
      const query = kind === "image" ? this.item(Number(number)) : null;
      return { total: ids.list.length, items, query };
    }
    const items = ids.groups.slice(from, to).map((group, i) => this.group(kind, from + i, group));
    return { total: ids.groups.length, items, groups: true };
  }

  group(kind, place, group) {
    if (kind === "rows") {
      const [query, found, scores] = group;
      const items = found.map((id, i) => this.item(id, scores[i] / 1000));
      return { title: "", total: 0, items: [this.item(query), ...items], query: this.item(query) };
    }
    const name = kind === "clusters" ? "Cluster" : "Group";
    const items = group.slice(0, SHOWN).map((id) => this.item(id));
    const path = `${kind.slice(0, -1)}/${place}`;
    return { title: `${name} ${place + 1}`, path, total: group.length, items };
  }

  ids(kind, number, path) {
    const { page } = this;
    const list = (all, scores, start = 0) => ({
      list: all ?? [],
      score: (i) => (scores ? scores[start + i] / 1000 : null),
    });
    switch (kind) {
      case "image": {
        const row = page.rows[this.places.get(number)];
        if (row) return list(row[1], row[2]);
        const start = page.k * number;
        return list(page.neighbors.slice(start, start + page.k), page.scores, start);
      }
      case "outliers":
        return list(page.outliers, page.outlierScores);
      case "cluster":
        return list(page.clusters[number]);
      case "duplicate":
        return list(page.duplicates[number]);
      case "clusters":
      case "duplicates":
      case "rows":
        return { groups: page[kind] };
      default:
        return list(this.matching(new URLSearchParams(path.split("?")[1]).get("q") ?? ""));
    }
  }

  matching(text) {
    if (this.searched !== text) {
      const words = text.toLowerCase().split(/\s+/).filter(Boolean);
      this.found = [...this.lower.keys()].filter((id) =>
        words.every((word) => this.lower[id].includes(word))
      );
      this.searched = text;
    }
    return this.found;
  }

  async map() {
    return { points: this.page.map, labels: this.page.labels };
  }
}

class RemoteStore {
  constructor(page) {
    this.page = page;
    this.total = page.total;
    this.tabs = page.tabs;
    this.uploads = [];
  }

  async name(id) {
    return (await this.get(`api/name/${id}`)).name;
  }

  thumbnail(id) {
    return `thumbnail/${id}?${this.page.version}`;
  }

  original(id) {
    return `original/${id}?${this.page.version}`;
  }

  opens() {
    return true;
  }

  async load(path, from, to) {
    if (path.startsWith("upload/")) {
      const found = this.uploads[Number(path.slice(7))];
      if (!found) throw new Error("Drop or choose that picture again.");
      return { ...found, items: found.items.slice(from, to) };
    }
    return this.get(`api/${path}${path.includes("?") ? "&" : "?"}from=${from}&to=${to}`);
  }

  async get(address) {
    for (;;) {
      const answer = await fetch(address);
      if (answer.status !== 202) return this.read(answer);
      await new Promise((done) => setTimeout(done, 500)); // it is being computed
    }
  }

  async read(answer) {
    const found = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(found.error ?? `The server answered ${answer.status}.`);
    return found;
  }

  async upload(file) {
    if (file.size > this.page.maxBytes) throw new Error("That file is too large.");
    const found = await this.read(await fetch("api/search", { method: "POST", body: file }));
    const query = { name: file.name || "pasted picture", address: URL.createObjectURL(file) };
    return this.uploads.push({ ...found, query }) - 1;
  }

  map() {
    return this.get("api/map");
  }
}
