"use strict";
// Shows what the part of the address behind # asks for, and follows keyboard and search box.

const store = PAGE.server ? new RemoteStore(PAGE) : new LocalStore(PAGE);
const [tabs, box, state, main] = ["tabs", "search", "status", "main"].map((id) =>
  document.getElementById(id)
);
const places = new Map(); // how far each list was scrolled
const home = store.tabs[0][0];
let shown = { path: null, view: null };
let within = 0; // steps that "back" can go without leaving the page

function count(number, one) {
  return `${number.toLocaleString("en")} ${one}${number === 1 ? "" : "s"}`;
}

function tabOf(path) {
  const kind = path.split(/[/?]/)[0];
  return { cluster: "clusters", duplicate: "duplicates" }[kind] ?? kind;
}

function drawTabs(path) {
  tabs.replaceChildren(
    ...store.tabs.map(([name, text, total]) => {
      const number = total === null ? "" : element("small", {}, total.toLocaleString("en"));
      const current = tabOf(path) === name ? "page" : null;
      return element("a", { href: `#/${name}`, "aria-current": current }, text, " ", number);
    })
  );
}

function told(path, found) {
  const total = found.total;
  const [kind, number] = path.split(/[/?]/);
  switch (kind) {
    case "photos":
      return box.value ? `${count(total, "photo")} of ${store.total.toLocaleString("en")}` : "";
    case "duplicates":
      return total
        ? `${count(total, "group")} of photos that are nearly the same.`
        : "No photos are nearly the same.";
    case "duplicate":
      return `Group ${Number(number) + 1}: ${count(total, "photo")} that are nearly the same.`;
    case "cluster":
      return `Cluster ${Number(number) + 1}: ${count(total, "photo")}, the most typical first.`;
    case "outliers":
      return "The photos least like any others first. The number is the mean cosine to the nearest.";
    case "rows":
      return "Each query and its neighbors. The number is the cosine of the two embeddings.";
    case "clusters":
      return "Photos that are alike, the largest cluster first.";
    default:
      return "";
  }
}

// The image whose neighbors are shown: the original, or its thumbnail where that cannot be shown.
function queryBox(query) {
  const small = query.address ?? store.thumbnail(query.id);
  const original = query.address ? null : store.original(query.id);
  const picture = element("img", { src: original ?? small, alt: query.name });
  picture.addEventListener("error", () => picture.setAttribute("src", small), { once: true });
  const about = element("div", {}, element("h2", {}, query.name));
  const label = PAGE.classes?.[query.label];
  if (label !== undefined) about.append(element("p", {}, label));
  if (original) {
    about.append(element("a", { href: original, target: "_blank", rel: "noopener" }, "Original"));
  }
  about.append(element("p", { class: "faint" }, "The most similar photos, with their cosines:"));
  if (label !== undefined) about.append(legend());
  return element("div", { class: "query-box" }, picture, about);
}

function legend() {
  const same = element("b", { class: "same" }, "the same class");
  return element("p", { class: "faint" }, "Frames: ", same, ", ", element("b", { class: "other" }, "another"));
}

async function show() {
  const path = location.hash.slice(2) || home;
  if (shown.path !== null) places.set(shown.path, scrollY);
  shown.view?.close();
  const mine = { path, view: null };
  shown = mine;
  drawTabs(path);
  const asked = new URLSearchParams(path.split("?")[1]).get("q") ?? "";
  if (document.activeElement !== box) box.value = asked;
  main.setAttribute("aria-busy", "true");
  const slow = setTimeout(() => {
    if (shown === mine) tell("Computing ...");
  }, 300);
  try {
    const isMap = path === "map";
    const found = isMap ? await store.map() : await store.load(path, 0, BATCH);
    if (shown !== mine) return;
    const view = isMap
      ? new MapView(store, found)
      : new (found.groups ? Groups : Grid)(store, path, found);
    mine.view = view;
    main.replaceChildren(...(found.query ? [queryBox(found.query)] : []), view.host);
    if (path === "rows" && PAGE.classes.length) main.prepend(legend());
    view.layout?.();
    tell(isMap ? view.text() : told(path, found));
    scrollTo(0, places.get(path) ?? 0);
  } catch (error) {
    if (shown === mine) {
      main.replaceChildren();
      tell(error.message, true);
    }
  } finally {
    clearTimeout(slow);
    if (shown === mine) main.removeAttribute("aria-busy");
  }
}

function tell(text, isError = false) {
  state.textContent = text;
  state.classList.toggle("error", isError);
}

function searchNames() {
  const query = box.value.trim();
  const address = query ? `#/photos?q=${encodeURIComponent(query)}` : "#/photos";
  if (tabOf(shown.path) === "photos") {
    history.replaceState(null, "", address);
    show();
  } else {
    location.hash = address;
  }
}

function tileAbove(tile, sign) {
  const from = tile.getBoundingClientRect();
  let best = null;
  let least = Infinity;
  for (const other of document.querySelectorAll(".tile")) {
    const to = other.getBoundingClientRect();
    const down = sign * (to.top - from.top);
    const cost = 4 * down + Math.abs(to.left - from.left);
    if (down > from.height / 2 && cost < least) [best, least] = [other, cost];
  }
  return best;
}

function moveFocus(key) {
  const now = document.activeElement.closest?.(".tile");
  if (!now) return document.querySelector(".tile");
  const index = Number(now.dataset.index);
  if (key === "ArrowUp" || key === "ArrowDown") return tileAbove(now, key === "ArrowUp" ? -1 : 1);
  return document.querySelector(`.tile[data-index="${index + (key === "ArrowLeft" ? -1 : 1)}"]`);
}

function back() {
  if (within > 0) history.back();
  else location.hash = `#/${home}`;
}

addEventListener("keydown", (event) => {
  const typing = document.activeElement === box;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/" && !typing) {
    event.preventDefault();
    box.select();
    box.focus();
  } else if (event.key === "Escape" && typing) {
    if (box.value) {
      box.value = "";
      searchNames();
    }
    box.blur();
  } else if (event.key === "Escape") {
    if (/^(image|upload|cluster|duplicate)\//.test(shown.path)) back();
  } else if (shown.path === "map" && shown.view && !typing) {
    if (shown.view.press(event.key)) event.preventDefault();
  } else if (event.key.startsWith("Arrow") && (!typing || event.key === "ArrowDown")) {
    const next = moveFocus(event.key);
    event.preventDefault();
    next?.focus();
  } else if (event.key === "Enter" && typing) {
    document.querySelector(".tile")?.focus();
    event.preventDefault();
  }
});

let waiting;
box.addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(searchNames, 120);
});
addEventListener("hashchange", () => {
  within += 1;
  show();
});
history.scrollRestoration = "manual";
box.hidden = !store.tabs.some(([name]) => name === "photos");
show();
