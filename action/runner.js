'use strict';
// What both entry points need of GitHub's runner: workflow commands, and programs that run as root.

const { spawnSync } = require('node:child_process');
const fs = require('node:fs');

/** The words before a command that has to run as root. */
const asRoot = process.getuid() === 0 ? [] : ['sudo', '-n'];

/** Prints a workflow command, such as a notice. */
function print(command, message) {
  const escaped = message.replace(/%/g, '%25').replace(/\r/g, '%0D').replace(/\n/g, '%0A');
  console.log(`::${command} title=etxtbsy-trace::${escaped}`);
}

/** Prints a text as a group of the log, folded until it is clicked. */
function printGroup(title, text) {
  console.log(`::group::${title}\n${text}\n::endgroup::`);
}

/** Waits until something is so, but no longer than a time. */
async function until(isSo, limitMs) {
  for (const end = Date.now() + limitMs; !isSo() && Date.now() < end; ) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Runs a program to its end; returns its exit status (null without one) and its output. */
function run(words) {
  const ended = spawnSync(words[0], words.slice(1), { encoding: 'utf8', maxBuffer: 64 << 20 });
  return { status: ended.status, stdout: ended.stdout ?? '', stderr: ended.stderr || (ended.error?.message ?? '') };
}

/** The last line of a text that is not empty. */
function lastLine(text) {
  return text.trim().split('\n').pop();
}

/** When a process started, in clock ticks since boot (proc(5), field 22 of stat); null if it has ended. */
function startOf(pid) {
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The name, in parentheses, may contain anything.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' ? null : fields[19];
  } catch {
    return null;
  }
}

module.exports = { asRoot, lastLine, print, printGroup, run, startOf, until };
