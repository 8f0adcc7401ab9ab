// Videos in step, a pause, and the keys 1 to 5. Without it the page works too.
"use strict";

const videos = [...document.querySelectorAll("video")];
const media = [...videos, ...document.querySelectorAll("img")];
const fields = [...document.querySelectorAll("fieldset")];
const form = document.querySelector("form");

// -- in step: when all can play they begin together, and begin again together

let paused = false;

function playTogether() {
  for (const video of videos) video.currentTime = 0;
  if (!paused) for (const video of videos) video.play().catch(() => {});
}

if (videos.length) {
  const ready = videos.map((video) => video.readyState >= 4 || new Promise((done) => {
    video.addEventListener("canplaythrough", done, { once: true });
  }));
  Promise.all(ready).then(() => {
    for (const video of videos) video.loop = false;
    // One of them ends last; the others wait on their last frame until then.
    const ended = new Set();
    for (const video of videos) {
      video.addEventListener("ended", () => {
        ended.add(video);
        if (ended.size < videos.length) return;
        ended.clear();
        playTogether();
      });
    }
    playTogether();
  });
  const button = document.getElementById("pause");
  button.hidden = false;
  button.addEventListener("click", () => {
    paused = !paused;
    button.textContent = paused ? "Play" : "Pause";
    for (const video of videos) paused ? video.pause() : !video.ended && video.play().catch(() => {});
  });
}

for (const one of media) {
  one.addEventListener("error", () => { document.getElementById("unloaded").hidden = false; });
}

// -- keys: a number answers the question that has the focus, else the first without an answer, else the last one

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Enter" && !event.target.closest("a, button")) {
    event.preventDefault();
    form.requestSubmit();
  } else if (/^[1-5]$/.test(event.key)) {
    const open = (field) => !field.querySelector("input:checked");
    const focused = document.activeElement.closest("fieldset");
    const field = (focused && open(focused) ? focused : fields.find(open)) || focused || fields[fields.length - 1];
    const chosen = field.querySelector(`input[value="${event.key}"]`);
    chosen.checked = true;
    chosen.focus();
  }
});

// -- one click, one answer

form.addEventListener("submit", (event) => {
  if (form.dataset.sent) event.preventDefault();
  form.dataset.sent = "yes";
});
window.addEventListener("pageshow", () => { delete form.dataset.sent; });
