// The explorer: attention under the mouse. One module for the widget (the default export) and for
// the page (openPage). Everything that comes from a run is set as text, never as markup.

const LEVELS = 254;
const ABSENT = 255;
const SHARES = Float32Array.from({ length: 256 }, (_, code) =>
  code === ABSENT ? NaN : (code / LEVELS) ** 2
);
const AXES = ["step", "block", "head"];
const GROUP_COLOURS = ["#e69f00", "#56b4e9", "#009e73"];
const OUTLINES = [
  { colour: "#ffffff", dash: [] },
  { colour: "#ff7f50", dash: [6, 3] },
  { colour: "#7fdbff", dash: [2, 2] },
  { colour: "#ffd700", dash: [8, 2, 2, 2] },
  { colour: "#ff9ff3", dash: [4, 4] },
  { colour: "#c0ff8c", dash: [1, 3] },
];
// 256 colours each, red, green and blue in 8 bits
const PALETTES = {
  viridis:
    "RAFURAJWRQRXRQVZRgdaRghcRgpdRgteRw1gRw5hRxBjRxFkRxNlSBRnSBZoSBdpSBhqSBpsSBttSBxuSB1vSB9wSCBxSCFzSCN0SCR1SCV2SCZ3SCh4SCl5Ryp6Ryx6Ry17Ry58Ry99RjB+RjJ+RjN/RjSARTWBRTeBRTiCRDmDRDqDRDuEQz2EQz6FQj+FQkCGQkGGQUKHQUSHQEWIQEaIP0eIP0iJPkmJPkqJPkyKPU2KPU6KPE+KPFCLO1GLO1KLOlOLOlSMOVWMOVaMOFiMOFmMN1qMN1uNNlyNNl2NNV6NNV+NNGCNNGGNM2KNM2ONMmSOMmWOMWaOMWeOMWiOMGmOMGqOL2uOL2yOLm2OLm6OLm+OLXCOLXGOLHGOLHKOLHOOK3SOK3WOKnaOKneOKniOKXmOKXqOKXuOKHyOKH2OJ36OJ3+OJ4COJoGOJoKOJoKOJYOOJYSOJYWOJIaOJIeOI4iOI4mOI4qNIouNIoyNIo2NIY6NIY+NIZCNIZGMIJKMIJKMIJOMH5SMH5WLH5aLH5eLH5iLH5mKH5qKHpuKHpyJHp2JH56JH5+IH6CIH6GIH6GHH6KHIKOGIKSGIaWFIaaFIqeFIqiEI6mDJKqDJauCJayCJq2BJ62BKK6AKa9/KrB/LLF+LbJ9LrN8L7R8MbV7MrZ6NLZ5Nbd5N7h4OLl3Orp2O7t1Pbx0P7xzQL1yQr5xRL9wRsBvSMFuSsFtTMJsTsNrUMRqUsVpVMVoVsZnWMdlWshkXMhjXsliYMpgY8tfZcteZ8xcac1bbM1abs5YcM9Xc9BWddBUd9FTetFRfNJQf9NOgdNNhNRLhtVJidVIi9ZGjtZFkNdDk9dBldhAmNg+m9k8ndk7oNo5oto3pds2qNs0qtwyrdwwsN0vst0ttd4ruN4put4ovd8mwN8lwt8jxeAhyOAgyuEfzeEd0OEc0uIb1eIa2OIZ2uMZ3eMY3+MY4uQY5eQZ5+QZ6uUa7OUb7+Uc8eUd9OYe9uYg+OYh++cj/ecl",
  cividis:
    "ACJOACNPACRRACVTACVUACZWACdYAChZAChbACldACpfACphACtiACxkACxmAC1oAC5qAC5sAC9tADBvADBwADFwADFxATJxBTNxCDNwDDRwDzVwEjVwFDZwFjdwGDdvGjhvHDlvHjpvIDpvITtuIzxuJDxuJj1uJz5uKT9uKj9tK0BtLUFtLkFtL0JtMUNtMkNtM0RtNEVsNUVsNkZsOEdsOUhsOkhsO0lsPEpsPUpsPktsP0xsQExsQU1sQk5sQ05sRE9sRVBsRlFsR1FsSFJsSVNsSlNsS1RsTFVsTVVsTlZsT1dsUFdsUVhtUlltU1ptVFptVVttVVxtVlxtV11tWF5tWV5uWl9uW2BuXGFuXWFuXmJuXmNvX2NvYGRvYWVvYmVvY2ZwZGdwZWhwZWhwZmlwZ2pxaGpxaWtxamxxa21ybG1ybG5ybW9ybm9zb3BzcHFzcXJ0cnJ0cnN0c3R1dHR1dXV1dnZ2d3d2d3d3eHh3eXl3enp4e3p4fHt4fXx4fnx4fn14f354gH94gX94goB5g4F5hIJ5hYJ5hoN5h4R4iIV4iYV4ioZ4i4d4jIh4jYh4jol4j4p4kIt4kYt4kox4ko14k454lI53lY93lpB3l5F3mJJ3mZJ3mpN2m5R2nJV2nZV2npZ2n5d1oJh1oZl1opl1o5p0pJt0pZx0ppx0p51zqJ5zqZ9zqqBzq6ByrKFyraJyrqNxr6RxsKVxsaVws6ZwtKdvtahvtqlvt6luuKpuuattuqxtu61tvK5sva5svq9rv7BrwLFqwbJqwrNpw7NpxLRoxbVoxrZnx7dnyLhmyblly7llzLpkzbtjzrxjz71i0L5i0b9h0sBg08Bf1MFf1cJe1sNd18Rc2cVc2sZb28da3MhZ3chY3slY38pX4MtW4cxV4s1U5M5T5c9S5tBR59FQ6NJP6dNO6tNM69RL7dVK7tZJ79dI8NhG8dlF8tpE89tC9dxB9t0/994++N88+eA6++E4/OI2/eM0/uQ0/uU1/uY2/ug4",
};

// ---------------------------------------------------------------- data

