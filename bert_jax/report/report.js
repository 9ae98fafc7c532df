// Shows the values at the pointer in a single tooltip that all charts share.
const readout = document.getElementById("readout");

function nearest(points, x) {
  return points.reduce((best, point) => (Math.abs(point[0] - x) < Math.abs(best[0] - x) ? point : best));
}

function show(chart, event) {
  const svg = chart.querySelector("svg"), cursor = chart.querySelector(".cursor"), box = svg.getBoundingClientRect();
  const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
  const series = JSON.parse(chart.dataset.series);
  const at = nearest(series.map(([, , points]) => nearest(points, x)), x);
  const format = (value) => (chart.dataset.percent === "true" ? (100 * value).toFixed(1) + "%" : String(Number(value.toPrecision(4))));
  cursor.setAttribute("x1", at[0]);
  cursor.setAttribute("x2", at[0]);
  cursor.style.visibility = "visible";
  readout.replaceChildren("step " + Math.round(at[2]));
  for (const [name, run, points] of series) {
    const point = nearest(points, at[0]), row = document.createElement("div"), dot = document.createElement("i");
    if (Math.abs(point[0] - at[0]) > 4) continue;
    dot.className = run;
    row.append(dot, name + "  " + format(point[3]));
    readout.append(row);
  }
  readout.hidden = false;
  const left = event.clientX + 16 + readout.offsetWidth > innerWidth ? event.clientX - 16 - readout.offsetWidth : event.clientX + 16;
  readout.style.left = left + "px";
  readout.style.top = event.clientY + 16 + "px";
}

for (const chart of document.querySelectorAll(".chart")) {
  const svg = chart.querySelector("svg");
  svg.addEventListener("pointermove", (event) => show(chart, event));
  svg.addEventListener("pointerleave", () => {
    readout.hidden = true;
    chart.querySelector(".cursor").style.visibility = "hidden";
  });
}
