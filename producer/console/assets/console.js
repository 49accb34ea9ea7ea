// What a page does by itself: goes on telling (server-sent events), draws charts, asks in a dialog, streams answers.
// Every page works without it.
"use strict";

(() => {
  const $ = (selector, within = document) => within.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  // -- live parts

  let live = null;

  function say(text) {
    const feed = $("#feed");
    if (feed && feed.textContent !== text) feed.textContent = text;
  }

  // Put the new part in; who stood on a link or button of the old one stands on the same of the new.
  function replace({ id, html }) {
    const place = document.getElementById(`part-${id}`);
    if (!place || (place.contains(document.activeElement) && document.activeElement.matches("input, textarea, select"))) return;
    const focused = place.contains(document.activeElement) ? document.activeElement : null;
    const mark = focused && (focused.getAttribute("href") || focused.getAttribute("aria-label") || focused.textContent);
    const kept = all(".scroll", place).map((box) => box.scrollLeft);
    htmx.swap(place, html, { swapStyle: "innerHTML", settleDelay: 0 });
    all(".scroll", place).forEach((box, at) => { box.scrollLeft = kept[at] || 0; });
    if (mark) {
      const same = all("a, button, [tabindex]", place).find(
        (one) => [one.getAttribute("href"), one.getAttribute("aria-label"), one.textContent].includes(mark));
      if (same) same.focus({ preventScroll: true });
    }
    draw(place);
  }

  function listen() {
    hush();
    const main = $("#main[data-live]");
    if (!main || document.hidden) return;
    live = new EventSource(main.dataset.live);
    live.addEventListener("open", () => say(""));
    live.addEventListener("part", (event) => replace(JSON.parse(event.data)));
    live.addEventListener("trouble", (event) => say(event.data));
    live.addEventListener("error", () => {
      if (live && live.readyState === EventSource.CLOSED) { say("no longer live: reload the page"); }
      else say("connecting again…");
    });
  }

  function hush() {
    if (live) live.close();
    live = null;
  }

  // A browser has few connections to one host: hidden pages give theirs back.
  document.addEventListener("visibilitychange", () => (document.hidden ? hush() : listen()));
  window.addEventListener("pagehide", hush);
  window.addEventListener("pageshow", (event) => { if (event.persisted) listen(); });

  // -- charts

  const charts = new Map();
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function short(value) {
    if (value === null || value === undefined) return "";
    if (value >= 1e6) return `${+(value / 1e6).toFixed(1)} M`;
    if (value >= 1e4) return `${+(value / 1e3).toFixed(1)} k`;
    return `${+value.toFixed(2)}`;
  }

  function labels(unit) {
    if (unit === "share") return (_, ticks) => ticks.map((tick) => `${Math.round(tick * 100)} %`);
    if (unit === "ms") return (_, ticks) => ticks.map((tick) => (tick >= 1000 ? `${+(tick / 1000).toFixed(1)} s` : `${short(tick)} ms`));
    return (_, ticks) => ticks.map(short);
  }

  function options(chart, width, height) {
    const font = "11px system-ui, sans-serif";
    const axis = { stroke: colour("--soft"), font, ticks: { show: false }, grid: { stroke: colour("--line"), width: 1 } };
    const colours = [colour("--c1"), colour("--c2")];
    const range = chart.unit === "share" ? [0, 1] : (_, low, high) => [0, Math.max(high || 0, 1e-9) * 1.1 || 1];
    return {
      width, height, padding: [6, 14, 0, 0],
      cursor: { y: false, points: { size: 6 } }, legend: { show: false }, scales: { y: { range } },
      axes: [
        { ...axis, grid: { show: false }, size: 22, space: 60, incrs: [1, 2, 5, 10, 15, 30].map((minutes) => 60 * minutes), values: "{HH}:{mm}" },
        { ...axis, size: 46, space: 28, values: labels(chart.unit) },
      ],
      series: [{}, ...chart.names.map((name, at) => ({
        label: name, stroke: colours[at % 2], width: 1.6, points: { show: chart.data[0].length < 3 }, spanGaps: false,
        fill: at === 0 ? `${colours[0]}1f` : undefined,
      }))],
    };
  }

  function draw(within = document) {
    for (const [place, plot] of charts) if (!place.isConnected) { plot.destroy(); charts.delete(place); }
    for (const place of all("[data-chart]", within)) {
      if (charts.has(place)) continue;
      const chart = JSON.parse(place.dataset.chart);
      charts.set(place, new uPlot(options(chart, place.clientWidth || 300, place.clientHeight || 108), chart.data, place));
    }
  }

  function redraw() {
    for (const [place, plot] of charts) { plot.destroy(); charts.delete(place); }
    draw();
  }

  let resizing = 0;
  window.addEventListener("resize", () => { clearTimeout(resizing); resizing = setTimeout(redraw, 120); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

  // -- questions

  document.addEventListener("htmx:afterSwap", (event) => {
    const target = event.detail.target || event.target;
    if (target.id === "ask" && target.childElementCount && !target.open) target.showModal();
    if (target.id === "answers") answer(target);
  });
  document.addEventListener("htmx:afterSettle", (event) => {
    if (event.target.id === "main") { listen(); draw(); }
  });
  document.addEventListener("click", (event) => {
    const closer = event.target.closest("dialog [data-close]");
    if (closer) { event.preventDefault(); closer.closest("dialog").close(); }
  });
  document.addEventListener("change", (event) => {
    const name = event.target.dataset && event.target.dataset.all;
    if (name) for (const box of all(`input[name="${name}"]`, event.target.form)) box.checked = event.target.checked;
  });

  // -- the playground's answers

  let answering = null;

  function answer(within) {
    if (answering) answering.close();
    const places = $("[data-answers]", within);
    if (!places || !$("[data-job]", places)) return;
    const place = (job) => all("[data-job]", places).find((one) => one.dataset.job === job);
    answering = new EventSource(places.dataset.answers.replace(/[?&]$/, ""));
    answering.addEventListener("open", () => { for (const text of all(".answer", places)) text.textContent = ""; });
    answering.addEventListener("delta", (event) => {
      const { job, text } = JSON.parse(event.data);
      $(".answer", place(job)).append(text);
      $(".said", place(job)).textContent = "writing…";
    });
    answering.addEventListener("end", (event) => {
      const { job, said, failed } = JSON.parse(event.data);
      $(".said", place(job)).textContent = said;
      $(".said", place(job)).classList.toggle("trouble", Boolean(failed));
    });
    answering.addEventListener("over", () => answering.close());
  }

  draw();
  listen();
  answer(document);
})();
