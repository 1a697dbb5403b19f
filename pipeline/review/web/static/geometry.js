// Places of slices in the patient (PS3.3 C.7.6.2.1.1): which slice of one stack lies where a slice of another does.

const PARALLEL = 0.95; // least cosine between the normals of two stacks whose slices can be matched (18 degrees)

const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const add = (a, b, factor) => a.map((value, i) => value + factor * b[i]);
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];

// The plane of a slice: its corner, its centre, its normal, and the steps of a row and a column; null without geometry.
export function planeOf(stack, index) {
  const { directions, position } = stack.slices[index];
  if (!directions || !position) return null;
  const [along, down] = [directions.slice(0, 3), directions.slice(3)];
  const [rowMm, columnMm] = stack.spacing || [0, 0];
  const centre = add(add(position, along, (columnMm * (stack.columns - 1)) / 2), down, (rowMm * (stack.rows - 1)) / 2);
  return { corner: position, centre, normal: cross(along, down), along, down, rowMm, columnMm };
}

// Whether places of two slices of a study have one origin (PS3.3 C.7.4.1). A file that names no frame of reference is
// taken to have that of the other.
function comparable(one, other) {
  return one.frame === null || other.frame === null || one.frame === other.frame;
}

// Whether the place of a slice tells anything about places in another stack of the study.
export function sharesOrigin(from, index, to) {
  return to.slices.some((slice) => comparable(from.slices[index], slice));
}

// Return { index, how } of the slice of `to` that belongs to slice `index` of `from`.
// `anchor` holds a slice of each that belong together; positions of two studies, or of two frames of reference, have no
// common origin, so that between them only the distance from there counts.
export function matching(from, index, to, anchor, sameStudy) {
  const here = planeOf(from, index);
  const there = planeOf(to, Math.min(anchor.to, to.slices.length - 1));
  if (!here || !there) {
    return { index: within(to, anchor.to + index - anchor.from), how: "linked by image number: no positions" };
  }
  const turn = dot(here.normal, there.normal);
  if (Math.abs(turn) < PARALLEL) return { index: within(to, anchor.to), how: "not scrolled: another orientation" };
  if (sameStudy && sharesOrigin(from, index, to)) {
    const own = (slice) => comparable(from.slices[index], slice);
    return nearest(to, dot(here.centre, there.normal), there.normal, "linked by position", own);
  }
  const begun = planeOf(from, anchor.from) || here;
  const moved = dot(here.centre, here.normal) - dot(begun.centre, here.normal);
  const height = dot(there.centre, there.normal) + Math.sign(turn) * moved;
  return nearest(to, height, there.normal, sameStudy ? "linked by distance: another frame of reference" : "linked by distance");
}

// Return the slice to begin with: at the same share of its stack, in the same direction; across it the middle.
export function begin(from, index, to) {
  const last = from.slices.length - 1;
  const share = last ? index / last : 0.5;
  const [here, there] = [planeOf(from, index), planeOf(to, 0)];
  const turn = here && there ? dot(here.normal, there.normal) : 1;
  if (Math.abs(turn) < PARALLEL) return within(to, Math.floor(to.slices.length / 2));
  return within(to, Math.round((turn < 0 ? 1 - share : share) * (to.slices.length - 1)));
}

export function isParallel(from, index, to) {
  const [here, there] = [planeOf(from, index), planeOf(to, 0)];
  return !here || !there || Math.abs(dot(here.normal, there.normal)) >= PARALLEL;
}

function within(stack, index) {
  return Math.min(Math.max(index, 0), stack.slices.length - 1);
}

function nearest(stack, height, normal, how, among = () => true) {
  let best = 0;
  let away = Infinity;
  stack.slices.forEach((slice, index) => {
    const plane = among(slice) ? planeOf(stack, index) : null;
    const distance = plane ? Math.abs(dot(plane.centre, normal) - height) : Infinity;
    if (distance < away) [best, away] = [index, distance];
  });
  const far = away > Math.max(stack.sliceMm || 0, 5); // the stack ends before, or has a gap there
  return { index: best, how: far ? `${how}: the nearest image is ${Math.round(away)} mm away` : how };
}

// Return the line in which the plane of a slice cuts another slice, as two points (column, row) of the latter; null
// where they are parallel, do not meet within the image, or have no common origin.
export function cutLine(from, index, to, at) {
  if (!comparable(from.slices[index], to.slices[at])) return null;
  const [one, other] = [planeOf(from, index), planeOf(to, at)];
  if (!one || !other || !other.rowMm || Math.abs(dot(one.normal, other.normal)) > PARALLEL) return null;
  const [x, y] = [other.columnMm * dot(one.normal, other.along), other.rowMm * dot(one.normal, other.down)];
  const rest = dot(one.normal, add(other.corner, one.centre, -1));
  const [width, height] = [to.columns - 1, to.rows - 1];
  const points = [];
  for (const edge of [0, width]) if (Math.abs(y) > 1e-9) points.push([edge, -(rest + x * edge) / y]);
  for (const edge of [0, height]) if (Math.abs(x) > 1e-9) points.push([-(rest + y * edge) / x, edge]);
  const inside = points.filter(([c, r]) => c >= -0.5 && c <= width + 0.5 && r >= -0.5 && r <= height + 0.5);
  return inside.length < 2 ? null : [inside[0], inside[inside.length - 1]].map(([c, r]) => ({ x: c + 0.5, y: r + 0.5 }));
}
