"use strict";
(() => {
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const rows = [...document.querySelectorAll(".direction")];
  const FRAMES = Number(document.body.style.getPropertyValue("--frames"));
  const MIDDLE = (FRAMES - 1) / 2;
  const PACE = 110; // ms between two frames

  const alphas = (row) => JSON.parse(row.dataset.alphas);
  const signed = (alpha) => (alpha > 0 ? "+" : alpha < 0 ? "−" : "") + String(Number(Math.abs(alpha).toPrecision(3)));
  const place = (element, frame) => { element.style.backgroundPositionX = `${(100 * frame) / (FRAMES - 1)}%`; };
  const source = (strip) => `url("${strip.querySelector("img").src}")`;

  // Forth and back through the frames, starting where the image stands.
  const animation = (show) => {
    let timer = 0;
    let frame = MIDDLE;
    let step = 1;
    return {
      get frame() { return frame; },
      get running() { return timer !== 0; },
      go(to) { frame = Math.max(0, Math.min(FRAMES - 1, to)); show(frame); },
      play() {
        if (timer) return;
        timer = setInterval(() => {
          if (frame + step < 0 || frame + step >= FRAMES) step = -step;
          this.go(frame + step);
        }, PACE);
      },
      stop() { clearInterval(timer); timer = 0; },
    };
  };

  // A direction's own small image, which moves while one of its strips is pointed at or focused.
  for (const row of rows) {
    const player = row.querySelector(".player");
    const caption = row.querySelector(".at");
    const own = alphas(row);
    const title = (strip) => strip.dataset.title;
    let current = row.querySelector(".strip");
    const moving = animation((frame) => {
      place(player, frame);
      caption.textContent = `${title(current)}, alpha ${signed(own[frame])}`;
    });
    const choose = (strip) => {
      current = strip;
      player.style.backgroundImage = source(strip);
      moving.go(moving.frame);
    };
    const begin = (strip) => { choose(strip); if (!calm.matches) moving.play(); };
    const end = () => { moving.stop(); moving.go(MIDDLE); };
    choose(current);
    for (const strip of row.querySelectorAll(".strip")) {
      strip.addEventListener("pointerenter", (event) => { if (event.pointerType !== "touch") begin(strip); });
      strip.addEventListener("pointermove", (event) => {
        if (!calm.matches || event.pointerType === "touch") return;
        const box = strip.getBoundingClientRect();
        moving.go(Math.floor((FRAMES * (event.clientX - box.left)) / box.width));
      });
      strip.addEventListener("pointerleave", end);
      strip.addEventListener("focus", () => { if (strip.matches(":focus-visible")) begin(strip); });
      strip.addEventListener("blur", end);
      strip.addEventListener("keydown", (event) => {
        const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
        if (!step) return;
        event.preventDefault();
        moving.stop();
        moving.go(moving.frame + step);
      });
      strip.addEventListener("click", () => { end(); open(strip); });
    }
  }

  // One strip, large.
  const large = document.getElementById("large");
  const image = large.querySelector(".image");
  const scrub = large.querySelector("input");
  const output = large.querySelector("output");
  const play = large.querySelector('[data-go="play"]');
  let shown = null;
  const cinema = animation((frame) => {
    const alpha = signed(alphas(shown.closest(".direction"))[frame]);
    place(image, frame);
    scrub.value = frame;
    scrub.setAttribute("aria-valuetext", alpha);
    output.textContent = alpha;
  });
  const run = (wanted) => {
    if (wanted) cinema.play(); else cinema.stop();
    play.textContent = wanted ? "Pause" : "Play";
    play.setAttribute("aria-pressed", String(wanted));
  };
  const set = (strip) => {
    shown = strip;
    const row = strip.closest(".direction");
    large.querySelector("h2").textContent = `${row.dataset.title}, ${strip.dataset.title}`;
    image.style.backgroundImage = source(strip);
    image.setAttribute("aria-label", strip.querySelector("img").alt);
    cinema.go(cinema.frame);
  };
  const open = (strip) => {
    set(strip);
    cinema.go(MIDDLE);
    large.showModal();
    scrub.focus();
    run(!calm.matches);
  };
  const visible = (row) => [...row.querySelectorAll(".strip:not([hidden])")];
  const go = {
    play: () => run(!cinema.running),
    sample: () => {
      const strips = visible(shown.closest(".direction"));
      set(strips[(strips.indexOf(shown) + 1) % strips.length]);
    },
    next: () => turn(1),
    previous: () => turn(-1),
  };
  const turn = (step) => {
    const all = [...document.querySelectorAll(".direction")]; // As they are sorted now.
    const row = shown.closest(".direction");
    const other = all[(all.indexOf(row) + step + all.length) % all.length];
    set(visible(other)[visible(row).indexOf(shown)]);
  };
  for (const button of large.querySelectorAll("[data-go]")) {
    button.addEventListener("click", () => go[button.dataset.go]());
  }
  scrub.addEventListener("input", () => { run(false); cinema.go(Number(scrub.value)); });
  large.addEventListener("click", (event) => { if (event.target === large) large.close(); });
  large.addEventListener("close", () => { run(false); shown.focus(); });

  // Order and samples.
  const sort = document.getElementById("sort");
  const reverse = document.getElementById("reverse");
  const status = document.getElementById("status");
  // What comes first: the least, or else the greatest.
  const UPWARDS = new Set(["index", "area"]);
  const order = () => {
    const key = sort.value;
    const sign = (UPWARDS.has(key) ? 1 : -1) * (reverse.checked ? -1 : 1);
    for (const list of document.querySelectorAll(".rows")) {
      const sorted = [...list.children].sort((a, b) => sign * (a.dataset[key] - b.dataset[key]) || a.dataset.index - b.dataset.index);
      list.append(...sorted);
    }
    status.textContent = `Sorted by ${sort.selectedOptions[0].text}${reverse.checked ? ", reversed" : ""}`;
  };
  sort.addEventListener("change", order);
  reverse.addEventListener("change", order);
  document.getElementById("shown").addEventListener("change", (event) => {
    const wanted = event.target.value;
    for (const strip of document.querySelectorAll(".strip")) {
      strip.hidden = wanted !== "all" && wanted !== strip.dataset.sample;
    }
  });
  document.querySelector(".controls").addEventListener("submit", (event) => event.preventDefault());

  // The matrix under the pointer.
  const matrix = document.getElementById("matrix");
  const pair = document.getElementById("pair");
  const cosines = JSON.parse(document.getElementById("cosines").textContent); // In hundredths.
  const says = pair.textContent;
  const cell = (event) => {
    const box = matrix.getBoundingClientRect();
    const index = (share) => Math.max(0, Math.min(cosines.length - 1, Math.floor(share * cosines.length)));
    return [index((event.clientY - box.top) / box.height), index((event.clientX - box.left) / box.width)];
  };
  matrix.addEventListener("pointermove", (event) => {
    const [first, second] = cell(event);
    pair.textContent = `${first} and ${second}: ${(cosines[first][second] / 100).toFixed(2)}`;
  });
  matrix.addEventListener("pointerleave", () => { pair.textContent = says; });
})();
