// graphile-worker as its own performance test runs it: a local queue of 500 and batched completion.
//   node graphile.cjs URL burn JOBS        node graphile.cjs URL rate PER_SECOND SECONDS
const { run, makeWorkerUtils, Logger } = require("graphile-worker");
const { Pool } = require("pg");

const [url, mode, first, second] = process.argv.slice(2);
const quiet = new Logger(() => () => {});

async function main() {
  const pool = new Pool({ connectionString: url, max: 20 });
  const utils = await makeWorkerUtils({ pgPool: pool, logger: quiet });
  await utils.migrate();
  const started = [];
  const clock = () => Number(process.hrtime.bigint()) / 1e6;
  let ran = 0;
  let finish;
  const finished = new Promise((resolve) => (finish = resolve));
  let total = Number(first);
  if (mode === "rate") total *= Number(second);
  const taskList = {
    nothing: (payload) => {
      if (payload.sent) started.push(clock() - payload.sent);
      if (++ran === total) finish();
    },
  };
  const options = {
    pgPool: pool,
    taskList,
    logger: quiet,
    noHandleSignals: true,
    concurrency: 24,
    preset: {
      worker: { concurrentJobs: 24, localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0, maxPoolSize: 20 },
    },
  };
  if (mode === "burn") {
    for (let from = 0; from < total; from += 10000) {
      const count = Math.min(10000, total - from);
      await pool.query(
        `select graphile_worker.add_jobs(array(select json_populate_record(null::graphile_worker.job_spec,
           json_build_object('identifier', 'nothing', 'payload', json_build_object('id', n))) from generate_series($1::int, $2::int) n))`,
        [from, from + count - 1],
      );
    }
    const began = clock();
    const runner = await run(options);
    await finished;
    // Completion is batched: the burn-down ends when no job is left in the table.
    for (;;) {
      const { rows } = await pool.query("select exists (select 1 from graphile_worker._private_jobs) as left");
      if (!rows[0].left) break;
    }
    const seconds = (clock() - began) / 1000;
    await runner.stop();
    console.log(JSON.stringify({ jobs: total, seconds, jobs_per_s: total / seconds }));
  } else {
    const runner = await run(options);
    const began = clock();
    // Senders do not wait for each other: a commit may take longer than the time to the next one.
    const adding = [];
    for (let n = 0; n < total; n++) {
      const due = began + (n * 1000) / Number(first);
      while (clock() < due) await new Promise((resolve) => setTimeout(resolve, Math.max(0, due - clock())));
      adding.push(utils.addJob("nothing", { sent: clock() }));
    }
    await Promise.all(adding);
    await finished;
    await runner.stop();
    started.sort((a, b) => a - b);
    console.log(JSON.stringify({ rate: Number(first), p50_ms: started[started.length >> 1], p99_ms: started[Math.floor(started.length * 0.99)] }));
  }
  await utils.release();
  await pool.end();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
