"use strict";
// Videos load when they come into view and are forgotten when they leave it. Those of a card start each round together.

const one = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const TYPES = { mp4: "video/mp4", png: "image/png" };
const STILL_MS = 150; // after the page was scrolled; until then no round begins, so that it scrolls smoothly
const PATIENCE_MS = 2; // that one frame of the screen may wait for videos and pictures to be decoded

const cards = all(".card");
const collator = new Intl.Collator("en", { numeric: true });
const scores = new Map(cards.map((card) => [card, JSON.parse(card.dataset.scores)]));
const dialog = one("#large");
let playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;

// -- media: a holder, a shot or a figure, has a canvas of its size until its video or picture comes into view. Thousands
// of videos that wait would cost a browser more than those that play.

const waiting = new Set(); // holders that are in view and not yet filled
const rounds = new Map(); // card or dialog → {videos, began}

const pictureIn = (holder) => one("video, img", holder);

function addressOf(name) {
  if (document.body.dataset.folder) return document.body.dataset.folder + name;
  const block = document.getElementById("media-" + name);
  if (!block) return null; // the page is still being read
  const text = atob(block.textContent);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return URL.createObjectURL(new Blob([bytes], { type: TYPES[name.split(".").pop()] }));
}

function fill(holder) {
  const address = addressOf(holder.dataset.media), room = one("canvas", holder);
  if (address === null) return;
  waiting.delete(holder);
  const picture = document.createElement(holder.dataset.media.endsWith(".mp4") ? "video" : "img");
  if (room.hasAttribute("width")) [picture.width, picture.height] = [room.width, room.height];
  picture.addEventListener("error", () => holder.classList.toggle("broken", picture.hasAttribute("src")));
  if (picture.tagName === "VIDEO") {
    Object.assign(picture, { muted: true, playsInline: true, preload: "auto", disablePictureInPicture: true });
    const key = holder.closest(".card, dialog");
    if (!rounds.has(key)) rounds.set(key, { videos: new Set(), began: -Infinity });
    rounds.get(key).videos.add(picture);
  } else picture.alt = holder.closest("dialog") ? holder.dataset.label : ""; // a shot has its name
  picture.src = address;
  room.replaceWith(picture);
}

function empty(holder) {
  waiting.delete(holder);
  const picture = pictureIn(holder);
  if (!picture) return;
  const room = document.createElement("canvas");
  if (picture.offsetWidth) [room.width, room.height] = [picture.offsetWidth, picture.offsetHeight];
  picture.replaceWith(room);
  URL.revokeObjectURL(picture.src);
  picture.removeAttribute("src");
  if (picture.tagName !== "VIDEO") return;
  picture.pause();
  picture.load(); // lets its memory go
  for (const [key, round] of rounds) if (round.videos.delete(picture) && !round.videos.size) rounds.delete(key);
}

const inView = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) empty(target);
    else if (!pictureIn(target)) waiting.add(target);
  }
}, { rootMargin: "25% 0px" });

const nearby = new IntersectionObserver((entries) => { // few cards are watched closely at a time
  for (const { target, isIntersecting } of entries) {
    for (const shot of all(".shot", target)) {
      if (isIntersecting) inView.observe(shot);
      else {
        inView.unobserve(shot);
        empty(shot);
      }
    }
  }
}, { rootMargin: "100% 0px" });

cards.forEach((card) => nearby.observe(card));

// -- in step

function restartIfOver(round, now) {
  const ready = [...round.videos].filter((video) => video.readyState >= 2);
  if (!ready.length || now - round.began < 1000 * Math.max(...ready.map((video) => video.duration))) return;
  round.began = now;
  for (const video of ready) {
    video.currentTime = 0;
    video.play().catch(() => {}); // it left the view meanwhile
  }
}

function hold(round) { // all at the same moment
  const ready = [...round.videos].filter((video) => video.readyState >= 1);
  const moment = Math.min(...ready.map((video) => video.currentTime));
  for (const video of ready) {
    video.pause();
    video.currentTime = moment;
  }
  round.began = -Infinity;
}

function setPlaying(wanted) {
  playing = wanted;
  one("#play").textContent = playing ? "Pause" : "Play";
  if (!playing) rounds.forEach(hold);
}

let scrolledAt = -Infinity;
addEventListener("scroll", () => { scrolledAt = performance.now(); }, { passive: true });

function frame(now) {
  const until = performance.now() + PATIENCE_MS;
  for (const holder of waiting) {
    fill(holder);
    if (performance.now() > until) break;
  }
  if (playing && now - scrolledAt > STILL_MS) for (const round of rounds.values()) restartIfOver(round, now);
  requestAnimationFrame(frame);
}

one("#play").addEventListener("click", () => setPlaying(!playing));
setPlaying(playing);
requestAnimationFrame(frame);

// -- filter and sort

const filter = one("#filter"), sort = one("#sort"), direction = one("#direction");

function applyFilter() {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const card of cards) {
    card.hidden = !words.every((word) => card.dataset.text.includes(word));
    count += !card.hidden;
  }
  one("#count").textContent = `${count} of ${cards.length}`;
  one("#nothing").hidden = count > 0 || !cards.length;
}

function applySort() {
  const descending = direction.getAttribute("aria-pressed") === "true" ? -1 : 1;
  const value = (card) => scores.get(card)[sort.value];
  const byName = (a, b) => collator.compare(a.dataset.name, b.dataset.name);
  cards.sort((a, b) => {
    if (!sort.value) return descending * byName(a, b);
    if (value(a) === undefined || value(b) === undefined) // those without one come last
      return (value(a) === undefined) - (value(b) === undefined) || byName(a, b);
    return descending * (value(a) - value(b)) || byName(a, b);
  });
  one("#clips").prepend(...cards);
}

