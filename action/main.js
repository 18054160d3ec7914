'use strict';
// Starts tracing of the whole machine. A job is never failed because it cannot be traced.

const { spawn } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const { asRoot, lastLine, print, printGroup, run, startOf, until } = require('./runner.js');

/** How long the tracer may take to begin. */
const BEGIN_MS = 30_000;

/** The path of a program; null if there is none. */
function find(program) {
  const directories = program.includes('/') ? [''] : (process.env.PATH ?? '').split(':');
  const paths = directories.map((directory) => path.resolve(directory, program));
  return paths.find((file) => fs.statSync(file, { throwIfNoEntry: false })?.isFile()) ?? null;
}

function setOutput(name, value) {
  fs.appendFileSync(process.env.GITHUB_OUTPUT, `${name}=${value}\n`);
}

function saveState(name, value) {
  fs.appendFileSync(process.env.GITHUB_STATE, `${name}=${value}\n`);
}

/** Starts the tracer; returns why it cannot trace, or null if it traces. */
async function start() {
  const asked = process.env.INPUT_BINARY || 'etxtbsy-trace';
  const binary = find(asked);
  if (binary === null) {
    return `there is no program ${asked}; install etxtbsy-trace before this step, or set the input "binary"`;
  }
  const check = run([...asRoot, binary, 'check']);
  if (check.status !== 0) {
    printGroup('etxtbsy-trace check', `${check.stdout}${check.stderr}`);
    const missing = check.stdout.split('\n').filter((line) => line.startsWith('missing'));
    return missing[0] ?? (lastLine(check.stderr || check.stdout) || `check ended with status ${check.status}`);
  }
  const directory = fs.mkdtempSync(path.join(process.env.RUNNER_TEMP, 'etxtbsy-trace-'));
  const [trace, log] = ['trace.jsonl', 'log.txt'].map((name) => path.join(directory, name));
  const output = fs.openSync(log, 'w');
  const words = [...asRoot, binary, '--summary-only', '-o', trace];
  const tracer = spawn(words[0], words.slice(1), { detached: true, stdio: ['ignore', output, output] });
  tracer.on('error', () => {});
  tracer.unref();
  // The first line is written when tracing has begun.
  const began = () => fs.existsSync(trace) && fs.readFileSync(trace, 'utf8').includes('\n');
  await until(() => began() || startOf(tracer.pid) === null, BEGIN_MS);
  if (!began()) {
    return lastLine(fs.readFileSync(log, 'utf8')) || `tracing did not begin within ${BEGIN_MS / 1000} s`;
  }
  for (const [name, value] of Object.entries({ binary, trace, log, pid: tracer.pid, start: startOf(tracer.pid) })) {
    saveState(name, value);
  }
  setOutput('trace', trace);
  console.log(`tracing, the recording is ${trace}`);
  return null;
}

start()
  .catch((error) => error.message)
  .then((reason) => {
    if (reason !== null) {
      print('notice', `this job is not traced: ${reason}`);
    }
    setOutput('tracing', reason === null);
  });
