"use strict";
(() => {
  const LEFT = 44, TOP = 24, RIGHT = 14, BOTTOM = 34; // CSS pixels around the data
  const LEAST = 8; // indices, at the closest
  const POWER = 0.7; // brings weak values up to where the eye sees them

  // Float16 bits -> number; the report holds finite ones alone.
  function half(bits) {
    const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
    return sign * (exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24);
  }

  // Base64 of little-endian float16 -> values, row by layer.
  function decode(text) {
    const bytes = atob(text), values = new Float32Array(bytes.length / 2);
    for (let i = 0; i < values.length; i++) values[i] = half(bytes.charCodeAt(2 * i) | (bytes.charCodeAt(2 * i + 1) << 8));
    return values;
  }

  // 1 + how many are larger in magnitude, in values[from..to-1].
  function rank(values, at, from, to) {
    const magnitude = Math.abs(values[at]);
    let larger = 0;
    for (let i = from; i < to; i++) if (Math.abs(values[i]) > magnitude) larger++;
    return larger + 1;
  }

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim().split(/\s+/).map(Number);
  }

  function painter() {
    const zero = colour("--zero"), negative = colour("--negative"), positive = colour("--positive");
    return (shade) => {
      const to = shade < 0 ? negative : positive, weight = Math.min(Math.abs(shade), 1) ** POWER;
      return zero.map((from, channel) => from + (to[channel] - from) * weight);
    };
  }

  function niceStep(span, most) {
    let step = 1;
    for (let factors = [2, 2.5, 2], i = 0; span / step > most; i++) step *= factors[i % 3];
    return Math.ceil(step);
  }

  function heatmap(runs) {
    const canvas = document.getElementById("heatmap"), readout = document.getElementById("readout");
    const context = canvas.getContext("2d"), picture = document.createElement("canvas");
    let run, values, rows, first, shown, columns, width, height;
    let cell = null, drag = null; // cell: {row, index}; drag: {from, to} in pixels of the plot

    const groupStart = (column) => first + Math.floor((column * shown) / columns);
    const across = (index) => LEFT + ((index - first) / shown) * width;

    // Of a column's indices the one of largest magnitude; of equals the positive, as in the pictures.
    function loudest(row, column) {
      let best = groupStart(column);
      for (let index = best + 1; index < groupStart(column + 1); index++) {
        const value = values[row * run.width + index], largest = values[row * run.width + best];
        if (Math.abs(value) > Math.abs(largest) || (value === -largest && value > 0)) best = index;
      }
      return best;
    }

    function choose(number) {
      run = runs[number];
      values = decode(run.values);
      rows = run.layers.length;
      document.getElementById("about").textContent = run.about;
      document.getElementById("low").textContent = (-run.limit).toPrecision(3);
      document.getElementById("high").textContent = run.limit.toPrecision(3);
      if (cell && (cell.row >= rows || cell.index >= run.width)) cell = null;
      zoom(0, run.width);
      tell();
    }

    function zoom(start, count) {
      shown = Math.max(Math.min(Math.round(count), run.width), Math.min(LEAST, run.width));
      first = Math.max(0, Math.min(Math.round(start), run.width - shown));
      paint();
    }

    function zoomAt(index, factor) {
      const share = (index - first) / shown, count = Math.max(shown * factor, LEAST);
      zoom(index - share * count, count);
    }

    // The values that can be seen, pooled to at most a column a pixel.
    function paint() {
      const scale = window.devicePixelRatio || 1;
      width = Math.max(canvas.clientWidth - LEFT - RIGHT, 50);
      height = Math.max(Math.min(14 * rows, 460), 120);
      canvas.style.height = `${height + TOP + BOTTOM}px`;
      canvas.width = Math.round(canvas.clientWidth * scale);
      canvas.height = Math.round((height + TOP + BOTTOM) * scale);
      context.setTransform(scale, 0, 0, scale, 0, 0);
      columns = Math.min(shown, Math.floor(width * scale));
      const pixels = new ImageData(columns, rows), shade = painter();
      for (let row = 0; row < rows; row++) {
        for (let column = 0; column < columns; column++) {
          const rgb = shade(values[row * run.width + loudest(row, column)] / run.limit);
          pixels.data.set([...rgb, 255], 4 * (row * columns + column));
        }
      }
      picture.width = columns;
      picture.height = rows;
      picture.getContext("2d").putImageData(pixels, 0, 0);
      legend(shade);
      draw();
    }

    function legend(shade) {
      const bar = document.getElementById("legend"), pixels = new ImageData(bar.width, 1);
      for (let x = 0; x < bar.width; x++) pixels.data.set([...shade((2 * x) / (bar.width - 1) - 1), 255], 4 * x);
      for (let y = 0; y < bar.height; y++) bar.getContext("2d").putImageData(pixels, 0, y);
    }

    function draw() {
      const text = `rgb(${colour("--text")})`, soft = `rgb(${colour("--soft")})`;
      context.clearRect(0, 0, canvas.width, canvas.height);
      context.imageSmoothingEnabled = false;
      context.drawImage(picture, LEFT, TOP, width, height);
      context.font = "11px system-ui, sans-serif";
      context.fillStyle = context.strokeStyle = soft;
      context.textBaseline = "middle";
      context.textAlign = "right";
      const every = Math.ceil(14 / (height / rows));
      for (let row = 0; row < rows; row += every) context.fillText(run.layers[row], LEFT - 6, TOP + ((row + 0.5) * height) / rows);
      context.textAlign = "center";
      context.textBaseline = "alphabetic";
      const step = niceStep(shown, Math.max(width / 70, 2));
      for (let index = Math.ceil(first / step) * step; index < first + shown; index += step) {
        context.fillRect(across(index + 0.5), TOP + height, 1, 4);
        context.fillText(index, across(index + 0.5), TOP + height + 15);
      }
      context.fillText("neuron index", LEFT + width / 2, TOP + height + 29);
      context.save();
      context.translate(10, TOP + height / 2);
      context.rotate(-Math.PI / 2);
      context.fillText("layer", 0, 0);
      context.restore();
      context.fillStyle = context.strokeStyle = text;
      let free = -Infinity; // labels that would touch move apart
      for (const mark of [...new Set(run.marks)].sort((a, b) => a - b)) {
        if (mark < first || mark >= first + shown) continue;
        const x = across(mark + 0.5), label = Math.max(x, free);
        free = label + 30;
        context.beginPath();
        context.moveTo(x, TOP);
        context.lineTo(label, TOP - 9);
        context.stroke();
        context.fillText(mark, label, TOP - 12);
      }
      if (drag && Math.abs(drag.to - drag.from) > 3) {
        context.fillStyle = `rgb(${colour("--link")} / 0.25)`.replaceAll(",", " ");
        context.fillRect(LEFT + Math.min(drag.from, drag.to), TOP, Math.abs(drag.to - drag.from), height);
      } else if (cell && cell.index >= first && cell.index < first + shown) {
        const x = across(cell.index), y = TOP + (cell.row * height) / rows, wide = Math.max(width / shown, 1), high = height / rows;
        context.fillStyle = text;
        context.globalAlpha = 0.55;
        const middle = Math.round(x + wide / 2 - 0.5);
        context.fillRect(middle, TOP, 1, y - TOP - 1);
        context.fillRect(middle, y + high + 1, 1, TOP + height - y - high - 1);
        context.fillRect(LEFT, Math.round(y + high / 2), x - LEFT - 1, 1);
        context.fillRect(x + wide + 1, Math.round(y + high / 2), LEFT + width - x - wide - 1, 1);
        context.globalAlpha = 1;
        context.strokeRect(x - 0.5, y - 0.5, wide + 1, high + 1);
      }
    }

    function tell() {
      readout.textContent = "";
      if (!cell) return;
      const at = cell.row * run.width + cell.index, from = cell.row * run.width;
      const said = {
        layer: run.layers[cell.row],
        index: cell.index,
        value: values[at].toPrecision(4),
        "rank of |v| in the layer": `${rank(values, at, from, from + run.width)} of ${run.width}`,
        "in all layers": `${rank(values, at, 0, values.length)} of ${values.length}`,
      };
      for (const [name, value] of Object.entries(said)) {
        const bold = document.createElement("b");
        bold.textContent = value;
        readout.append(`${name} `, bold, " ");
      }
    }

    function point(event) {
      const box = canvas.getBoundingClientRect();
      return { x: event.clientX - box.left - LEFT, y: event.clientY - box.top - TOP };
    }

    function cellAt({ x, y }) {
      if (x < 0 || y < 0 || x >= width || y >= height) return null;
      const row = Math.floor((y / height) * rows);
      return { row, index: loudest(row, Math.floor((x / width) * columns)) };
    }

    canvas.addEventListener("pointermove", (event) => {
      const place = point(event);
      if (drag) drag.to = Math.max(0, Math.min(place.x, width));
      cell = cellAt(place) || cell;
      tell();
      draw();
    });
    canvas.addEventListener("pointerdown", (event) => {
      const place = point(event);
      cell = cellAt(place) || cell;
      drag = { from: Math.max(0, Math.min(place.x, width)), to: place.x };
      canvas.setPointerCapture(event.pointerId);
      tell();
      draw();
    });
    canvas.addEventListener("pointerup", () => {
      const done = drag;
      drag = null;
      if (done && Math.abs(done.to - done.from) > 3) {
        const [low, high] = [done.from, done.to].sort((a, b) => a - b).map((x) => first + (x / width) * shown);
        zoom(Math.floor(low), Math.ceil(high) - Math.floor(low));
      } else draw();
    });
    canvas.addEventListener("pointercancel", () => {
      drag = null;
      draw();
    });
    canvas.addEventListener(
      "wheel",
      (event) => {
        if (document.activeElement !== canvas && !event.ctrlKey) return; // the page scrolls until the map was clicked
        event.preventDefault();
        const x = Math.max(0, Math.min(point(event).x, width));
        zoomAt(first + (x / width) * shown, event.deltaY < 0 ? 0.8 : 1.25);
      },
      { passive: false },
    );
    canvas.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
      const middle = cell ? cell.index + 0.5 : first + shown / 2;
      if (event.key in steps) {
        const [down, right] = steps[event.key], from = cell || { row: 0, index: first };
        cell = {
          row: Math.max(0, Math.min(from.row + down, rows - 1)),
          index: Math.max(0, Math.min(from.index + right, run.width - 1)),
        };
        tell();
        if (cell.index < first || cell.index >= first + shown) zoom(cell.index - shown / 2, shown);
        else draw();
      } else if (event.key === "+" || event.key === "=") zoomAt(middle, 0.5);
      else if (event.key === "-") zoomAt(middle, 2);
      else if (event.key === "Escape") zoom(0, run.width);
      else return;
      event.preventDefault();
    });
    document.getElementById("in").addEventListener("click", () => zoomAt(first + shown / 2, 0.5));
    document.getElementById("out").addEventListener("click", () => zoomAt(first + shown / 2, 2));
    document.getElementById("whole").addEventListener("click", () => zoom(0, run.width));
    document.getElementById("run").addEventListener("change", (event) => choose(Number(event.target.value)));
    new ResizeObserver(() => canvas.clientWidth * (window.devicePixelRatio || 1) !== canvas.width && paint()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
    window.addEventListener("beforeprint", () => {
      document.documentElement.dataset.print = "";
      paint();
    });
    window.addEventListener("afterprint", () => {
      delete document.documentElement.dataset.print;
      paint();
    });
    choose(Number(document.getElementById("run").value));
  }

  function sortable(table) {
    const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) =>
      head.firstElementChild.addEventListener("click", () => {
        const falling = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((each) => each.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", falling ? "descending" : "ascending");
        const key = (row) => row.cells[column].dataset.key;
        const number = (row) => (row.cells[column].classList.contains("number") ? Number(key(row)) : NaN);
        const compare = (a, b) => {
          if (!key(a) || !key(b)) return !key(a) - !key(b); // empty ones stay below
          const way = falling ? -1 : 1, difference = number(a) - number(b);
          return way * (Number.isNaN(difference) ? key(a).localeCompare(key(b)) : difference);
        };
        body.append(...[...body.rows].sort(compare));
      }),
    );
  }

  document.querySelectorAll("table").forEach(sortable);
  window.addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => (each.open = true)));
  const data = document.getElementById("heatmaps");
  if (data) heatmap(JSON.parse(data.textContent));
})();