filter.addEventListener("input", applyFilter);
sort.addEventListener("change", applySort);
direction.addEventListener("click", () => {
  const pressed = direction.getAttribute("aria-pressed") !== "true";
  direction.setAttribute("aria-pressed", pressed);
  direction.textContent = pressed ? "↓" : "↑";
  applySort();
});
for (const chip of all(".chip")) {
  chip.addEventListener("click", () => {
    const shown = chip.getAttribute("aria-pressed") !== "true";
    chip.setAttribute("aria-pressed", shown);
    for (const column of all(`.column[data-column="${chip.dataset.column}"]`)) column.hidden = !shown;
  });
}

// -- large

const shotsOf = (card) => all(".shot", card).filter((shot) => shot.checkVisibility({ contentVisibilityAuto: false }));
let opened = null; // the shot that is shown large

function showLarge(shot) {
  const card = shot.closest(".card"), stage = one(".stage", dialog), real = one(".real", card);
  clearStage();
  opened = shot;
  if (!dialog.open) {
    dialog.showModal();
    one("[data-close]", dialog).focus();
  }
  const beside = real && real !== shot && !shot.matches(".map") && innerWidth > 700 ? [real, shot] : [shot];
  for (const { dataset } of beside) {
    const figure = document.createElement("figure"), caption = document.createElement("figcaption");
    Object.assign(figure.dataset, { media: dataset.media, label: dataset.label });
    caption.textContent = dataset.label;
    figure.append(document.createElement("canvas"), caption);
    stage.append(figure);
    fill(figure);
    const picture = pictureIn(figure);
    for (const event of ["loadedmetadata", "load"])
      picture.addEventListener(event, () => enlarge(picture, beside.length));
  }
  one("#large-label").textContent = [card.dataset.name, shot.closest(".column")?.ariaLabel].filter(Boolean).join(" · ");
}

function enlarge(picture, beside) { // by a whole factor, as far as the window allows
  const width = picture.videoWidth || picture.naturalWidth, height = picture.videoHeight || picture.naturalHeight;
  const room = Math.min((innerWidth - 48) / beside / (width + 8), (innerHeight - 150) / height);
  const zoom = room >= 1 ? Math.floor(room) : room;
  picture.width = Math.round(width * zoom);
  picture.height = Math.round(height * zoom);
}

function step(by) {
  const shots = shotsOf(opened.closest(".card"));
  showLarge(shots[(shots.indexOf(opened) + by + shots.length) % shots.length]);
}

function clearStage() {
  all("figure", dialog).forEach(empty);
  one(".stage", dialog).replaceChildren();
}

dialog.addEventListener("close", () => {
  clearStage();
  focusOn(opened);
});
dialog.addEventListener("click", ({ target }) => {
  if (target.dataset.step) step(Number(target.dataset.step));
  else if (target === dialog || "close" in target.dataset) dialog.close();
});
addEventListener("click", ({ target }) => {
  const shot = target.closest?.(".shot");
  if (shot) showLarge(shot);
});

// -- keyboard: a card is one stop of the tab key, and arrows go on from there

for (const card of cards) all(".shot", card).forEach((shot, place) => { shot.tabIndex = place ? -1 : 0; });

function focusOn(shot) {
  if (!shot) return;
  all(".shot", shot.closest(".card")).forEach((other) => { other.tabIndex = other === shot ? 0 : -1; });
  shot.focus();
}

function move(shot, key) {
  const card = shot.closest(".card"), shots = shotsOf(card), place = shots.indexOf(shot);
  if (key === "ArrowLeft") return shots[place - 1];
  if (key === "ArrowRight") return shots[place + 1];
  if (key === "Home") return shots[0];
  if (key === "End") return shots.at(-1);
  const shown = cards.filter((each) => !each.hidden && one(".shot", each));
  const next = shown[shown.indexOf(card) + { ArrowUp: -1, ArrowDown: 1 }[key]];
  return next && (shotsOf(next)[0] ?? one(".shot", next));
}

addEventListener("keydown", (event) => {
  const { key, target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = target.matches("input, select");
  if (key === "/" && !typing && !dialog.open) {
    event.preventDefault();
    filter.focus();
    filter.select();
  } else if (key === " " && !typing && !target.matches("summary, .toolbar button, .bar button")) {
    event.preventDefault();
    setPlaying(!playing);
  } else if (dialog.open && (key === "ArrowLeft" || key === "ArrowRight")) {
    event.preventDefault();
    step(key === "ArrowLeft" ? -1 : 1);
  } else if (target.matches(".shot") && /^(Arrow|Home|End)/.test(key)) {
    event.preventDefault();
    focusOn(move(target, key));
  }
});
addEventListener("keyup", (event) => { // space pauses; enter is what opens
  if (event.key === " " && event.target.matches(".shot")) event.preventDefault();
});

// -- settings, dark and light

addEventListener("toggle", ({ target }) => {
  const id = target.dataset?.settings;
  if (id && target.open && !one(".whole", target)) {
    const whole = document.createElement("div");
    whole.className = "whole";
    whole.append(document.getElementById(id).content.cloneNode(true));
    target.append(whole);
  }
}, true);

function kept(value) { // a page in a frame may not be allowed to keep anything
  try {
    if (value) localStorage.setItem("gallery-theme", value);
    return localStorage.getItem("gallery-theme");
  } catch {
    return null;
  }
}

const root = document.documentElement;
if (kept()) root.dataset.theme = kept();
one("#theme").addEventListener("click", () => {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  kept(root.dataset.theme);
});
