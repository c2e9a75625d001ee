// A module as a user writes it, on the unmodified SDK. It prints what it sees, a JSON document a line, and leaves at the end of its input.
'use strict';
const { ModuleClient, Message } = require('azure-iot-device');
const { Mqtt } = require('azure-iot-device-mqtt');

const say = (what, value) => process.stdout.write(JSON.stringify({ what, value }) + '\n');

async function main() {
  const client = await ModuleClient.fromEnvironment(Mqtt);
  client.on('error', (err) => say('error', err.message));
  await client.open();
  client.on('inputMessage', (input, msg) => {
    say('input', input + ':' + msg.getData().toString());
    client.complete(msg, () => {});
  });
  client.onMethod('double', (req, res) => res.send(200, { n: req.payload.n * 2 }, () => {}));
  client.onMethod('nothing', (req, res) => res.send(204, null, () => {}));
  const twin = await client.getTwin();
  say('twin', twin.properties.desired.color);
  twin.on('properties.desired', (patch) => say('desired', patch));
  await new Promise((done, fail) => twin.properties.reported.update({ seen: 1 }, (err) => (err ? fail(err) : done())));
  await new Promise((done) => twin.properties.reported.update({ big: 'x'.repeat(9000) }, (err) => {
    say('refused', !!err);
    done();
  }));
  await client.sendOutputEvent('out1', new Message('to myself'));
  await client.sendEvent(new Message('to the hub'));
  const called = await client.invokeMethod('edge1', 'mod2', { methodName: 'greet', payload: 'hello', responseTimeoutInSeconds: 10 });
  say('called', called.payload);
  say('ready', null);
  await new Promise((done) => process.stdin.on('end', done).resume());
  await client.close();
  say('closed', null);
}

main().catch((err) => {
  say('failed', String(err.stack));
  process.exit(1);
});