function bytesOfBase64(text) {
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

async function unpacked(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

// Arrays by name, each {shape, data}; the packed bytes of one are found by bytesOf.
async function readArrays(described, bytesOf) {
  const found = {};
  for (const [name, { shape, type }] of Object.entries(described)) {
    const buffer = await unpacked(bytesOf(name, described[name]));
    const data = type === "f4" ? new Float32Array(buffer) : new Uint8Array(buffer);
    const size = shape.reduce((product, each) => product * each, 1);
    if (data.length !== size) throw new Error(`${name} has ${data.length} values, not ${size}`);
    found[name] = { shape, data };
  }
  return found;
}

// One run: its labels, and values of what is selected.
class Run {
  constructor(described, arrays, number) {
    Object.assign(this, described);
    this.arrays = arrays;
    this.number = number;
    this.references = described.references;
    this.generationTokens = this.generation.reduce((sum, [r, c]) => sum + r * c, 0);
    this.referenceTokens = this.grids.reduce((sum, [r, c]) => sum + r * c, 0);
    this.queryOf = new Map((this.maps?.query ?? []).map((token, place) => [token, place]));
    this.cache = new Map();
  }

  array(name) {
    return this.arrays[`${this.number}/${name}`];
  }

  // Places of an axis among the labels: all for "mean", null where it was not recorded.
  places(labels, chosen) {
    if (!labels) return [0];
    if (chosen === "mean") return labels.map((_, place) => place);
    const place = labels.indexOf(chosen);
    return place < 0 ? null : [place];
  }

  // Row numbers of an array (step, block, head, ...) for a selection; null where not recorded.
  rows(labels, shape, selection) {
    const found = AXES.map((axis, at) => {
      if (labels[axis] && shape[at] === 1 && labels[axis].length > 1) return [0];
      return this.places(labels[axis], selection[axis]);
    });
    if (found.includes(null)) return null;
    const rows = [];
    for (const s of found[0])
      for (const b of found[1])
        for (const h of found[2]) rows.push((s * shape[1] + b) * shape[2] + h);
    return rows;
  }

  kept(key, make) {
    if (!this.cache.has(key)) {
      if (this.cache.size > 24) this.cache.clear();
      this.cache.set(key, make());
    }
    return this.cache.get(key);
  }

  // Eq. 2: what each reference token gets of a generation token, on average.
  score(selection) {
    return this.kept(`score ${key(selection)}`, () => {
      const { shape, data } = this.array("score");
      const scale = this.array("score/scale").data;
      const tokens = shape[3];
      const sums = new Float64Array(tokens);
      const rows = this.rows(this, shape, selection);
      for (const row of rows)
        for (let t = 0; t < tokens; t++) sums[t] += SHARES[data[row * tokens + t]] * scale[row];
      return sums.map((sum) => sum / rows.length);
    });
  }

  // [text, generation, reference]: what a generation token gives each group, on average.
  mass(selection) {
    const { shape, data } = this.array("mass");
    const rows = this.rows(this, shape, selection);
    const sums = [0, 0, 0];
    for (const row of rows) for (let g = 0; g < 3; g++) sums[g] += data[row * 3 + g];
    return sums.map((sum) => sum / rows.length);
  }

  hasMaps() {
    return Boolean(this.array("maps"));
  }

  hasText() {
    return Boolean(this.array("text"));
  }

  mapRows(selection) {
    return this.hasMaps() ? this.rows(this.maps, this.array("maps").shape, selection) : null;
  }

  // The mean maps of a selection, (query, token), once they are made; they are made a little at a
  // time while nothing else happens, as a selection of many steps and blocks takes many reads.
  prepare(selection) {
    const rows = this.mapRows(selection);
    const wanted = key(selection);
    if (!rows || rows.length < 8 || this.mean?.wanted === wanted) return;
    const { shape, data } = this.array("maps");
    const [count, width] = [shape[3], shape[4]];
    if (count * width > 2 ** 22) return;
    const scale = this.array("maps/scale").data;
    const sums = new Float64Array(count * width);
    this.mean = { wanted, values: null };
    const mine = this.mean;
    let next = 0;
    const more = () => {
      if (this.mean !== mine) return;
      const until = performance.now() + 6;
      while (next < rows.length && performance.now() < until) {
        const first = rows[next++] * count;
        for (let query = 0; query < count; query++) {
          const factor = scale[first + query];
          const start = (first + query) * width;
          const to = query * width;
          for (let t = 0; t < width; t++) sums[to + t] += SHARES[data[start + t]] * factor;
        }
      }
      if (next < rows.length) setTimeout(more, 4);
      else mine.values = sums.map((sum) => sum / rows.length);
    };
    setTimeout(more, 30);
  }

  prepared(name, selection) {
    return name === "maps" && this.mean?.wanted === key(selection) ? this.mean.values : null;
  }

  // What some generation tokens give each key, on average; null where they were not recorded.
  given(name, selection, queries) {
    const array = this.array(name);
    const rows = array ? this.mapRows(selection) : null;
    const chosen = queries.map((token) => this.queryOf.get(token)).filter((q) => q !== undefined);
    if (!rows || !chosen.length) return null;
    const { shape, data } = array;
    const [count, keys] = [shape[3], shape[4]];
    const scale = name === "shares" ? null : this.array(`${name}/scale`).data;
    const sums = new Float64Array(keys);
    const mean = this.prepared(name, selection);
    if (mean) {
      for (const query of chosen)
        for (let k = 0; k < keys; k++) sums[k] += mean[query * keys + k];
      return sums.map((sum) => sum / chosen.length);
    }
    for (const row of rows)
      for (const query of chosen) {
        const at = row * count + query;
        const start = at * keys;
        if (scale) {
          const factor = scale[at];
          for (let k = 0; k < keys; k++) sums[k] += SHARES[data[start + k]] * factor;
        } else for (let k = 0; k < keys; k++) sums[k] += data[start + k];
      }
    return sums.map((sum) => sum / (rows.length * chosen.length));
  }

  // What each generation token gives some keys together; NaN for tokens without a map.
  taken(name, selection, keys) {
    const array = this.array(name);
    const rows = array ? this.mapRows(selection) : null;
    if (!rows) return null;
    const { shape, data } = array;
    const [count, width] = [shape[3], shape[4]];
    const scale = name === "shares" ? null : this.array(`${name}/scale`).data;
    const sums = new Float64Array(count);
    const mean = this.prepared(name, selection);
    if (mean) {
      for (let query = 0; query < count; query++)
        for (const each of keys) sums[query] += mean[query * width + each] * rows.length;
    } else for (const row of rows)
      for (let query = 0; query < count; query++) {
        const at = row * count + query;
        let sum = 0;
        if (scale) {
          for (const each of keys) sum += SHARES[data[at * width + each]];
          sum *= scale[at];
        } else for (const each of keys) sum += data[at * width + each];
        sums[query] += sum;
      }
    const found = new Float64Array(this.generationTokens).fill(NaN);
    this.maps.query.forEach((token, query) => (found[token] = sums[query] / rows.length));
    return found;
  }

  // What each generation token gives the reference.
  reading(selection) {
    return this.kept(`reading ${key(selection)}`, () => {
      if (this.array("shares")) return this.taken("shares", selection, [2]);
      const all = Array.from({ length: this.referenceTokens }, (_, token) => token);
      return this.taken("maps", selection, all);
    });
  }

  // Attention to the reference by block and step, [block][step], of the selected head.
  readingByBlock(head) {
    return this.kept(`by block ${head}`, () =>
      this.block.map((block) => this.step.map((step) => this.mass({ step, block, head })[2]))
    );
  }
}

function key(selection) {
  return AXES.map((axis) => selection[axis]).join(" ");
}

// ---------------------------------------------------------------- words

function percent(share) {
  if (!Number.isFinite(share)) return "not available";
  const value = 100 * share;
  if (value === 0) return "0 %";
  if (value < 0.001) return "below 0.001 %";
  const digits = Math.max(0, Math.min(4, 2 - Math.floor(Math.log10(value))));
  return `${value.toFixed(digits)} %`;
}

function plural(count, word) {
  return `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
}

// "0-3,7" for [0, 1, 2, 3, 7], and back.
function spans(numbers) {
  const parts = [];
  for (const number of [...numbers].sort((a, b) => a - b)) {
    const last = parts[parts.length - 1];
    if (last && number === last[1] + 1) last[1] = number;
    else parts.push([number, number]);
  }
  return parts.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`)).join(",");
}

function ofSpans(text, below) {
  const found = new Set();
  for (const part of text.split(",")) {
    const match = /^(\d{1,7})(?:-(\d{1,7}))?$/.exec(part);
    if (!match) continue;
    const last = Math.min(Number(match[2] ?? match[1]), below - 1);
    for (let number = Number(match[1]); number <= last; number++) found.add(number);
  }
  return found;
}

// ---------------------------------------------------------------- elements

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") element.className = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function drawn(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function largest(arrays) {
  let found = 0;
  for (const values of arrays)
    if (values) for (const value of values) if (value > found) found = value;
  return found;
}

// A picture with its tokens: heat, grid, outlines, cursor and brush.
class Panel {
  constructor(view, run, kind, part, offset, [rows, columns], url, called, before) {
    const name = called[0].toUpperCase() + called.slice(1);
    Object.assign(this, { view, run, kind, part, offset, rows, columns, name });
    this.whole = before + (before ? called : name);
    this.image = null;
    if (url) {
      this.image = new Image();
      this.image.onload = () => view.draw();
      this.image.src = url;
    }
    this.small = make("canvas");
    [this.small.width, this.small.height] = [columns, rows];
    this.canvas = make("canvas", { tabindex: 0, role: "application", class: "grid" });
    this.canvas.setAttribute("aria-roledescription", "token grid");
    this.canvas.style.aspectRatio = `${columns} / ${rows}`;
    this.legend = make("div", { class: "legend" });
    this.element = make(
      "figure",
      { class: `panel ${kind}` },
      make("figcaption", {}, name),
      this.canvas,
      this.legend
    );
    this.listen();
  }

