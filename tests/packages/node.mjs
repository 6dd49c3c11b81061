// What Node makes of the data with a package: `node node.mjs NAME` prints it as JSON.
import data from "./data.json" with { type: "json" };

const name = process.argv[2];
const { work } = await import(`./src/${name}.js`);
const made = [];
for (const given of data[name]) made.push(await work(given));
console.log(JSON.stringify(made));
