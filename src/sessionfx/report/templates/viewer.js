// The viewer of a section: unpacks the maps that report/viewer.py packed and lets niivue draw them.
// Values are computed here from the packed maps; niivue only draws colours that were chosen here as well.
(() => {
"use strict";
const FAINTEST = 0.55; // the most of its colour that a value below the threshold has, as in the static pictures
const SLICES = 3, SURFACE = 4; // niivue's names for what it shows
const NO_WEBGL = "This browser draws nothing in 3-D (it has no WebGL 2), so the viewer stays closed. The pictures and tables of this page show the same maps.";
const GAP = 4, DEGREES = 180 / Math.PI; // mm between the midline and a hemisphere
const KEYS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowDown: [1, -1], ArrowUp: [1, 1], PageDown: [2, -1], PageUp: [2, 1] };

function bytesOf(text) {
  const characters = atob(text);
  const bytes = new Uint8Array(characters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = characters.charCodeAt(i);
  return bytes;
}

async function unpacked(text) {
  const stream = new Blob([bytesOf(text)]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// A volume of codes with a border of zeros before the first voxel of every axis, so that each has its neighbours
function decoded(row, [nx, ny, nz], has) {
  const Y = nx + 1, Z = Y * (ny + 1), half = row.length / 2;
  const codes = new Int16Array(Z * (nz + 1));
  let k = 0, voxel = 0;
  for (let z = 0; z < nz; z++) for (let y = 0; y < ny; y++) {
    let i = 1 + Y * (y + 1) + Z * (z + 1);
    for (let x = 0; x < nx; x++, i++, voxel++) {
      if (!has(voxel)) continue;
      const word = row[k] | (row[half + k] << 8);
      k++;
      codes[i] = ((word >>> 1) ^ -(word & 1)) + codes[i - 1] + codes[i - Y] + codes[i - Z]
        - codes[i - 1 - Y] - codes[i - 1 - Z] - codes[i - Y - Z] + codes[i - 1 - Y - Z];
    }
  }
  return codes;
}

function forEachVoxel([nx, ny, nz], visit) {
  let voxel = 0;
  for (let z = 0; z < nz; z++) for (let y = 0; y < ny; y++) for (let x = 0; x < nx; x++)
    visit(voxel++, x + 1 + (nx + 1) * (y + 1 + (ny + 1) * (z + 1)));
}

// A NIfTI file in memory; datatype 2 is uint8, 2304 RGBA
function nifti(shape, affine, datatype, voxels) {
  const buffer = new ArrayBuffer(352 + voxels.byteLength), header = new DataView(buffer);
  header.setInt32(0, 348, true);
  [3, ...shape, 1, 1, 1, 1].forEach((size, i) => header.setInt16(40 + 2 * i, size, true));
  header.setInt16(70, datatype, true);
  header.setInt16(72, datatype === 2 ? 8 : 32, true);
  const sizes = [0, 1, 2].map((column) => Math.hypot(...affine.map((line) => line[column])));
  [1, ...sizes].forEach((size, i) => header.setFloat32(76 + 4 * i, size, true));
  header.setFloat32(108, 352, true);
  header.setFloat32(112, 1, true);
  header.setInt16(254, 2, true);
  affine.flat().forEach((value, i) => header.setFloat32(280 + 4 * i, value, true));
  [0x6e, 0x2b, 0x31].forEach((letter, i) => header.setUint8(344 + i, letter));
  new Uint8Array(buffer, 352).set(new Uint8Array(voxels.buffer));
  return buffer;
}

// 32-bit integers of which all lowest bytes stand first
function wholeNumbers(bytes) {
  const n = bytes.length / 4;
  return Int32Array.from({ length: n }, (_, i) => bytes[i] | (bytes[n + i] << 8) | (bytes[2 * n + i] << 16) | (bytes[3 * n + i] << 24));
}

function summed(steps) {
  for (let i = 1; i < steps.length; i++) steps[i] += steps[i - 1];
  return steps;
}

// Where a mesh points at a vertex, of length 1
function outwards({ points, triangles }, vertex) {
  const sum = [0, 0, 0], at = (corner, axis) => points[3 * corner + axis];
  for (let t = 0; t < triangles.length; t += 3) {
    const [a, b, c] = triangles.subarray(t, t + 3);
    if (a !== vertex && b !== vertex && c !== vertex) continue;
    const u = [0, 1, 2].map((axis) => at(b, axis) - at(a, axis)), v = [0, 1, 2].map((axis) => at(c, axis) - at(a, axis));
    for (let axis = 0; axis < 3; axis++) sum[axis] += u[(axis + 1) % 3] * v[(axis + 2) % 3] - u[(axis + 2) % 3] * v[(axis + 1) % 3];
  }
  const length = Math.hypot(...sum) || 1;
  return sum.map((value) => value / length);
}

function inverted([[a, b, c, p], [d, e, f, q], [g, h, i, r]]) {
  const det = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g);
  const rows = [[e * i - f * h, c * h - b * i, b * f - c * e], [f * g - d * i, a * i - c * g, c * d - a * f],
    [d * h - e * g, b * g - a * h, a * e - b * d]].map((row) => row.map((value) => value / det));
  return rows.map(([u, v, w]) => [u, v, w, -(u * p + v * q + w * r)]);
}

const applied = (affine, [x, y, z]) => affine.map(([a, b, c, d]) => a * x + b * y + c * z + d);
const written = (value, digits) => value.toFixed(digits).replace(/^-(?=[0.]*$)/, "").replace("-", "\u2212");
const placeText = (mm) => mm.map((value) => written(value, 1).replace(".0", "")).join(" ");

let library; // of the page, asked for once
function niivueOfPage() {
  library ??= unpacked(document.getElementById("niivue").textContent).then((bytes) => {
    const script = document.createElement("script");
    script.textContent = new TextDecoder().decode(bytes);
    document.head.append(script);
    return globalThis.niivue;
  });
  return library;
}

class Viewer {
  label = "Slices through the brain. Arrow keys, Page Up and Page Down move the crosshair.";
  howTo = "Click into a slice, type a place, or use the arrow keys, Page Up and Page Down on the picture.";
  static open; // browsers keep few WebGL contexts: one viewer is open at a time
  static last; // the key of the map that was chosen last

  constructor(root) {
    this.find = (name) => root.querySelector(`.viewer-${name}`);
    this.button = this.find("open");
    this.button.hidden = false;
    this.title = this.button.textContent;
    this.button.addEventListener("click", () => (Viewer.open === this ? this.close() : this.show()));
    for (const mark of (root.closest("section") ?? document.body).querySelectorAll("[data-viewer-at]")) {
      if (mark.dataset.viewerOf === root.dataset.of) this.makeButton(mark);
    }
  }

  makeButton(mark) {
    const cell = mark.matches("tr") ? mark.cells[0] : mark;
    let button = cell;
    if (!cell.matches("a, button")) {
      button = document.createElement("button");
      button.type = "button";
      button.className = "viewer-jump";
      button.append(...cell.childNodes);
      cell.append(button);
    }
    button.title = "Show in the viewer";
    mark.addEventListener("click", (event) => {
      if (event.target.closest("a") && button !== event.target.closest("a")) return; // a link in the row stays one
      event.preventDefault();
      this.show(mark.dataset.viewerAt.trim().split(/\s+/).map(Number), mark.dataset.viewerMap);
    });
  }

  async show(mm, key) {
    const isNew = Viewer.open !== this;
    if (isNew) {
      Viewer.open?.close();
      Viewer.open = this;
      this.button.setAttribute("aria-expanded", "true");
      this.button.textContent = "Close 3-D viewer";
      this.find("panel").hidden = false;
      this.find("panel").setAttribute("aria-busy", "true");
      this.ready = this.start();
    }
    for (let box = this.button.closest("details"); box; box = box.parentElement.closest("details")) box.open = true;
    this.find("panel").scrollIntoView({ block: "nearest" });
    await this.ready;
    if (Viewer.open !== this || !this.nv) return;
    const named = (name) => this.data.maps.find((candidate) => candidate.key === name);
    // a viewer that takes the place of another shows the same map
    const map = named(key) ?? (isNew ? named(Viewer.last) ?? this.map ?? this.data.maps[0] : undefined);
    if (map) await this.choose(map);
    this.moveTo(mm ?? this.mm ?? this.peak());
    this.find("panel").setAttribute("aria-busy", "false");
  }

  close() {
    Viewer.open = undefined;
    this.button.setAttribute("aria-expanded", "false");
    this.button.textContent = this.title;
    this.find("panel").hidden = true;
    if (!this.nv) return;
    this.nv.cleanup();
    this.nv.gl.getExtension("WEBGL_lose_context")?.loseContext();
    this.nv = undefined;
    this.find("stage").replaceChildren();
  }

  async start() {
    const status = this.find("status"), stage = this.find("stage");
    if (!document.createElement("canvas").getContext("webgl2")) return this.fail(NO_WEBGL);
    status.textContent = "Loading the viewer \u2026";
    try {
      if (!this.data) await this.read();
      const niivue = await niivueOfPage();
      const canvas = document.createElement("canvas");
      canvas.setAttribute("role", "application");
      canvas.setAttribute("aria-label", this.label);
      canvas.addEventListener("keydown", (event) => this.press(event));
      stage.replaceChildren(canvas);
      const nv = new niivue.Niivue({
        backColor: [0, 0, 0, 1], crosshairColor: [0.2, 0.9, 0.3, 1], crosshairGap: 4, crosshairWidth: 0.7, fontColor: [0.8, 0.8, 0.8, 1],
        isNearestInterpolation: true, multiplanarPadPixels: 12, multiplanarShowRender: niivue.SHOW_RENDER.NEVER, show3Dcrosshair: true,
        clipPlaneHotKey: "", cycleClipPlaneHotKey: "", viewModeHotKey: "", dragAndDropEnabled: false, logLevel: "error", scrollRequiresFocus: true,
      });
      await nv.attachToCanvas(canvas, false);
      await this.addScene(nv, niivue);
      this.nv = nv;
      status.textContent = "";
    } catch (error) {
      this.fail(`The viewer cannot be shown here (${error.message}). The pictures and tables of this page show the same maps.`);
    }
  }

  async addScene(nv, niivue) {
    const { anatomy, shape, affine } = this.data;
    nv.addVolume(await niivue.NVImage.new(nifti(anatomy.shape, anatomy.affine, 2, anatomy.voxels), "anatomy.nii", "gray", 1, null, 0, 255));
    this.colours = new Uint32Array(shape[0] * shape[1] * shape[2]);
    this.layer = await niivue.NVImage.new(nifti(shape, affine, 2304, this.colours), "map.nii");
    nv.addVolume(this.layer);
    nv.setSliceType(this.find("render").checked ? SURFACE : SLICES);
    nv.onLocationChange = (place) => this.map && this.moveTo(this.centre(place.mm));
  }

  fail(sentence) {
    this.find("status").textContent = sentence;
    for (const part of this.find("panel").children) part.hidden = part !== this.find("status");
  }

  // What the section holds, and the lists and sliders that choose from it
  async read() {
    const data = JSON.parse(this.find("data").textContent);
    data.toVoxel = inverted(data.affine);
    data.palette = bytesOf(data.colours);
    await this.readUnder(data);
    this.data = data;
    const [contrast, strategy, threshold, opacity] = ["contrast", "strategy", "threshold", "opacity"].map(this.find);
    contrast.append(...Array.from(new Set(data.maps.map((map) => map.sessionContrast)), (name) => new Option(name)));
    contrast.addEventListener("change", () => {
      const others = data.maps.filter((map) => map.sessionContrast === contrast.value);
      this.choose(others.find((map) => map.strategy === this.map.strategy) ?? others[0]);
    });
    strategy.addEventListener("change", () => this.choose(data.maps[strategy.value]));
    threshold.addEventListener("input", () => {
      this.threshold = Number(threshold.value);
      this.paint();
    });
    opacity.addEventListener("input", () => this.paint());
    this.listen();
  }

  async readUnder({ anatomy }) {
    const grey = decoded(await unpacked(anatomy.codes), anatomy.shape, () => true);
    anatomy.voxels = new Uint8Array(anatomy.shape[0] * anatomy.shape[1] * anatomy.shape[2]);
    forEachVoxel(anatomy.shape, (voxel, i) => {
      if (grey[i]) anatomy.voxels[voxel] = anatomy.darkest + anatomy.greyStep * (grey[i] - 1);
    });
  }

  listen() {
    const render = this.find("render");
    render.addEventListener("change", () => {
      this.nv.setSliceType(render.checked ? SURFACE : SLICES);
      this.paint();
    });
    for (const input of this.inputs()) input.addEventListener("change", () => {
      const mm = this.inputs().map((each) => each.valueAsNumber);
      if (mm.every(Number.isFinite)) this.moveTo(mm);
    });
  }

  inputs() {
    return [...this.find("panel").querySelectorAll(".viewer-mm")];
  }

  async choose(map) {
    const others = this.data.maps.filter((other) => other.sessionContrast === map.sessionContrast);
    for (const other of others) other.volume ??= await this.volumeOf(other);
    const slider = this.find("threshold");
    this.map = map;
    Viewer.last = map.key;
    this.threshold = map.threshold ?? Infinity;
    slider.step = this.data.coarse * map.step;
    slider.max = Math.max(map.vmax, map.threshold ?? 0);
    slider.value = map.threshold ?? map.vmax;
    this.find("contrast").value = map.sessionContrast;
    this.find("strategy").replaceChildren(...others.map((other) => new Option(other.strategy, this.data.maps.indexOf(other), false, other === map)));
    const [low, , high] = this.find("bar").children;
    low.textContent = map.volume.lowest < 0 ? written(-map.vmax, this.digits(map)) : "0";
    high.textContent = `${written(map.vmax, this.digits(map))} ${map.unit}`;
    const exact = `${written(this.data.knee * map.step, this.digits(map)).replace(/\.0*$/, "")}`;
    this.find("note").textContent = `${this.howTo} ` +
      `Values of size ${exact} ${map.unit} or more agree with the files to ${written(map.step, this.digits(map))} ${map.unit}, ` +
      `smaller ones to ${written(this.data.coarse * map.step, this.digits(map))}. ` +
      `Values below the threshold are faint.`;
    this.paint();
    if (this.mm) this.tell();
  }

  digits(map) {
    return Math.max(0, Math.round(-Math.log10(map.step)));
  }

  // Equal masks and equal maps were packed once and are unpacked once
  async volumeOf(map) {
    const { masks, codes, shape } = this.data;
    const mask = (masks[map.mask] = typeof masks[map.mask] === "string" ? await unpacked(masks[map.mask]) : masks[map.mask]);
    const has = (voxel) => (mask[voxel >> 3] >> (voxel & 7)) & 1;
    if (typeof codes[map.codes] === "string") codes[map.codes] = decoded(await unpacked(codes[map.codes]), shape, has);
    let lowest = 0, highest = 0;
    for (const code of codes[map.codes]) [lowest, highest] = [Math.min(code, lowest), Math.max(code, highest)];
    return { codes: codes[map.codes], has, lowest, highest };
  }

  // The least code that stands for values of at least this size
  leastCode(size, map) {
    const { knee, coarse } = this.data, steps = size / map.step - 1e-6;
    return Math.ceil(steps < knee ? steps / coarse : steps - knee + knee / coarse);
  }

  valueOf(code, map) {
    const { knee, coarse } = this.data, size = Math.abs(code), least = knee / coarse;
    return Math.sign(code) * map.step * (size < least ? size * coarse : knee + size - least);
  }

  // The voxel (x, y, z) of the maps at a place, and its value in a map: NaN where it has none
  voxelAt(mm) {
    return applied(this.data.toVoxel, mm).map(Math.round);
  }

  centre(mm) {
    return applied(this.data.affine, this.voxelAt(mm));
  }

  codeAt([x, y, z], map) {
    const [nx, ny, nz] = this.data.shape;
    if (x < 0 || y < 0 || z < 0 || x >= nx || y >= ny || z >= nz || !map.volume.has(x + nx * (y + ny * z))) return NaN;
    return map.volume.codes[x + 1 + (nx + 1) * (y + 1 + (ny + 1) * (z + 1))];
  }

  peak() {
    const { codes } = this.map.volume;
    const at = codes.reduce((best, code, i) => (Math.abs(code) > Math.abs(codes[best]) ? i : best), 0);
    const [nx, ny] = this.data.shape.map((size) => size + 1);
    return applied(this.data.affine, [(at % nx) - 1, (Math.floor(at / nx) % ny) - 1, Math.floor(at / nx / ny) - 1]);
  }

  moveTo(mm) {
    this.mm = mm;
    this.nv.scene.crosshairPos = this.nv.mm2frac(mm, 0, true); // true: real mm on oblique grids too
    this.nv.drawScene();
    this.tell();
  }

  press(event) {
    const key = KEYS[event.key];
    if (!key) return;
    event.preventDefault();
    const [axis, sign] = key;
    if (this.find("render").checked) {
      const { renderAzimuth, renderElevation } = this.nv.scene;
      return this.nv.setRenderAzimuthElevation(renderAzimuth + (axis === 0 ? 10 * sign : 0), renderElevation + (axis > 0 ? 10 * sign : 0));
    }
    // one voxel along the axis of the grid that runs most in this direction
    const { affine } = this.data, along = affine[axis].slice(0, 3).map(Math.abs), column = along.indexOf(Math.max(...along));
    this.moveTo(this.centre(this.mm.map((value, i) => value + sign * Math.sign(affine[axis][column]) * affine[i][column])));
  }

  // The values of every strategy at the crosshair
  tell() {
    const voxel = this.voxelAt(this.mm), table = this.find("values");
    table.caption.textContent = `${this.map.sessionContrast} at ${this.tellPlace()}`;
    table.tBodies[0].replaceChildren(...this.data.maps.filter((map) => map.sessionContrast === this.map.sessionContrast).map((map) => {
      const code = this.codeAt(voxel, map), row = document.createElement("tr"), name = document.createElement("th");
      name.scope = "row";
      name.textContent = map.strategy;
      row.append(name);
      const passes = map.threshold !== null && Math.abs(code) >= this.leastCode(map.threshold, map);
      row.insertCell().textContent = Number.isNaN(code) ? "no value here"
        : `${written(this.valueOf(code, map), this.digits(map))} ${map.unit}${passes ? ", suprathreshold" : ""}`;
      return row;
    }));
  }

  tellPlace() {
    this.inputs().forEach((input, axis) => (input.value = Math.round(10 * this.mm[axis]) / 10));
    return `${placeText(this.mm)} mm`;
  }

  colourOf(value, map) {
    const { palette } = this.data, i = 3 * Math.min(255, Math.max(0, Math.floor((value / map.vmax + 1) * 128)));
    return palette[i] | (palette[i + 1] << 8) | (palette[i + 2] << 16);
  }

  paint() {
    const { map, threshold } = this, { codes, has, lowest, highest } = map.volume;
    const limit = threshold === Infinity ? map.vmax : threshold;
    const least = threshold === Infinity ? Infinity : this.leastCode(threshold, map);
    const hidesRest = this.find("render")?.checked; // faint values would be fog around the surface
    const colour = (code) => {
      const value = this.valueOf(code, map);
      const faint = hidesRest ? 0 : FAINTEST * Math.min(1, Math.abs(value) / limit) ** 2;
      return (this.colourOf(value, map) | (Math.round(255 * (Math.abs(code) >= least ? 1 : faint)) << 24)) >>> 0;
    };
    const table = Uint32Array.from({ length: highest - lowest + 1 }, (_, i) => colour(lowest + i));
    this.fill((voxel, i) => (has(voxel) ? table[codes[i] - lowest] : 0), Number(this.find("opacity").value));
    this.nv.drawScene();
    this.find("shown").textContent = threshold === Infinity ? "none passed" : `${written(threshold, this.digits(map))} ${map.unit}`;
    this.paintBar(colour);
  }

  // Give every voxel its colour, by its number and where its code is
  fill(colourAt, opacity) {
    forEachVoxel(this.data.shape, (voxel, i) => (this.colours[voxel] = colourAt(voxel, i)));
    this.layer.img.set(new Uint8Array(this.colours.buffer));
    this.layer.opacity = opacity;
    this.nv.refreshLayers(this.layer, 1);
  }

  paintBar(colour) {
    const { map } = this, start = map.volume.lowest < 0 ? -1 : 0;
    const stops = Array.from({ length: 200 }, (_, i) => {
      const value = (start + ((i + 0.5) / 200) * (1 - start)) * map.vmax, rgba = colour(Math.sign(value) * this.leastCode(Math.abs(value), map));
      return `rgb(${rgba & 255} ${(rgba >> 8) & 255} ${(rgba >> 16) & 255} / ${(rgba >>> 24) / 255})`;
    });
    this.find("gradient").style.backgroundImage = `linear-gradient(to right, ${stops})`;
  }
}

// Both hemispheres, whose vertices are a volume of one row: a place is [feature, 0, 0]
class SurfaceViewer extends Viewer {
  label = "The cortex. Arrow keys turn it.";
  howTo = "Drag to turn the cortex, click on it, type a vertex, or use the arrow keys on the picture.";

  async readUnder(data) {
    data.of = summed(wholeNumbers(await unpacked(data.features)));
    let start = 0;
    for (const [number, part] of data.hemispheres.entries()) {
      part.points = Float32Array.from(wholeNumbers(await unpacked(part.points)), (whole) => whole * data.pointStep);
      part.triangles = Uint32Array.from(summed(wholeNumbers(await unpacked(part.triangles))));
      part.grey = await unpacked(part.grey);
      part.start = start;
      start += part.grey.length;
      // inner sides towards each other
      const x = part.points.filter((_, i) => i % 3 === 0), shift = part.name === "left" ? -GAP - Math.max(...x) : GAP - Math.min(...x);
      for (let i = 0; i < part.points.length; i += 3) part.points[i] += shift;
      this.find("hemisphere").append(new Option(part.name, number));
    }
    this.find("both").parentElement.hidden = data.hemispheres.length < 2;
  }

  async addScene(nv, niivue) {
    for (const part of this.data.hemispheres) {
      const rgba = new Uint8Array(4 * part.grey.length).fill(255);
      part.mesh = new niivue.NVMesh(part.points, part.triangles, part.name, rgba, 1, true, nv.gl);
      nv.addMesh(part.mesh);
      nv.setMeshShader(part.mesh.id, "Matte");
    }
    nv.setSliceType(SURFACE);
    const { clientWidth, clientHeight } = this.find("stage");
    nv.setScale(Math.min(1.25, Math.max(1, clientWidth / clientHeight)));
    nv.onLocationChange = ({ mm }) => this.map && mm && this.moveToVertex(this.nearest(mm));
    // niivue finds what is seen at a place when it is clicked twice; once does too, where nothing was dragged
    let pressed = [NaN, NaN];
    nv.canvas.addEventListener("pointerdown", ({ clientX, clientY }) => (pressed = [clientX, clientY]));
    nv.canvas.addEventListener("click", (event) => {
      if (Math.hypot(event.clientX - pressed[0], event.clientY - pressed[1]) < 3) nv.resetBriCon(event);
    });
  }

  listen() {
    const [hemisphere, vertex, both] = ["hemisphere", "vertex", "both"].map(this.find);
    for (const input of [hemisphere, vertex]) input.addEventListener("change", () => {
      const part = this.data.hemispheres[hemisphere.value], number = vertex.valueAsNumber;
      if (number >= 0 && number < part.grey.length) this.turnTo(part.start + Math.floor(number));
    });
    both.addEventListener("change", () => this.showBoth(both.checked));
  }

  partOf(vertex) {
    return this.data.hemispheres.findLast((part) => part.start <= vertex);
  }

  nearest([x, y, z]) {
    let best = 0, least = Infinity;
    for (const { points, start, mesh } of this.data.hemispheres) if (mesh.visible) for (let i = 0; i < points.length; i += 3) {
      const distance = (points[i] - x) ** 2 + (points[i + 1] - y) ** 2 + (points[i + 2] - z) ** 2;
      if (distance < least) [best, least] = [start + i / 3, distance];
    }
    return best;
  }

  moveTo(place) {
    this.turnTo(Math.max(0, this.data.of.indexOf(place[0])));
  }

  moveToVertex(vertex) {
    const part = this.partOf(vertex), i = 3 * (vertex - part.start);
    this.vertex = vertex;
    this.mm = [this.data.of[vertex], 0, 0];
    this.nv.scene.crosshairPos = this.nv.mm2frac(part.points.slice(i, i + 3), 0, true);
    this.nv.drawScene();
    this.tell();
  }

  // Turn the vertex to the reader; the other hemisphere is hidden where it is in front
  turnTo(vertex) {
    const part = this.partOf(vertex), [x, y, z] = outwards(part, vertex - part.start);
    this.showBoth((part.name === "left" ? x : -x) < 0.4, part);
    this.nv.setRenderAzimuthElevation(Math.atan2(-x, -y) * DEGREES, Math.max(-80, Math.min(80, Math.asin(z) * DEGREES)));
    this.moveToVertex(vertex);
  }

  showBoth(both, own = this.partOf(this.vertex)) {
    this.find("both").checked = both;
    for (const part of this.data.hemispheres) part.mesh.visible = both || part === own;
    this.nv.drawScene();
  }

  press(event) {
    const key = KEYS[event.key];
    if (!key) return;
    event.preventDefault();
    const [axis, sign] = key, { renderAzimuth, renderElevation } = this.nv.scene;
    this.nv.setRenderAzimuthElevation(renderAzimuth + (axis === 0 ? 10 * sign : 0), renderElevation + (axis > 0 ? 10 * sign : 0));
  }

  tellPlace() {
    const part = this.partOf(this.vertex), number = this.vertex - part.start;
    this.find("hemisphere").value = this.data.hemispheres.indexOf(part);
    this.find("vertex").value = number;
    return `vertex ${number} of the ${part.name} hemisphere`;
  }

  fill(colourAt, opacity) {
    const first = 1 + 3 * (this.data.shape[0] + 1); // where the first code is; see decoded
    for (const { grey, mesh, start } of this.data.hemispheres) {
      grey.forEach((level, i) => {
        const feature = this.data.of[start + i], rgba = feature < 0 ? 0 : colourAt(feature, first + feature), share = ((rgba >>> 24) / 255) * opacity;
        for (let c = 0; c < 3; c++) mesh.rgba255[4 * i + c] = level * (1 - share) + ((rgba >>> (8 * c)) & 255) * share;
      });
      mesh.updateMesh(this.nv.gl);
    }
  }
}

for (const root of document.querySelectorAll(".viewer")) new (root.querySelector(".viewer-hemisphere") ? SurfaceViewer : Viewer)(root);
})();