  get size() {
    return this.rows * this.columns;
  }

  holds(token) {
    return token >= this.offset && token < this.offset + this.size;
  }

  // The token at a point of the page.
  at(event) {
    const box = this.canvas.getBoundingClientRect();
    const place = (value, start, length, count) =>
      Math.max(0, Math.min(count - 1, Math.floor(((value - start) / length) * count)));
    const row = place(event.clientY, box.top, box.height, this.rows);
    return this.offset + row * this.columns + place(event.clientX, box.left, box.width, this.columns);
  }

  rectangle(first, last) {
    const [a, b] = [first - this.offset, last - this.offset];
    const rows = [Math.floor(a / this.columns), Math.floor(b / this.columns)].sort((x, y) => x - y);
    const columns = [a % this.columns, b % this.columns].sort((x, y) => x - y);
    const found = new Set();
    for (let row = rows[0]; row <= rows[1]; row++)
      for (let column = columns[0]; column <= columns[1]; column++)
        found.add(this.offset + row * this.columns + column);
    return found;
  }

  listen() {
    const { canvas, view } = this;
    let start = null;
    let before = null;
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      const touch = event.pointerType === "touch" && !view.state.brushing;
      start = { token: this.at(event), moved: false, touch };
      before = event.shiftKey && view.state.brush?.kind === this.kind ? view.state.brush.tokens : null;
      if (!touch) canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      const token = this.at(event);
      if (start && !start.touch && (start.moved || token !== start.token)) {
        start.moved = true;
        const tokens = this.rectangle(start.token, token);
        view.set({
          brush: { kind: this.kind, tokens: new Set([...(before ?? []), ...tokens]) },
          hover: null,
        });
      } else if (event.pointerType !== "touch") view.set({ hover: { kind: this.kind, token } });
    });
    canvas.addEventListener("pointerup", (event) => {
      if (start && !start.moved) this.pin(start.token);
      if (start?.moved) view.save();
      start = null;
      if (event.pointerType === "touch") view.set({ hover: null });
    });
    canvas.addEventListener("pointercancel", () => (start = null));
    canvas.addEventListener("pointerleave", () => view.set({ hover: null }));
    canvas.addEventListener("blur", () => view.set({ hover: null }));
    canvas.addEventListener("keydown", (event) => this.press(event));
  }

  pin(token) {
    const { pin } = this.view.state;
    const again = pin && pin.kind === this.kind && pin.token === token;
    this.view.set({ pin: again ? null : { kind: this.kind, token } });
    this.view.save();
  }

  press(event) {
    const { view } = this;
    const { hover, pin } = view.state;
    const steps = {
      ArrowUp: [-1, 0],
      ArrowDown: [1, 0],
      ArrowLeft: [0, -1],
      ArrowRight: [0, 1],
    };
    const focus = [hover, pin].find((each) => each?.kind === this.kind && this.holds(each.token));
    const from = focus ? focus.token - this.offset : 0;
    if (event.key in steps) {
      const [down, right] = focus ? steps[event.key] : [0, 0];
      const row = Math.max(0, Math.min(this.rows - 1, Math.floor(from / this.columns) + down));
      const column = Math.max(0, Math.min(this.columns - 1, (from % this.columns) + right));
      const token = this.offset + row * this.columns + column;
      if (event.shiftKey) {
        this.anchor ??= this.offset + from;
        view.set({
          hover: { kind: this.kind, token },
          brush: { kind: this.kind, tokens: this.rectangle(this.anchor, token) },
        });
        view.save();
      } else {
        this.anchor = null;
        view.set({ hover: { kind: this.kind, token } });
      }
    } else if (event.key === "Enter" || event.key === " ") {
      this.pin(this.offset + from);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  // Values of all tokens of the kind, those of this panel drawn; null draws the picture alone.
  draw(values, highest, what) {
    const { canvas, view, rows, columns } = this;
    const ratio = window.devicePixelRatio || 1;
    const width = Math.max(1, Math.round((canvas.clientWidth || 240) * ratio));
    const height = Math.max(1, Math.round((width * rows) / columns));
    if (canvas.width !== width || canvas.height !== height) {
      [canvas.width, canvas.height] = [width, height];
    }
    const context = canvas.getContext("2d");
    context.globalAlpha = 1;
    context.fillStyle = "#8a8a8a";
    context.fillRect(0, 0, width, height);
    context.imageSmoothingEnabled = true;
    if (this.image?.complete && this.image.naturalWidth) {
      context.drawImage(this.image, 0, 0, width, height);
    }
    if (values) {
      this.heat(values, highest);
      context.globalAlpha = this.image ? view.state.opacity : 1;
      context.imageSmoothingEnabled = false;
      context.drawImage(this.small, 0, 0, width, height);
      context.globalAlpha = 1;
    }
    const [cell, line] = [[width / columns, height / rows], Math.max(1, ratio)];
    if (view.state.grid && cell[0] > 4 * ratio) this.gridLines(context, cell, width, height);
    if (this.kind === "reference")
      this.run.outlines.forEach(({ tokens }, at) => {
        const { colour, dash } = OUTLINES[at % OUTLINES.length];
        this.around(context, new Set(tokens), cell, 2 * line, colour, dash.map((d) => d * ratio));
      });
    const { brush } = view.state;
    if (brush?.kind === this.kind) this.around(context, brush.tokens, cell, 2.5 * line, "#ff2d95", []);
    for (const [focus, dash] of [
      [view.state.pin, []],
      [view.state.hover, [3 * ratio, 2 * ratio]],
    ])
      if (focus?.kind === this.kind && this.holds(focus.token))
        this.around(context, new Set([focus.token]), cell, 2 * line, "#ffffff", dash);
    this.legendOf(values, highest, what);
    canvas.setAttribute("aria-label", `${this.whole}, ${rows} by ${columns} tokens. ${what}`);
  }

  heat(values, highest) {
    const context = this.small.getContext("2d");
    const picture = context.createImageData(this.columns, this.rows);
    const palette = this.view.palette;
    for (let i = 0; i < this.size; i++) {
      const value = values[this.offset + i];
      if (Number.isNaN(value)) {
        picture.data.set([128, 128, 128, 255], 4 * i);
        continue;
      }
      const at = 3 * Math.max(0, Math.min(255, Math.round((255 * value) / (highest || 1))));
      picture.data[4 * i] = palette[at];
      picture.data[4 * i + 1] = palette[at + 1];
      picture.data[4 * i + 2] = palette[at + 2];
      picture.data[4 * i + 3] = 255;
    }
    context.putImageData(picture, 0, 0);
  }

  gridLines(context, cell, width, height) {
    context.strokeStyle = "rgba(255,255,255,0.22)";
    context.lineWidth = 1;
    context.beginPath();
    for (let column = 1; column < this.columns; column++) {
      const x = Math.round(column * cell[0]) + 0.5;
      context.moveTo(x, 0);
      context.lineTo(x, height);
    }
    for (let row = 1; row < this.rows; row++) {
      const y = Math.round(row * cell[1]) + 0.5;
      context.moveTo(0, y);
      context.lineTo(width, y);
    }
    context.stroke();
  }

  // The border of a set of tokens, dark below light so that it shows on every colour.
  around(context, tokens, cell, thick, colour, dash) {
    context.beginPath();
    for (let i = 0; i < this.size; i++) {
      if (!tokens.has(this.offset + i)) continue;
      const [row, column] = [Math.floor(i / this.columns), i % this.columns];
      const inside = (r, c) =>
        r >= 0 &&
        c >= 0 &&
        r < this.rows &&
        c < this.columns &&
        tokens.has(this.offset + r * this.columns + c);
      const [x, y] = [column * cell[0], row * cell[1]];
      const inset = thick / 2;
      const [left, right] = [x + inset, x + cell[0] - inset];
      const [top, bottom] = [y + inset, y + cell[1] - inset];
      if (!inside(row - 1, column)) this.line(context, x, top, x + cell[0], top);
      if (!inside(row + 1, column)) this.line(context, x, bottom, x + cell[0], bottom);
      if (!inside(row, column - 1)) this.line(context, left, y, left, y + cell[1]);
      if (!inside(row, column + 1)) this.line(context, right, y, right, y + cell[1]);
    }
    context.setLineDash([]);
    context.strokeStyle = "rgba(0,0,0,0.75)";
    context.lineWidth = thick + 2;
    context.stroke();
    context.setLineDash(dash);
    context.strokeStyle = colour;
    context.lineWidth = thick;
    context.stroke();
    context.setLineDash([]);
  }

  line(context, x, y, toX, toY) {
    context.moveTo(x, y);
    context.lineTo(toX, toY);
  }

  legendOf(values, highest, what) {
    const text = values ? `0 to ${percent(highest)}` : "";
    if (this.legend.dataset.text === `${text}|${what}|${this.view.state.palette}`) return;
    this.legend.dataset.text = `${text}|${what}|${this.view.state.palette}`;
    const bar = make("span", { class: "bar" });
    const palette = this.view.palette;
    const stops = Array.from({ length: 9 }, (_, i) => {
      const at = 3 * Math.round((255 * i) / 8);
      return `rgb(${palette[at]},${palette[at + 1]},${palette[at + 2]})`;
    });
    bar.style.background = `linear-gradient(90deg, ${stops.join(", ")})`;
    this.legend.replaceChildren(make("span", { class: "what" }, what));
    if (values) this.legend.append(make("span", { class: "scale" }, bar, text));
  }
}

// ---------------------------------------------------------------- the view

class View {
  constructor(root, page, arrays, host) {
    this.root = root;
    this.page = page;
    this.host = host;
    this.runs = page.runs.map((each, number) => new Run(each, arrays, number));
    const [run] = this.runs;
    const [first] = this.runs.filter((each) => each.maps);
    const start = (axis) => {
      const labels = first?.maps[axis] ?? run[axis];
      return labels.length > 1 ? "mean" : labels[0];
    };
    this.last = Object.fromEntries(AXES.map((axis) => [axis, run[axis][0]]));
    this.state = {
      step: start("step"),
      block: start("block"),
      head: start("head"),
      hover: null,
      pin: null,
      brush: null,
      brushing: false,
      palette: "viridis",
      opacity: 0.72,
      grid: true,
    };
    this.tables = Object.fromEntries(
      Object.entries(PALETTES).map(([name, text]) => [name, bytesOfBase64(text)])
    );
    this.restore(host.restore());
    this.build();
    this.draw();
    this.resized = new ResizeObserver(() => this.schedule());
    this.resized.observe(root);
  }

  get palette() {
    return this.tables[this.state.palette];
  }

  get selection() {
    const { step, block, head } = this.state;
    return { step, block, head };
  }

  // Change the state and draw in the next frame.
  set(changes) {
    const same = Object.entries(changes).every(
      ([name, value]) => JSON.stringify(value) === JSON.stringify(this.state[name]) && name !== "brush"
    );
    if (same) return;
    Object.assign(this.state, changes);
    if ("brush" in changes) this.host.brushed(this.brushedReference());
    this.schedule();
  }

  schedule() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.draw();
    });
  }

  brushedReference() {
    const { brush } = this.state;
    return brush?.kind === "reference" ? [...brush.tokens].sort((a, b) => a - b) : [];
  }

  // ------------------------------------------------ the state in a link

  save() {
    const { state } = this;
    const said = new URLSearchParams();
    for (const axis of AXES) said.set(axis, state[axis]);
    if (state.pin) said.set("token", `${state.pin.kind}.${state.pin.token}`);
    if (state.brush?.tokens.size) said.set("brush", `${state.brush.kind}.${spans(state.brush.tokens)}`);
    if (state.palette !== "viridis") said.set("colours", state.palette);
    if (state.opacity !== 0.72) said.set("opacity", state.opacity);
    if (!state.grid) said.set("grid", "off");
    this.host.save(said.toString());
  }

  // Only what fits the runs is taken from a link.
  restore(text) {
    const said = new URLSearchParams(text);
    const [run] = this.runs;
    const count = {
      generation: run.generationTokens,
      reference: run.referenceTokens,
      text: run.text,
    };
    for (const axis of AXES) {
      const value = said.get(axis);
      if (value === "mean" && run[axis].length > 1) this.state[axis] = "mean";
      else if (value && run[axis].includes(Number(value))) this.state[axis] = Number(value);
    }
    const split = (name) => /^(generation|reference|text)\.([\d,-]{1,100000})$/.exec(said.get(name) ?? "");
    const pin = split("token");
    if (pin && Number(pin[2]) < count[pin[1]]) {
      this.state.pin = { kind: pin[1], token: Number(pin[2]) };
    }
    const brush = split("brush");
    if (brush && brush[1] !== "text") {
      const tokens = ofSpans(brush[2], count[brush[1]]);
      if (tokens.size) this.state.brush = { kind: brush[1], tokens };
    }
    if (PALETTES[said.get("colours")]) this.state.palette = said.get("colours");
    const opacity = Number(said.get("opacity") ?? NaN);
    if (opacity >= 0 && opacity <= 1) this.state.opacity = opacity;
    if (said.get("grid") === "off") this.state.grid = false;
  }

  // ------------------------------------------------ elements

  build() {
    const { root } = this;
    this.sentence = make("p", { class: "sentence", id: `${this.host.name}-sentence` });
    this.spoken = make("p", { class: "unseen", role: "status", "aria-live": "polite" });
    this.controls = Object.fromEntries(AXES.map((axis) => [axis, this.slider(axis)]));
    this.sides = this.runs.map((run) => this.side(run));
    this.sentence.style.setProperty("--runs", this.runs.length > 1 ? 1.7 : 1);
    const [run] = this.runs;
    this.curve = drawn("svg", { viewBox: "0 0 320 130", role: "img", class: "curve" });
    this.curve.addEventListener("click", (event) => this.clickCurve(event));
    this.blocks = this.runs.map(() => make("canvas", { class: "blocks", role: "img" }));
    this.blocks.forEach((canvas) =>
      canvas.addEventListener("click", (event) => this.clickBlocks(canvas, event))
    );
    root.replaceChildren(
      make(
        "header",
        {},
        make("h1", {}, "Where the generation looks in the reference"),
        make("p", { class: "prompt" }, this.runs.length > 1 ? "" : run.prompt),
        this.spoken
      ),
      this.sentence,
      make(
        "div",
        { class: "controls", role: "group", "aria-label": "What is shown" },
        ...AXES.map((axis) => this.controls[axis].element),
        this.tools()
      ),
      make(
        "div",
        { class: "body" },
        make("div", { class: `runs of-${this.runs.length}` }, ...this.sides.map((side) => side.element)),
        make(
          "aside",
          { "aria-label": "Steps and blocks" },
          make("h2", {}, "Entropy of the attention to the reference"),
          this.curve,
          make("p", { class: "note" }, this.curveWords()),
          ...this.blocks.flatMap((canvas, number) => [
            make(
              "h2",
              {},
              this.runs.length > 1
                ? `Attention to the reference: ${this.runs[number].title}`
                : "Attention to the reference, block by step"
            ),
            canvas,
          ]),
          (this.blocksNote = make("p", { class: "note" }))
        )
      ),
      ...(this.page.live ? [this.liveArea()] : []),
      this.about()
    );
    root.addEventListener("keydown", (event) => this.press(event));
  }

  slider(axis) {
    const labels = this.runs[0][axis];
    const input = make("input", {
      type: "range",
      min: 0,
      max: labels.length - 1,
      step: 1,
      id: `${this.host.name}-${axis}`,
      oninput: () => {
        this.last[axis] = labels[Number(input.value)];
        this.set({ [axis]: this.last[axis] });
        this.save();
      },
    });
    const output = make("output", { for: input.id });
    const mean = make("input", {
      type: "checkbox",
      onchange: () => {
        this.set({ [axis]: mean.checked ? "mean" : this.last[axis] });
        this.save();
      },
    });
    const name = axis[0].toUpperCase() + axis.slice(1);
    const element = make(
      "div",
      { class: "slider" },
      make("label", { for: input.id }, name),
      input,
      output,
      labels.length > 1 ? make("label", { class: "mean" }, mean, "mean") : ""
    );
    return { element, input, output, mean };
  }

  tools() {
    const button = (text, title, action) =>
      make("button", { type: "button", title, onclick: action }, text);
    const palette = make(
      "select",
      {
        "aria-label": "Colours",
        onchange: () => {
          this.set({ palette: palette.value });
          this.save();
        },
      },
      ...Object.keys(PALETTES).map((name) =>
        make("option", { value: name, selected: name === this.state.palette }, name)
      )
    );
    const opacity = make("input", {
      type: "range",
      min: 0,
      max: 1,
      step: 0.01,
      value: this.state.opacity,
      "aria-label": "Strength of the colours over the pictures",
      class: "opacity",
      oninput: () => {
        this.set({ opacity: Number(opacity.value) });
        this.save();
      },
    });
    const grid = make("input", {
      type: "checkbox",
      checked: this.state.grid,
      onchange: () => {
        this.set({ grid: grid.checked });
        this.save();
      },
    });
    const brushing = make("button", {
      type: "button",
      class: "brush-tool",
      title: "With a finger, drag over a picture to brush tokens",
      "aria-pressed": "false",
      onclick: () => {
        this.state.brushing = !this.state.brushing;
        brushing.setAttribute("aria-pressed", String(this.state.brushing));
        this.root.classList.toggle("brushing", this.state.brushing);
      },
    });
    brushing.append("Brush by finger");
    this.settings = { palette, opacity, grid };
    this.linkButton = button("Copy link", "A link to exactly this view", () => this.copyLink());
    return make(
      "div",
      { class: "tools" },
      make("label", {}, "Colours ", palette),
      make("label", {}, "Strength ", opacity),
      make("label", {}, grid, "grid"),
      navigator.maxTouchPoints > 0 ? brushing : "",
      button("Clear", "No token pinned, no brush (Escape)", () => this.clear()),
      this.host.link ? this.linkButton : "",
      button("PNG", "Save this view as a picture", () => this.picture())
    );
  }

  side(run) {
    const name = this.runs.length > 1 ? `${run.title}: ` : "";
    const panels = [];
    let offset = 0;
    run.generation.forEach((grid, part) => {
      const layer = run.generation.length > 1 ? `${run.layer} ${part} of the generated image` : "generated image";
      panels.push(
        new Panel(this, run, "generation", part, offset, grid, run.generated[part], layer, name)
      );
      offset += grid[0] * grid[1];
    });
    offset = 0;
    run.grids.forEach((grid, part) => {
      const which = run.grids.length > 1 ? `reference ${part + 1}` : "reference";
      panels.push(
        new Panel(this, run, "reference", part, offset, grid, run.references[part], which, name)
      );
      offset += grid[0] * grid[1];
    });
    const shares = make("div", { class: "shares" });
    const words = make("div", { class: "words", role: "group", "aria-label": "Text tokens" });
    const buttons = run.hasText() ? this.wordButtons(run, words) : [];
    const outlines = make(
      "ul",
      { class: "outlines", "aria-label": "Outlines in the reference" },
      ...run.outlines.map(({ name: called, tokens }, at) => {
        const swatch = make("span", { class: "swatch" });
        swatch.style.borderColor = OUTLINES[at % OUTLINES.length].colour;
        swatch.style.borderStyle = OUTLINES[at % OUTLINES.length].dash.length ? "dashed" : "solid";
        return make("li", {}, swatch, `${called} (${plural(tokens.length, "token")})`);
      })
    );
    const element = make(
      "section",
      { class: "run", "aria-label": run.title },
      this.runs.length > 1 ? make("h2", {}, run.title) : "",
      make("div", { class: "panels" }, ...panels.map((panel) => panel.element)),
      run.outlines.length ? outlines : "",
      shares,
      run.hasText() ? words : ""
    );
    return { run, panels, shares, buttons, element };
  }

  wordButtons(run, holder) {
    const padding = run.words ? run.words.filter((word) => word === "<pad>").length : 0;
    const buttons = [];
    for (let token = 0; token < run.text; token++) {
      const word = run.words ? run.words[token] : `${token}`;
      if (word === "<pad>") {
        buttons.push(null);
        continue;
      }
      const focus = { kind: "text", token };
      const button = make(
        "button",
        {
          type: "button",
          class: run.words && token && !/^[ <]/.test(word) ? "word joined" : "word",
          onpointerenter: () => this.set({ hover: focus }),
          onpointerleave: () => this.set({ hover: null }),
          onfocus: () => this.set({ hover: focus }),
          onblur: () => this.set({ hover: null }),
          onclick: () => {
            const { pin } = this.state;
            this.set({ pin: pin?.kind === "text" && pin.token === token ? null : focus });
            this.save();
          },
        },
        word.trim() || "\u2423"
      );
      buttons.push(button);
      holder.append(button);
    }
    if (padding) {
      this.padding ??= new Map();
      const note = make("span", { class: "padding" });
      this.padding.set(run.number, note);
      holder.append(note);
    }
    return buttons;
  }

  curveWords() {
    const [run] = this.runs;
    const most = Math.log2(run.referenceTokens).toFixed(1);
    const [one, two] = this.runs.map((each) => each.title);
    const several = two ? `; blue is ${one}, orange ${two}` : "";
    return (
      `Bits by step; ${most} is the most. The line is the mean of all recorded blocks and heads, the ` +
      `dotted one the chosen block${several}. Click to choose a step.`
    );
  }

  about() {
    const { errors } = this.page;
    const largestError = (name) =>
      Math.max(0, ...this.runs.map((run) => errors[`${run.number}/${name}`] ?? 0));
    const lines = this.runs.map((run) => {
      const maps = run.maps
        ? `Maps of single tokens: ${run.maps.selection}, ${plural(run.maps.query.length, "generation token")}.`
        : "No maps of single tokens were recorded: hover shows means over the generation only.";
      return `${run.title}. Profile: ${run.selection}. ${maps}`;
    });
    const held = [["scores", "score"]];
    if (this.runs.some((run) => run.maps)) held.push(["maps", "maps"]);
    if (this.runs.some((run) => run.hasText())) held.push(["text", "text"]);
    const said = held.map(([word, name]) => `${word} by at most ${percent(largestError(name))}`);
    lines.push(
      `Values are held in 8 bits, finest near 0, and differ from the recorded ones: ${said.join(", ")}` +
        " of attention. Grey tokens were not there."
    );
    const keys = [
      ", and . : step",
      "[ and ] : block",
      "- and = : head",
      "s, b, h : mean of steps, blocks, heads",
      "in a picture, arrows : move to a token",
      "Enter : pin it",
      "Shift and arrows, or drag : brush",
      "Escape : clear",
    ];
    return make(
      "details",
      { class: "about" },
      make("summary", {}, "Data and keys"),
      ...lines.map((line) => make("p", {}, line)),
      make("ul", {}, ...keys.map((line) => make("li", {}, line)))
    );
  }

  // ------------------------------------------------ keys and clicks

  press(event) {
    const typing = event.target.matches("select, input[type=text]");
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const moves = { ",": ["step", -1], ".": ["step", 1], "[": ["block", -1], "]": ["block", 1] };
    Object.assign(moves, { "-": ["head", -1], "=": ["head", 1] });
    const means = { s: "step", b: "block", h: "head" };
    if (event.key in moves) {
      const [axis, by] = moves[event.key];
      const labels = this.runs[0][axis];
      const at = labels.indexOf(this.state[axis] === "mean" ? this.last[axis] : this.state[axis]);
      const next = this.state[axis] === "mean" ? at : at + by;
      this.choose({ [axis]: labels[Math.max(0, Math.min(labels.length - 1, next))] });
    } else if (event.key in means && this.runs[0][means[event.key]].length > 1) {
      const axis = means[event.key];
      this.set({ [axis]: this.state[axis] === "mean" ? this.last[axis] : "mean" });
      this.save();
    } else if (event.key === "Escape") this.clear();
    else return;
    event.preventDefault();
    // a notebook has keys of its own
    event.stopPropagation();
  }

  choose(labels) {
    Object.assign(this.last, labels);
    this.set(labels);
    this.save();
  }

  clear() {
    this.set({ pin: null, hover: null, brush: null });
    this.save();
  }

  clickCurve(event) {
    const box = this.curve.getBoundingClientRect();
    const { step } = this.runs[0];
    const share = (((event.clientX - box.left) / box.width) * 320 - 34) / 276;
    const at = Math.max(0, Math.min(step.length - 1, Math.round(share * (step.length - 1))));
    this.choose({ step: step[at] });
  }

  clickBlocks(canvas, event) {
    const box = canvas.getBoundingClientRect();
    const { step, block } = this.runs[0];
    const at = (value, start, length, count) =>
      Math.max(0, Math.min(count - 1, Math.floor(((value - start) / length) * count)));
    this.choose({
      step: step[at(event.clientX, box.left, box.width, step.length)],
      block: block[at(event.clientY, box.top, box.height, block.length)],
    });
  }

  async copyLink() {
    this.save();
    try {
      await navigator.clipboard.writeText(this.host.link());
      this.linkButton.textContent = "Copied";
    } catch {
      this.linkButton.textContent = "See the address bar";
    }
    setTimeout(() => (this.linkButton.textContent = "Copy link"), 2000);
  }

  // ------------------------------------------------ drawing

  get focus() {
    const { hover, pin, brush } = this.state;
    if (hover) return { kind: hover.kind, tokens: [hover.token] };
    if (pin) return { kind: pin.kind, tokens: [pin.token] };
    if (brush?.tokens.size) return { kind: brush.kind, tokens: [...brush.tokens], brush: true };
    return null;
  }

  // What is shown of a run for the focus: values by kind, and what they are in words.
  values(run) {
    const { focus, selection } = this;
    const found = {
      reference: run.score(selection),
      generation: run.hasMaps() ? run.reading(selection) : null,
      text: run.hasText() ? run.given("text", selection, run.maps.query) : null,
      shares: run.mass(selection),
      words: {
        reference: "What a generation token gives each token, on average",
        generation: run.hasMaps() ? "What each token gives the reference" : "",
      },
    };
    if (!focus) return found;
    if (focus.kind === "generation") {
      const row = run.given("maps", selection, focus.tokens);
      found.row = row;
      found.words.text = row ? "of these tokens" : "on average";
      if (row) {
        found.reference = row;
        found.words.reference = focus.brush
          ? "Where the brushed tokens look, on average"
          : "Where this token looks";
        found.shares = run.given("shares", selection, focus.tokens) ?? found.shares;
        found.text = run.given("text", selection, focus.tokens);
      }
    } else {
      const name = focus.kind === "text" ? "text" : "maps";
      const column = run.taken(name, selection, focus.tokens);
      found.column = column;
      if (column) {
        found.generation = column;
        found.words.generation =
          focus.kind === "text"
            ? "Who reads this text token"
            : focus.brush
              ? "What each token gives the brushed tokens"
              : "Who reads this token";
      }
    }
    return found;
  }

  draw() {
    const start = performance.now();
    const shown = this.sides.map(({ run }) => this.values(run));
    // runs that show the same thing show it on one scale
    const highest = shown.map(({ words }) =>
      Object.fromEntries(
        ["reference", "generation", "text"].map((kind) => [
          kind,
          largest(shown.filter((each) => each.words[kind] === words[kind]).map((each) => each[kind])),
        ])
      )
    );
    this.sides.forEach(({ run, panels, shares, buttons }, at) => {
      for (const panel of panels) {
        const { kind } = panel;
        panel.draw(shown[at][kind], highest[at][kind], shown[at].words[kind]);
      }
      this.drawShares(shares, shown[at].shares);
      this.drawWords(run, buttons, shown[at].text, highest[at].text);
    });
    this.drawControls();
    this.drawSteps();
    for (const run of this.runs) run.prepare(this.selection);
    const words = this.words(shown);
    if (this.sentence.textContent !== words) {
      this.sentence.textContent = words;
      clearTimeout(this.speaking);
      this.speaking = setTimeout(() => (this.spoken.textContent = words), 400);
    }
    this.frame = performance.now() - start;
  }

  drawControls() {
    const [run] = this.runs;
    const { palette, opacity, grid } = this.settings;
    palette.value = this.state.palette;
    if (Number(opacity.value) !== this.state.opacity) opacity.value = this.state.opacity;
    grid.checked = this.state.grid;
    for (const axis of AXES) {
      const { input, output, mean } = this.controls[axis];
      const chosen = this.state[axis];
      if (chosen !== "mean") this.last[axis] = chosen;
      const at = run[axis].indexOf(this.last[axis]);
      if (Number(input.value) !== at) input.value = at;
      mean.checked = chosen === "mean";
      const extra = { step: `t = ${Math.round(run.timestep[at])}`, block: run.kind[at], head: "" }[axis];
      const text = chosen === "mean" ? `mean of ${run[axis].length}` : `${chosen}${extra && `, ${extra}`}`;
      output.textContent = text;
      input.classList.toggle("averaged", chosen === "mean");
      input.setAttribute("aria-valuetext", text);
    }
  }

  drawShares(element, shares) {
    if (!element.firstChild) {
      this.runs[0].groups.forEach((group, at) => {
        const part = make("span", { class: "part" });
        part.style.background = GROUP_COLOURS[at];
        const label = make("span", { class: "label" });
        const dot = make("span", { class: "dot" });
        dot.style.background = GROUP_COLOURS[at];
        label.append(dot, make("span", {}, ""));
        if (at === 0) element.append(make("div", { class: "stack" }), make("div", { class: "labels" }));
        element.firstChild.append(part);
        element.lastChild.append(label);
      });
    }
    this.runs[0].groups.forEach((group, at) => {
      const share = Number.isFinite(shares[at]) ? shares[at] : 0;
      element.firstChild.children[at].style.flexGrow = share;
      element.lastChild.children[at].lastChild.textContent = `${group} ${percent(shares[at])}`;
    });
  }

  drawWords(run, buttons, values, highest) {
    const palette = this.palette;
    let padding = 0;
    buttons.forEach((button, token) => {
      const value = values ? values[token] : NaN;
      if (!button) {
        padding += value || 0;
        return;
      }
      const pinned = this.state.pin?.kind === "text" && this.state.pin.token === token;
      button.setAttribute("aria-pressed", String(pinned));
      if (!values) {
        button.style.background = "";
        button.style.color = "";
        button.title = "";
        return;
      }
      const at = Math.max(0, Math.min(255, Math.round((255 * value) / (highest || 1))));
      const [red, green, blue] = palette.subarray(3 * at, 3 * at + 3);
      button.style.background = `rgb(${red},${green},${blue})`;
      button.style.color = 0.3 * red + 0.59 * green + 0.11 * blue > 128 ? "#000" : "#fff";
      button.title = percent(value);
    });
    const note = this.padding?.get(run.number);
    if (note) {
      const count = buttons.filter((each) => !each).length;
      note.textContent = `and ${plural(count, "padding token")}${values ? `: ${percent(padding)}` : ""}`;
    }
  }

  drawSteps() {
    const [run] = this.runs;
    const stamp = `${key(this.selection)} ${this.state.palette} ${this.curve.clientWidth}`;
    if (this.stepsStamp === stamp) return;
    this.stepsStamp = stamp;
    this.drawCurve();
    const tables = this.runs.map((each) => each.readingByBlock(this.state.head));
    const highest = largest(tables.flat());
    this.blocks.forEach((canvas, number) => this.drawBlocks(canvas, this.runs[number], tables[number], highest));
    this.blocksNote.textContent =
      `Blocks ${run.block[0]} to ${run.block[run.block.length - 1]} from the top, steps ` +
      `${run.step[0]} to ${run.step[run.step.length - 1]} from the left; 0 to ${percent(highest)}. Click to choose both.`;
  }

  drawCurve() {
    const [first] = this.runs;
    const most = Math.log2(first.referenceTokens) || 1;
    const count = first.step.length;
    const x = (at) => 34 + (276 * at) / Math.max(1, count - 1);
    const y = (bits) => 108 - (96 * bits) / most;
    const path = (values) => {
      let text = "";
      let open = false;
      values.forEach((bits, at) => {
        if (!Number.isFinite(bits)) open = false;
        else {
          text += `${open ? "L" : "M"}${x(at).toFixed(1)} ${y(bits).toFixed(1)}`;
          open = true;
        }
      });
      return text;
    };
    const parts = [];
    for (const bits of [0, most / 2, most]) {
      parts.push(drawn("line", { x1: 34, x2: 310, y1: y(bits), y2: y(bits), class: "rule" }));
      parts.push(drawn("text", { x: 29, y: y(bits) + 4, "text-anchor": "end" }, bits.toFixed(1)));
    }
    parts.push(drawn("text", { x: 34, y: 126 }, `step ${first.step[0]}`));
    parts.push(drawn("text", { x: 310, y: 126, "text-anchor": "end" }, `step ${first.step[count - 1]}`));
    const said = [];
    this.runs.forEach((run, number) => {
      const values = [...run.array("entropy").data];
      parts.push(drawn("path", { d: path(values), class: `line run-${number}` }));
      if (count === 1) parts.push(drawn("circle", { cx: x(0), cy: y(values[0]), r: 3, class: "dot" }));
      const at = run.block.indexOf(this.state.block);
      if (at >= 0) {
        const width = run.block.length;
        const ofBlock = values.map((_, s) => run.array("block_entropy").data[s * width + at]);
        parts.push(drawn("path", { d: path(ofBlock), class: `line dotted run-${number}` }));
      }
      said.push(`${run.title}: ${values[0].toFixed(2)} bits at the first step, ${values[count - 1].toFixed(2)} at the last.`);
    });
    const here = first.step.indexOf(this.state.step);
    if (here >= 0) {
      parts.push(drawn("line", { x1: x(here), x2: x(here), y1: 8, y2: 110, class: "here" }));
    }
    this.curve.replaceChildren(...parts);
    this.curve.setAttribute("aria-label", `Entropy by step. ${said.join(" ")}`);
  }

  drawBlocks(canvas, run, table, highest) {
    const [steps, blocks] = [run.step.length, run.block.length];
    const ratio = window.devicePixelRatio || 1;
    const width = Math.round((canvas.clientWidth || 280) * ratio);
    const height = Math.round(Math.max(40, Math.min(16 * blocks, 300)) * ratio);
    canvas.style.height = `${height / ratio}px`;
    [canvas.width, canvas.height] = [width, height];
    const context = canvas.getContext("2d");
    const [w, h] = [width / steps, height / blocks];
    const palette = this.palette;
    table.forEach((row, b) =>
      row.forEach((value, s) => {
        const at = 3 * Math.round((255 * value) / (highest || 1));
        context.fillStyle = Number.isFinite(value)
          ? `rgb(${palette[at]},${palette[at + 1]},${palette[at + 2]})`
          : "#808080";
        context.fillRect(Math.floor(s * w), Math.floor(b * h), Math.ceil(w), Math.ceil(h));
      })
    );
    const [s, b] = [run.step.indexOf(this.state.step), run.block.indexOf(this.state.block)];
    const box = [s < 0 ? 0 : s * w, b < 0 ? 0 : b * h, s < 0 ? width : w, b < 0 ? height : h];
    if (s >= 0 || b >= 0)
      for (const [thick, colour] of [
        [4 * ratio, "#000"],
        [2 * ratio, "#fff"],
      ]) {
        context.lineWidth = thick;
        context.strokeStyle = colour;
        context.strokeRect(...box);
      }
    canvas.setAttribute(
      "aria-label",
      `${run.title}: attention to the reference, ${blocks} blocks by ${steps} steps, up to ${percent(highest)}.`
    );
  }

  // ------------------------------------------------ the selection in words

  place(run, kind, token) {
    if (kind === "text") return run.words ? `the text token "${run.words[token].trim()}"` : `text token ${token}`;
    if (kind === "reference" && !run.placed) return `number ${token}, which has no place`;
    const grids = kind === "generation" ? run.generation : run.grids;
    let left = token;
    for (let part = 0; part < grids.length; part++) {
      const [rows, columns] = grids[part];
      if (left < rows * columns) {
        const several = grids.length > 1;
        const which = several ? (kind === "generation" ? ` in ${run.layer} ${part}` : ` in reference ${part + 1}`) : "";
        return `row ${Math.floor(left / columns)}, column ${left % columns}${which}`;
      }
      left -= rows * columns;
    }
    return `token ${token}`;
  }

  selectionWords() {
    const [run] = this.runs;
    const said = AXES.map((axis) => {
      const chosen = this.state[axis];
      const labels = run[axis];
      if (chosen === "mean") return `mean of ${plural(labels.length, axis)}`;
      const at = labels.indexOf(chosen);
      if (axis === "step") return `step ${chosen} (timestep ${Math.round(run.timestep[at])})`;
      return axis === "block" ? `block ${chosen} (${run.kind[at]})` : `head ${chosen}`;
    }).join(", ");
    return said[0].toUpperCase() + said.slice(1);
  }

  words(shown) {
    const said = this.sides.map(({ run }, at) => {
      const text = this.runWords(run, shown[at]);
      return this.runs.length > 1 ? `${run.title}: ${text}` : text;
    });
    return `${this.selectionWords()}. ${said.join(" ")}`;
  }

  runWords(run, shown) {
    const { focus, selection } = this;
    const averaged = run.maps ? AXES.filter((axis) => !run.maps[axis] && selection[axis] !== "mean") : [];
    const coarse = averaged.length
      ? ` (Maps were recorded as the mean of ${averaged.map((axis) => `${axis}s`).join(" and ")}.)`
      : "";
    const shares = (given) =>
      run.groups.map((group, at) => `${percent(given[at])} to the ${group}`).join(", ").replace(/, ([^,]*)$/, " and $1");
    if (!focus) return `A generation token gives ${shares(shown.shares)}, on average.`;
    const many = focus.brush ? `The ${plural(focus.tokens.length, "brushed token")}` : "";
    const one = this.place(run, focus.kind, focus.tokens[0]);
    if (focus.kind === "generation") {
      if (!shown.row) return `${many || `Generation token at ${one}`}: ${this.missing(run)}`;
      let best = 0;
      for (let t = 1; t < shown.row.length; t++)
        if (shown.row[t] > shown.row[best] || Number.isNaN(shown.row[best])) best = t;
      const most = `most to the reference token at ${this.place(run, "reference", best)} (${percent(shown.row[best])})`;
      const who = many ? `${many} of the generation give` : `The generation token at ${one} gives`;
      return run.array("shares") ? `${who} ${shares(shown.shares)}; ${most}.${coarse}` : `${who} ${most}.${coarse}`;
    }
    if (focus.kind === "text") {
      const word = one[0].toUpperCase() + one.slice(1);
      return shown.column ? `${word} is read most by ${this.reader(run, shown.column)}.${coarse}` : `${word}: ${this.missing(run)}`;
    }
    const score = run.score(selection);
    const share = focus.tokens.reduce((sum, token) => sum + score[token], 0);
    const whole = score.reduce((sum, value) => sum + (value || 0), 0);
    const who = many ? `${many} of the reference get` : `The reference token at ${one} gets`;
    if (Number.isNaN(share)) return `${many || `The reference token at ${one}`}: not there in all of the selected steps.`;
    const part = `${who} ${percent(share)} of a generation token's attention, ${percent(share / whole)} of what the reference gets`;
    return shown.column ? `${part}; most from ${this.reader(run, shown.column)}.${coarse}` : `${part}. ${this.missing(run)}`;
  }

  reader(run, column) {
    let best = -1;
    for (let q = 0; q < column.length; q++)
      if (Number.isFinite(column[q]) && (best < 0 || column[q] > column[best])) best = q;
    return best < 0 ? "no token" : `the generation token at ${this.place(run, "generation", best)} (${percent(column[best])})`;
  }

  missing(run) {
    if (!run.hasMaps()) return "No maps of single tokens were recorded.";
    for (const axis of AXES) {
      const labels = run.maps[axis];
      if (labels && this.state[axis] !== "mean" && !labels.includes(this.state[axis]))
        return `Maps of single tokens were recorded at ${axis} ${spans(labels)}.`;
    }
    return "This token's map was not recorded.";
  }

  // ------------------------------------------------ live runs

  liveArea() {
    const strip = make("div", { class: "made" });
    const status = make("p", { class: "status", role: "status" });
    const buttons = [];
    const ask = (message, words) => {
      buttons.forEach((button) => (button.disabled = true));
      status.textContent = words;
      this.host.send(message);
    };
    const button = (text, action) => {
      const made = make("button", { type: "button", onclick: action }, text);
      buttons.push(made);
      return made;
    };
    const { swaps } = this.page.live;
    const chosen = make("select", { "aria-label": "Another reference" }, ...swaps.map((name) => make("option", { value: name }, name)));
    this.host.receive((answer) => {
      buttons.forEach((each) => (each.disabled = false));
      status.textContent = answer.words;
      if (answer.kind !== "made") return;
      const before = this.runs[0].generated[0];
      const old = before ? [make("figure", {}, make("img", { src: before, alt: "as shown" }), make("figcaption", {}, "As shown"))] : [];
      const now = make("figure", {}, make("img", { src: answer.image, alt: answer.words }), make("figcaption", {}, answer.words));
      strip.prepend(make("div", { class: "pair" }, ...old, now));
    });
    return make(
      "section",
      { class: "live", "aria-label": "Run again" },
      make("h2", {}, "Run again with a change"),
      make(
        "div",
        { class: "tools" },
        button("Prune to the brushed tokens", () => {
          const tokens = this.brushedReference();
          if (!tokens.length) status.textContent = "Brush tokens of the reference first: drag over it.";
          else ask({ action: "prune", tokens }, `Running with ${plural(tokens.length, "reference token")} ...`);
        }),
        button("Cut this head", () => {
          const { block, head } = this.state;
          if (block === "mean") status.textContent = "Choose a block first.";
          else ask({ action: "cut", block, head: head === "mean" ? null : head }, `Running without ${head === "mean" ? "all heads" : `head ${head}`} of block ${block} ...`);
        }),
        ...(swaps.length
          ? [chosen, button("Swap the reference", () => ask({ action: "swap", name: chosen.value }, `Running with ${chosen.value} ...`))]
          : [])
      ),
      status,
      strip
    );
  }

  // ------------------------------------------------ a picture of the view

  picture() {
    const panels = this.sides.flatMap((side) => side.panels);
    const [width, gap, margin] = [420, 24, 24];
    const wide = Math.min(panels.length, this.runs.length > 1 ? this.sides[0].panels.length : 2) || 1;
    const heights = panels.map((panel) => (width * panel.rows) / panel.columns);
    const tall = Math.max(...heights) + 52;
    const canvas = make("canvas");
    canvas.width = 2 * margin + wide * width + (wide - 1) * gap;
    const context = canvas.getContext("2d");
    context.font = "15px sans-serif";
    const lines = [];
    let line = "";
    for (const word of this.sentence.textContent.split(" ")) {
      if (line && context.measureText(`${line} ${word}`).width > canvas.width - 2 * margin) {
        lines.push(line);
        line = word;
      } else line = line ? `${line} ${word}` : word;
    }
    lines.push(line);
    canvas.height = 2 * margin + Math.ceil(panels.length / wide) * tall + lines.length * 21;
    context.fillStyle = "#ffffff";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.fillStyle = "#111111";
    panels.forEach((panel, at) => {
      const x = margin + (at % wide) * (width + gap);
      const y = margin + Math.floor(at / wide) * tall;
      context.font = "bold 15px sans-serif";
      context.fillText(panel.whole, x, y + 14, width);
      context.drawImage(panel.canvas, x, y + 22, width, heights[at]);
      context.font = "13px sans-serif";
      context.fillText(panel.legend.innerText.replace(/\s+/g, " "), x, y + heights[at] + 40, width);
    });
    context.font = "15px sans-serif";
    lines.forEach((text, at) =>
      context.fillText(text, margin, canvas.height - margin - (lines.length - 1 - at) * 21)
    );
    canvas.toBlob((blob) => {
      const url = URL.createObjectURL(blob);
      make("a", { href: url, download: "attention.png" }).click();
      setTimeout(() => URL.revokeObjectURL(url), 1000);
    });
  }
}

