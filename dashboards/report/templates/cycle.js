// Under the pointer, a chart names the nearest point; without it, the last one.
for (const chart of document.querySelectorAll(".chart")) {
  const plot = chart.querySelector(".plot");
  const output = chart.querySelector("output");
  const cursor = chart.querySelector(".cursor");
  const points = JSON.parse(plot.dataset.points);
  const last = output.textContent;
  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect();
    const at = (100 * (event.clientX - box.left)) / box.width;
    const near = (best, point) => (Math.abs(point[0] - at) < Math.abs(best[0] - at) ? point : best);
    const [left, bottom, label] = points.reduce(near);
    cursor.style.left = `${left}%`;
    cursor.style.bottom = `${bottom}%`;
    cursor.hidden = false;
    output.textContent = label;
  });
  plot.addEventListener("pointerleave", () => {
    cursor.hidden = true;
    output.textContent = last;
  });
}
