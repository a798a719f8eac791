import { readFile, writeFile } from "node:fs/promises";
import { promisify } from "node:util";
import { brotliCompress, constants, gzip } from "node:zlib";
import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig, type Plugin } from "vite";

const SERVICE = process.env["SERVICE"] ?? "http://127.0.0.1:8000";
const WORTH_IT = 1024;

/** Writes `.br` and `.gz` beside each text, so that the service need not compress. */
function compressed(): Plugin {
  return {
    name: "compressed",
    apply: "build",
    // From what was written: before, other plugins still change it.
    async writeBundle({ dir }, bundle) {
      const texts = Object.keys(bundle).filter((name) => /\.(css|html|js|svg)$/.test(name));
      for (const name of texts) await compress(`${dir}/${name}`);
    },
  };
}

async function compress(path: string): Promise<void> {
  const source = await readFile(path);
  if (source.length < WORTH_IT) return;
  const best = { params: { [constants.BROTLI_PARAM_QUALITY]: 11 } };
  await writeFile(`${path}.br`, await promisify(brotliCompress)(source, best));
  await writeFile(`${path}.gz`, await promisify(gzip)(source, { level: 9 }));
}

export default defineConfig({
  plugins: [svelte(), compressed()],
  resolve: { alias: { $: `${import.meta.dirname}/src` } },
  build: {
    target: ["chrome126", "firefox128", "safari18"],
    // The policy of the page forbids inline code and data: addresses.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    rolldownOptions: { checks: { pluginTimings: false } },
  },
  server: {
    // `npm run dev`: the page from Vite, everything else from a service that runs beside it.
    proxy: { "^/(?!$|@|src/|node_modules/|assets/|\\?)": SERVICE },
  },
});
