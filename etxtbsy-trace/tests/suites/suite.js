// A test suite: each worker thread writes tools, and runs each a moment later. With `fixed`, a lock keeps other threads
// from forking while a tool is open for writing.
'use strict';
const { spawn } = require('node:child_process');
const { once } = require('node:events');
const fs = require('node:fs');
const { join } = require('node:path');
const { setTimeout } = require('node:timers/promises');
const { Worker, isMainThread, parentPort, workerData } = require('node:worker_threads');

const WORKERS = 6;
const TESTS = 40;
// The shell reads no further than `exit`.
const TOOL = `#!/bin/sh\nsleep 0.003\nexit\n${'#'.repeat(500_000)}`;

// Calls `work`, which does not wait for anything, under the lock of all threads.
function locked(lock, work) {
  if (!lock) return work();
  while (Atomics.compareExchange(lock, 0, 0, 1) !== 0) Atomics.wait(lock, 0, 1);
  try {
    return work();
  } finally {
    Atomics.store(lock, 0, 0);
    Atomics.notify(lock, 0, 1);
  }
}

async function test(path, lock) {
  locked(lock, () => fs.writeFileSync(path, TOOL, { mode: 0o755 }));
  await setTimeout(1 + 3 * Math.random());
  try {
    // Returns after the child's exec.
    const child = locked(lock, () => spawn(path, { stdio: 'ignore' }));
    await once(child, 'close');
  } catch (error) {
    console.log(`${path}: ${error.message}`);
    return 1;
  }
  return 0;
}

async function work({ directory, worker, lock }) {
  let failures = 0;
  for (let number = 0; number < TESTS; number++) {
    failures += await test(join(directory, `tool-${worker}-${number}`), lock);
  }
  parentPort.postMessage(failures);
}

async function main([directory, fixed]) {
  const lock = fixed === 'fixed' ? new Int32Array(new SharedArrayBuffer(4)) : null;
  const own = fs.mkdtempSync(join(directory, 'suite-'));
  const workers = Array.from({ length: WORKERS }, (_, worker) =>
    once(new Worker(__filename, { workerData: { directory: own, worker, lock } }), 'message'));
  const failures = (await Promise.all(workers)).flat();
  fs.rmSync(own, { recursive: true });
  process.exitCode = failures.some((some) => some > 0) ? 1 : 0;
}

if (isMainThread) main(process.argv.slice(2));
else work(workerData);
