
"use strict";
(async () => {
  const root = document.documentElement;
  const narrow = matchMedia("(max-width: 40rem)");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const config = {
    responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d"],
    // Otherwise plotly.js has a button that uploads the plot.
    showSendToCloud: false, plotlyServerURL: "",
  };
  const plots = [...document.querySelectorAll(".plot")].map((place) => {
    const figure = JSON.parse(place.querySelector("script").textContent);
    place.replaceChildren();
    return { place, ...figure };
  });

  function template() {
    const style = getComputedStyle(root);
    const colour = (name) => style.getPropertyValue(name).trim();
    const size = narrow.matches ? 11 : 13;
    const axis = {
      gridcolor: colour("--grid"), zerolinecolor: colour("--line"), linecolor: colour("--line"),
      automargin: true, title: { standoff: 8, font: { size } },
    };
    const clear = "rgba(0,0,0,0)";
    const layout = {
      font: { color: colour("--ink"), family: "system-ui, sans-serif", size },
      paper_bgcolor: clear, plot_bgcolor: clear,
      xaxis: axis, yaxis: axis,
      scene: { xaxis: axis, yaxis: axis, zaxis: axis },
      margin: { l: 10, r: 10, t: 30, b: 10 },
      legend: { orientation: "h", yanchor: "bottom", y: 1.02, x: 0 },
      hoverlabel: {
        align: "left", bgcolor: colour("--raised"), bordercolor: colour("--line"), font: { color: colour("--ink") },
      },
      modebar: { color: colour("--faint"), activecolor: colour("--ink"), bgcolor: clear, orientation: "v" },
      shapedefaults: { line: { color: colour("--faint") } },
    };
    return { layout };
  }

  function draw() {
    const page = template();
    for (const { place, data, layout } of plots) {
      Plotly.react(place, data, { ...layout, template: page }, { ...config, displayModeBar: narrow.matches ? false : "hover" });
    }
  }

  // The policy of the page takes this script for its hash, as it would in the page itself.
  async function unpack(script) {
    const packed = Uint8Array.from(atob(script.textContent), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const unpacked = document.createElement("script");
    unpacked.textContent = await new Response(stream).text();
    script.replaceWith(unpacked);
  }

  await unpack(document.getElementById("plotly"));
  draw();
  dark.addEventListener("change", draw);
  narrow.addEventListener("change", draw);
  addEventListener("beforeprint", () => { root.classList.add("printing"); draw(); });
  addEventListener("afterprint", () => { root.classList.remove("printing"); draw(); });
})();
