// A module on Microsoft's unmodified device SDK. It sends a numbered message again and again until the edge has taken it,
// obeys two desired properties (periodMs, phase) and, when told to stop, reports how many messages were accepted.
'use strict';
const { ModuleClient, Message } = require('azure-iot-device');
const { Mqtt } = require('azure-iot-device-mqtt');

// It is the first process of its sandbox, and the kernel hands such a one no signal that it has not asked for.
process.on('SIGTERM', () => process.exit(0));

const name = process.env.IOTEDGE_MODULEID;
let period = 40, phase = 'one', stop = false;
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

async function main() {
  const client = await ModuleClient.fromEnvironment(Mqtt);
  await client.open();
  client.onMethod('ping', (request, response) => response.send(200, { pong: request.payload }, () => {}));
  const twin = await client.getTwin();
  twin.on('properties.desired', (desired) => {
    if (desired.periodMs) period = desired.periodMs;
    if (desired.phase) phase = desired.phase;
    if (desired.stop) stop = true;
  });
  console.log(`${name} is up`);
  const started = Date.now();
  let sent = 0;
  while (!stop) {
    const message = new Message(JSON.stringify({ module: name, n: sent + 1, phase, rssMiB: Math.round(process.memoryUsage.rss() / 1048576) }));
    message.messageId = `${name}-${sent + 1}`;
    message.contentType = 'application/json';
    message.contentEncoding = 'utf-8';
    message.properties.add('phase', phase);
    for (;;) {
      try {
        await client.sendOutputEvent('telemetry', message);
        break;
      } catch (err) {
        console.log(`${name} message ${sent + 1}: ${err.message}; sending it again`);
        await pause(200);
      }
    }
    sent++;
    await pause(period);
  }
  for (;;) {
    try {
      await new Promise((ok, no) => twin.properties.reported.update({ sent, phase, seconds: Math.round((Date.now() - started) / 1000) }, (err) => (err ? no(err) : ok())));
      break;
    } catch (err) {
      await pause(500);
    }
  }
  console.log(`${name} stopped after ${sent} messages`);
  setInterval(() => {}, 1 << 30);
}

main().catch((err) => { console.error(`${name}: ${err.stack}`); process.exit(1); });
