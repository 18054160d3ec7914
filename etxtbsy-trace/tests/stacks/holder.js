// As holder.c, but the opener itself holds the file.
const { openSync, writeSync, closeSync } = require("node:fs");
const { spawnSync } = require("node:child_process");

function writeProgram(path) {
  const fd = openSync(path, "w", 0o755); // the open
  writeSync(fd, "#!/bin/true\n");
  return fd;
}

function execute(path) {
  return spawnSync(path).error; // the exec
}

const path = process.argv[2];
const fd = writeProgram(path);
const error = execute(path);
if (process.argv.length > 3) {
  setInterval(() => {}, 1 << 30);
} else {
  closeSync(fd);
  process.exit(error ? 1 : 0);
}