// ---------------------------------------------------------------- page and widget

async function show(root, page, bytesOf, host) {
  try {
    const arrays = await readArrays(page.arrays, bytesOf);
    const view = new View(root, page, arrays, host);
    root.explorer = view;
    root.dataset.ready = "yes";
    return view;
  } catch (error) {
    root.replaceChildren(make("p", { class: "failed" }, `This page cannot be shown: ${error.message}.`));
    throw error;
  }
}

// The page by itself: data stand in it, the state in its address.
async function openPage(owner) {
  const root = owner.getElementById("recast-explorer");
  const page = JSON.parse(owner.getElementById("recast-data").textContent);
  const host = {
    name: "explorer",
    restore: () => location.hash.slice(1),
    save: (text) => history.replaceState(null, "", `#${text}`),
    link: () => location.href,
    brushed: () => {},
  };
  const view = await show(root, page, (_, { data }) => bytesOfBase64(data), host);
  window.addEventListener("hashchange", () => {
    view.restore(location.hash.slice(1));
    view.schedule();
  });
}

// The widget: data and state are traits of the Python side, runs are messages to it.
let widgets = 0;

async function render({ model, el }) {
  const root = make("div", { class: "recast-explorer" });
  const light = document.body.dataset.jpThemeLight;
  if (light) root.classList.add(light === "true" ? "light" : "dark");
  el.append(root);
  const bytes = model.get("arrays");
  const whole = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const host = {
    name: `explorer-${++widgets}`,
    restore: () => model.get("state").link ?? "",
    save: (link) => {
      model.set("state", { link });
      model.save_changes();
    },
    brushed: (tokens) => {
      model.set("brushed", tokens);
      model.save_changes();
    },
    send: (message) => model.send(message),
    receive: (handle) => model.on("msg:custom", handle),
  };
  const part = (_, { start, length }) => whole.subarray(start, start + length);
  const view = await show(root, model.get("page"), part, host);
  return () => view.resized.disconnect();
}

export default { render };
