"use strict";
(function () {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const thumbs = read("thumbs");
  const plots = read("plots");
  const source = (index) => "data:" + (thumbs[index].startsWith("iVBOR") ? "image/png" : "image/jpeg") + ";base64," + thumbs[index];
  const config = { responsive: true, displaylogo: false, displayModeBar: false };
  const touch = window.matchMedia("(pointer: coarse)").matches;
  const tip = document.getElementById("tip");
  const maps = [];

  // A tip of our own: file and class names arrive as text, never as markup.
  function showTip(event) {
    const point = event.points[0];
    const lines = [(point.data.meta || {}).caption, point.text && unescapeText(point.text)].filter(Boolean);
    tip.replaceChildren();
    if (point.customdata >= 0) {
      const image = document.createElement("img");
      image.src = source(point.customdata);
      image.alt = "";
      tip.append(image);
    }
    for (const line of lines) {
      const row = document.createElement("div");
      row.textContent = line;
      tip.append(row);
    }
    if (!tip.childNodes.length) return;
    tip.hidden = false;
    const { clientX: x, clientY: y } = event.event;
    const left = x + 16 + tip.offsetWidth > window.innerWidth ? x - 16 - tip.offsetWidth : x + 16;
    const top = Math.min(y + 12, window.innerHeight - tip.offsetHeight - 8);
    tip.style.left = Math.max(4, left) + "px";
    tip.style.top = Math.max(4, top) + "px";
  }
  function unescapeText(text) {
    const area = document.createElement("textarea");
    area.innerHTML = text;
    return area.value;
  }

  for (const [id, figure] of Object.entries(plots)) {
    const element = document.getElementById(id);
    const isMap = id.startsWith("plot-map-");
    // A finger on a map scrolls the page; a mouse drags a box to zoom.
    if (touch) figure.layout.dragmode = false;
    Plotly.newPlot(element, figure.data, figure.layout, config);
    if (isMap) {
      maps.push(element);
      element.on("plotly_hover", showTip);
      element.on("plotly_unhover", () => { tip.hidden = true; });
    }
  }
  window.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });

  for (const image of document.querySelectorAll("img[data-thumb]")) image.src = source(Number(image.dataset.thumb));

  const chips = [...document.querySelectorAll(".chips button")];
  for (const chip of chips) {
    chip.addEventListener("click", () => {
      const on = chip.getAttribute("aria-pressed") !== "true";
      for (const other of chips) other.setAttribute("aria-pressed", String(on && other === chip));
      for (const map of maps) {
        const opacity = map.data.map((trace) => (!on ? 0.8 : String(trace.meta.label) === chip.dataset.label ? 1 : 0.06));
        Plotly.restyle(map, { "marker.opacity": opacity });
      }
    });
  }

  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", async () => {
      const code = document.getElementById(button.dataset.copy);
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        // A page opened from a file may not write to the clipboard: select the text instead.
        window.getSelection().selectAllChildren(code);
        button.textContent = "Selected";
      }
    });
  }

  // Plotly sizes in pixels of the screen; paper is narrower.
  window.addEventListener("beforeprint", () => {
    for (const id of Object.keys(plots)) {
      const element = document.getElementById(id);
      Plotly.relayout(element, { width: Math.min(element.offsetWidth, element.closest(".pair") ? 330 : 690) });
    }
  });
  window.addEventListener("afterprint", () => {
    for (const id of Object.keys(plots)) Plotly.relayout(id, { width: null, autosize: true });
  });
})();
