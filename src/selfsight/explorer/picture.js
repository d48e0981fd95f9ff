// Maps as pictures: one number from 0 to 255 for each place becomes one pixel, which the style sheet enlarges.

// Viridis (van der Walt and Smith 2015) at nine places, so that equal steps look equal, in grey as well.
const VIRIDIS = ["440154", "472d7b", "3b528b", "2c728e", "21918c", "28ae80", "5ec962", "addc30", "fde725"].map((hex) =>
  [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));

function colour(level) {
  const place = (level / 255) * (VIRIDIS.length - 1);
  const below = Math.min(Math.floor(place), VIRIDIS.length - 2);
  return VIRIDIS[below].map((value, channel) => value + (VIRIDIS[below + 1][channel] - value) * (place - below));
}

function paint(canvas, [height, width], pixel) {
  canvas.width = width;
  canvas.height = height;
  const image = new ImageData(width, height);
  for (let at = 0; at < width * height; at++) image.data.set(pixel(at), 4 * at);
  canvas.getContext("2d").putImageData(image, 0, 0);
}

export function drawMap(canvas, grid, values) {
  paint(canvas, grid, (at) => [...colour(values[at]), 255]);
}

export function drawMasks(canvas, grid, masks) {
  paint(canvas, grid, (at) => {
    const first = masks.findIndex((mask) => mask[at]);
    return first < 0 ? [10, 14, 20, 190] : first === 0 ? [255, 95, 87, 120] : [255, 255, 255, 90];
  });
}

export function drawScale(canvas) {
  drawMap(canvas, [1, 256], Array.from({ length: 256 }, (_, level) => level));
}

// A box in shares of what it stands in: left, top, width, height.
export function put(element, [left, top, width, height]) {
  for (const [side, share] of Object.entries({ left, top, width, height })) element.style[side] = `${100 * share}%`;
}
