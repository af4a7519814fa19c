// The time line of a trial, which moves with the video and seeks in it, and the curves of runs. Drawn by plotly.js.
"use strict";
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const CONFIG = { displayModeBar: false, responsive: true, doubleClick: "reset" };
  const text = (words) => words.replace(/&/g, "&amp;").replace(/</g, "&lt;"); // plotly reads tags in names and titles
  const coarse = matchMedia("(pointer: coarse)").matches;

  function look(line) {
    if (line.kind === "truth") return { color: style("--ink"), dash: "solid", width: 2.4 };
    if (line.kind === "signal") return { color: style("--signal"), dash: "solid", width: 1.2 };
    const colour = style(`--run-${line.number % 6}`);
    return { color: colour, dash: DASHES[line.number % DASHES.length], width: 1.6 };
  }

  function axis(more) {
    const of_all = { gridcolor: style("--rule"), zerolinecolor: style("--rule"), linecolor: style("--rule"), automargin: false };
    return { ...of_all, tickfont: { size: 11 }, ...more };
  }

  const paper = (more) => ({
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "system-ui, sans-serif", size: 12, color: style("--ink") },
    showlegend: false,
    ...more,
  });

  // ---- a trial ----------------------------------------------------------------------------------------------------
  function bytes(text, Kind) {
    const raw = atob(text);
    const whole = new Uint8Array(raw.length);
    for (let at = 0; at < raw.length; at++) whole[at] = raw.charCodeAt(at);
    return new Kind(whole.buffer);
  }

  function trial() {
    const plot = byId("plot");
    const video = byId("video");
    const cursor = byId("cursor");
    const slider = byId("seek");
    const ticks = data.frames ? bytes(data.frames.ticks, Int32Array) : new Int32Array(0);
    const boxes = data.frames && data.frames.box ? bytes(data.frames.box, Int16Array) : null;
    const scores = data.frames && data.frames.score ? bytes(data.frames.score, Uint8Array) : null;
    const clock_s = data.frames ? data.frames.clock_s : 0; // how far the player's clock is ahead of that of the rows
    const every = data.frames ? data.frames.every : 1;
    const lanes = data.lanes;
    const LANE_PX = 84, TITLE_PX = 22, FOOT_PX = 34;
    const hidden = new Set();
    let now_s = ticks.length ? ticks[0] / 1e4 : 0;

    // The last frame that is on the screen at this time.
    function frameAt(time_s) {
      const wanted = time_s * 1e4 + 5;
      let low = 0, high = ticks.length - 1;
      while (low < high) {
        const middle = (low + high + 1) >> 1;
        if (ticks[middle] <= wanted) low = middle;
        else high = middle - 1;
      }
      return low;
    }

    function traces() {
      const found = [];
      lanes.forEach((lane, at) => {
        const yaxis = at ? `y${at + 1}` : "y";
        if (lane.gaps.length) {
          const x = [], y = [];
          for (const [start, end] of lane.gaps) {
            x.push(start, start, end, end, start, null);
            y.push(lane.low, lane.high, lane.high, lane.low, lane.low, null);
          }
          const colour = style("--gap");
          found.push({
            x, y, yaxis, mode: "lines", fill: "toself", hoverinfo: "skip", name: lane.gap_name, meta: lane.gap_name,
            line: { width: 1, color: colour }, fillcolor: style("--gap-fill"),
            fillpattern: { shape: "/", size: 6, solidity: 0.25, fgcolor: colour, bgcolor: "rgba(0,0,0,0)" },
          });
        }
        for (const line of lane.lines) {
          found.push({
            x: line.x, y: line.y, yaxis, mode: "lines", name: text(line.name), meta: line.name, line: look(line),
            connectgaps: false, hovertemplate: "%{y:.3~f}<extra>%{fullData.name}</extra>",
          });
        }
      });
      for (const each of found) each.visible = !hidden.has(each.meta);
      return found;
    }

    function layout() {
      const height = lanes.length * (LANE_PX + TITLE_PX) + FOOT_PX;
      const inside = height - FOOT_PX;
      const last = lanes.length > 1 ? `y${lanes.length}` : "y";
      const end_s = data.frames ? ticks[ticks.length - 1] / 1e4 : undefined;
      const made = paper({
        height,
        margin: { l: 44, r: 10, t: 0, b: FOOT_PX },
        hovermode: "x",
        dragmode: coarse ? false : "zoom",
        xaxis: axis({ anchor: last, ticksuffix: " s", range: data.frames ? [ticks[0] / 1e4, end_s] : undefined, showspikes: false }),
        hoverlabel: { font: { size: 11 }, namelength: 40 },
        annotations: [],
      });
      lanes.forEach((lane, at) => {
        const top = 1 - (at * (LANE_PX + TITLE_PX) + TITLE_PX) / inside;
        const bottom = Math.max(0, 1 - ((at + 1) * (LANE_PX + TITLE_PX)) / inside);
        const pad = (lane.high - lane.low) * 0.04;
        made[at ? `yaxis${at + 1}` : "yaxis"] = axis({
          domain: [bottom, top], range: [lane.low - pad, lane.high + pad], fixedrange: true, nticks: 4,
        });
        made.annotations.push({
          text: text(lane.title), xref: "paper", yref: "paper", x: 0, y: top, xanchor: "left", yanchor: "bottom",
          showarrow: false, font: { size: 12 },
        });
      });
      return made;
    }

    function place() {
      const across = plot._fullLayout && plot._fullLayout.xaxis;
      if (!across) return;
      const px = across.d2p(now_s);
      cursor.hidden = px < -1 || px > across._length + 1;
      cursor.style.left = `${across._offset + px}px`;
      cursor.style.height = `${plot.offsetHeight - FOOT_PX}px`;
    }

    function drawBox(frame) {
      const canvas = byId("box");
      if (!canvas || !video.clientWidth) return;
      const ratio = devicePixelRatio || 1;
      const [width, height] = [video.clientWidth, video.clientHeight];
      if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
        canvas.width = Math.round(width * ratio);
        canvas.height = Math.round(height * ratio);
      }
      const pen = canvas.getContext("2d");
      pen.setTransform(ratio, 0, 0, ratio, 0, 0);
      pen.clearRect(0, 0, width, height);
      canvas.dataset.box = "";
      if (!boxes || !data.video || !byId("show-box").checked || boxes[4 * frame] === -32768) return;
      const [across, down] = [width / data.video.width_px, height / data.video.height_px];
      const [left, top, right, bottom] = boxes.slice(4 * frame, 4 * frame + 4);
      canvas.dataset.box = [left, top, right, bottom].join(" ");
      for (const [colour, line] of [["#000", 4], ["#ffd400", 2]]) {
        pen.strokeStyle = colour;
        pen.lineWidth = line;
        pen.strokeRect(left * across, top * down, (right - left) * across, (bottom - top) * down);
      }
    }

    function show(time_s) {
      now_s = time_s;
      const frame = frameAt(time_s);
      slider.value = frame;
      const face = scores ? (scores[frame] ? `face ${(scores[frame] / 255).toFixed(2)}` : "no face") : "";
      const words = [`${time_s.toFixed(2)} s`, `row ${frame * every} of ${data.frames ? data.frames.rows : 0}`, face];
      byId("now").textContent = words.filter(Boolean).join(" · ");
      slider.setAttribute("aria-valuetext", words.filter(Boolean).join(", "));
      place();
      if (video) drawBox(frame);
      let current = null;
      for (const tile of tiles) if (Number(tile.dataset.t) <= time_s + 1e-3) current = tile;
      for (const tile of tiles) tile.classList.toggle("now", tile === current);
    }

    function seek(time_s) {
      const low = ticks.length ? ticks[0] / 1e4 : 0;
      const high = ticks.length ? ticks[ticks.length - 1] / 1e4 : 0;
      const wanted = Math.min(high, Math.max(low, time_s));
      if (video && video.readyState > 0) video.currentTime = wanted + clock_s + 1e-3; // within the frame, not on its edge
      show(wanted);
    }

    const tiles = [...document.querySelectorAll("#sheet .tile")];
    for (const tile of tiles) tile.addEventListener("click", () => seek(Number(tile.dataset.t)));
    slider.max = Math.max(0, ticks.length - 1);
    slider.addEventListener("input", () => seek(ticks[Number(slider.value)] / 1e4));

    if (video) {
      // While a seek is under way frames of an earlier one may still come: they must not move the slider back.
      const moved = () => { if (!video.seeking) show(video.currentTime - clock_s); };
      if (video.requestVideoFrameCallback) {
        const step = (_, frame) => {
          if (!video.seeking) show(frame.mediaTime - clock_s);
          video.requestVideoFrameCallback(step);
        };
        video.requestVideoFrameCallback(step);
      } else video.addEventListener("timeupdate", moved);
      video.addEventListener("seeked", moved);
      const unplayed = () => { byId("unplayed").hidden = false; };
      const loaded = () => (video.videoWidth ? moved() : unplayed()); // its sound alone may be played
      video.addEventListener("loadedmetadata", loaded);
      video.addEventListener("error", unplayed);
      if (video.error) unplayed(); // before this script ran
      else if (video.readyState > 0) loaded();
      byId("show-box").addEventListener("change", () => drawBox(frameAt(now_s)));
      new ResizeObserver(() => drawBox(frameAt(now_s))).observe(video);
    }

    // A click seeks; plotly keeps drags for itself.
    let pressed = null;
    plot.addEventListener("pointerdown", (event) => { pressed = [event.clientX, event.clientY]; }, true);
    addEventListener("pointerup", (event) => {
      const start = pressed;
      pressed = null;
      if (!start || Math.hypot(event.clientX - start[0], event.clientY - start[1]) > 4) return;
      const across = plot._fullLayout.xaxis;
      const px = event.clientX - plot.getBoundingClientRect().left - across._offset;
      if (px >= 0 && px <= across._length) seek(across.p2d(px));
    }, true);

    const legend = byId("legend");
    const looks = new Map();
    for (const lane of lanes) {
      for (const line of lane.lines) if (line.kind !== "signal") looks.set(line.name, line);
      if (lane.gaps.length) looks.set(lane.gap_name, null);
    }
    function fillLegend() {
      legend.replaceChildren();
      for (const [name, line] of looks) {
        const button = document.createElement("button");
        button.type = "button";
        button.setAttribute("aria-pressed", String(!hidden.has(name)));
        const swatch = document.createElementNS("http://www.w3.org/2000/svg", "svg");
        swatch.setAttribute("viewBox", "0 0 34 10");
        swatch.setAttribute("aria-hidden", "true");
        const mark = document.createElementNS("http://www.w3.org/2000/svg", "path");
        const how = line ? look(line) : { color: style("--gap"), width: 1, dash: "solid" };
        mark.setAttribute("d", line ? "M0 5H34" : "M2 9L8 1M8 9L14 1M14 9L20 1M20 9L26 1M26 9L32 1");
        mark.setAttribute("stroke", how.color);
        mark.setAttribute("stroke-width", how.width);
        mark.setAttribute("fill", "none");
        const dashes = { dash: "7 4", dot: "2 3", dashdot: "7 3 2 3", longdash: "11 4", longdashdot: "11 3 2 3" };
        if (dashes[how.dash]) mark.setAttribute("stroke-dasharray", dashes[how.dash]);
        swatch.append(mark);
        button.append(swatch, document.createTextNode(name));
        button.addEventListener("click", () => {
          if (!hidden.delete(name)) hidden.add(name);
          draw();
        });
        legend.append(button);
      }
    }

    function draw() {
      fillLegend();
      const range = plot._fullLayout ? plot._fullLayout.xaxis.range.slice() : null;
      const made = layout();
      if (range) made.xaxis.range = range;
      return Plotly.react(plot, traces(), made, CONFIG);
    }
    draw().then(() => {
      plot.on("plotly_relayout", place);
      plot.on("plotly_afterplot", place);
      show(now_s);
      document.documentElement.dataset.drawn = "yes";
    });
    dark.addEventListener("change", draw);
  }

  // ---- runs -------------------------------------------------------------------------------------------------------
  function runs() {
    data.systems.forEach((system, at) => {
      const place = document.querySelector(`[data-plot="curves${at}"]`);
      const lines = [];
      system.runs.forEach((run, number) => {
        const how = look({ kind: "run", number });
        const name = text(`fold ${run.fold}, seed ${run.seed}`);
        const each = { x: run.curves.epoch, mode: run.curves.epoch.length > 1 ? "lines" : "markers", name, line: how, marker: { color: how.color } };
        lines.push({ ...each, y: run.curves.P, hovertemplate: "P %{y:.3f}, epoch %{x}" });
        lines.push({ ...each, y: run.curves.loss, yaxis: "y2", showlegend: false, hovertemplate: "loss %{y:.3f}, epoch %{x}" });
      });
      // Whole epochs, about ten of them: 1, 2, 5, 10, 20 … apart.
      const epochs = Math.max(...system.runs.map((run) => Math.max(1, ...run.curves.epoch)));
      const ten = 10 ** Math.floor(Math.log10(Math.max(1, epochs / 10)));
      const dtick = [1, 2, 5, 10].map((step) => step * ten).find((step) => epochs / step <= 10);
      const side = (title, domain) => axis({ title: { text: title, standoff: 4 }, domain, automargin: true });
      Plotly.react(place, lines, paper({
        height: 360, margin: { l: 50, r: 10, t: 8, b: 40 }, showlegend: true, legend: { orientation: "h", y: 1.02, yanchor: "bottom" },
        xaxis: axis({ title: { text: "epoch" }, anchor: "y2", tick0: 0, dtick }), yaxis: side("P", [0.54, 1]), yaxis2: side("loss", [0, 0.46]),
      }), CONFIG);
    });
    data.comparisons.forEach((comparison, at) => {
      const place = document.querySelector(`[data-plot="cells${at}"]`);
      const x = [], y = [], means = [];
      for (const cell of comparison.cells) {
        means.push(cell.mean.P ?? null);
        for (const run of comparison.runs) if (run.cell === cell.cell) { x.push(run.scores.P); y.push(text(cell.cell)); }
      }
      const names = comparison.cells.map((cell) => text(cell.cell));
      Plotly.react(place, [
        { x, y, mode: "markers", name: "a run", marker: { color: style("--run-0"), symbol: "circle-open", size: 9 } },
        { x: means, y: names, mode: "markers", name: "mean", marker: { color: style("--ink"), symbol: "line-ns-open", size: 18, line: { width: 3 } } },
      ], paper({
        height: 90 + 34 * names.length, margin: { l: 10, r: 10, t: 8, b: 40 }, showlegend: true, legend: { orientation: "h", y: 1.02, yanchor: "bottom" },
        xaxis: axis({ title: { text: "P" } }), yaxis: axis({ automargin: true, autorange: "reversed", type: "category" }),
      }), CONFIG);
    });
    document.documentElement.dataset.drawn = "yes";
  }

  if (byId("plot")) trial();
  else {
    runs();
    dark.addEventListener("change", runs);
  }
})();
