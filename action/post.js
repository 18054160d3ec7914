'use strict';
// Ends tracing, and reports what was found: warnings, the job's summary, and the tracer's own text in the log.

const fs = require('node:fs');
const { asRoot, lastLine, print, printGroup, run, startOf, until } = require('./runner.js');

/** How long the tracer may take to end. */
const END_MS = 60_000;

const { STATE_binary: binary, STATE_trace: trace, STATE_log: log, STATE_pid: pid, STATE_start: start } = process.env;

/** Ends the tracer, if it runs still. The pid alone could be that of another process by now. */
async function end() {
  if (startOf(pid) === start) {
    run([...asRoot, 'kill', '-TERM', pid]);
  }
  await until(() => startOf(pid) !== start, END_MS);
}

/** A report of the recording; empty, with a warning, if there is none. */
function report(format) {
  const ended = run([binary, 'report', trace, '--format', format]);
  if (ended.status !== 0) {
    print('warning', `no report: ${lastLine(ended.stderr)}`);
  }
  return ended.stdout;
}

/** How many incidents the recording has which their processes did not repair themselves; null if it has no end. */
function unrepaired() {
  const last = JSON.parse(lastLine(fs.readFileSync(trace, 'utf8')));
  return last.type === 'summary' ? last.incidents - last.repaired : null;
}

async function main() {
  await end();
  printGroup('etxtbsy-trace', fs.readFileSync(log, 'utf8'));
  process.stdout.write(report('github'));
  fs.appendFileSync(process.env.GITHUB_STEP_SUMMARY, report('markdown'));
  if (process.env.INPUT_FAIL === 'true' && unrepaired() !== 0) {
    print('error', 'calls failed with ETXTBSY, and the input "fail" is true');
    process.exitCode = 1;
  }
}

if (pid) {
  main().catch((error) => print('warning', `no report: ${error.message}`));
}
