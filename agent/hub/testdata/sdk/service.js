// Drives a hub with the unmodified packages azure-iothub (registry, twins, methods, configurations) and azure-iot-device (a device).
// Every line it prints is one claim that held; it exits with 1 at the first that did not.
'use strict';
const assert = require('assert');
const { Registry, Client } = require('azure-iothub');
const connection = process.env.HUB_CONNECTION;
const host = process.env.HUB_HOST;

const claim = async (name, act) => {
  try {
    const result = await act();
    console.log('ok ' + name);
    return result;
  } catch (err) {
    console.error('not ok ' + name + ': ' + (err.stack || err));
    process.exit(1);
  }
};
const fails = async (act, name) => {
  try {
    await act();
  } catch (err) {
    assert.strictEqual(err.name, name, String(err));
    return;
  }
  assert.fail('expected ' + name);
};

(async () => {
  const registry = Registry.fromConnectionString(connection);
  const client = Client.fromConnectionString(connection);

  const device = await claim('registry creates a device', async () => {
    const { responseBody } = await registry.create({ deviceId: 'node1', capabilities: { iotEdge: true } });
    assert.ok(responseBody.authentication.symmetricKey.primaryKey);
    return responseBody;
  });
  await claim('registry refuses a second one', () => fails(() => registry.create({ deviceId: 'node1' }), 'DeviceAlreadyExistsError'));
  await claim('registry gets a device', async () => assert.strictEqual((await registry.get('node1')).responseBody.deviceId, 'node1'));
  await claim('registry knows no other', () => fails(() => registry.get('nobody'), 'DeviceNotFoundError'));
  await claim('registry updates a device', async () => {
    const { responseBody } = await registry.update({ deviceId: 'node1', statusReason: 'tested' });
    assert.strictEqual(responseBody.statusReason, 'tested');
    assert.strictEqual(responseBody.authentication.symmetricKey.primaryKey, device.authentication.symmetricKey.primaryKey);
  });
  await claim('registry lists devices', async () => assert.ok((await registry.list()).responseBody.some((d) => d.deviceId === 'node1')));

  await claim('registry adds a module', async () => {
    const { responseBody } = await registry.addModule({ deviceId: 'node1', moduleId: 'filter' });
    assert.strictEqual(responseBody.moduleId, 'filter');
  });
  await claim('registry gets a module', async () => assert.ok((await registry.getModule('node1', 'filter')).responseBody.generationId));
  await claim('registry updates a module', async () => {
    const { responseBody } = await registry.getModule('node1', 'filter');
    responseBody.managedBy = 'me';
    assert.strictEqual((await registry.updateModule(responseBody)).responseBody.managedBy, 'me');
    await fails(() => registry.updateModule(responseBody), 'InvalidEtagError');
  });
  await claim('registry lists modules', async () => {
    const { responseBody } = await registry.getModulesOnDevice('node1');
    assert.deepStrictEqual(responseBody.map((m) => m.moduleId).sort(), ['$edgeAgent', '$edgeHub', 'filter']);
  });

  await claim('twin is read and patched with its etag', async () => {
    const twin = (await registry.getTwin('node1')).responseBody;
    const stale = twin.etag;
    const next = (await registry.updateTwin('node1', { tags: { building: '43' }, properties: { desired: { speed: 5 } } }, stale)).responseBody;
    assert.strictEqual(next.properties.desired.speed, 5);
    assert.strictEqual(next.properties.desired.$version, 2);
    assert.strictEqual(next.tags.building, '43');
    await fails(() => registry.updateTwin('node1', { tags: { building: '44' } }, stale), 'InvalidEtagError');
    await next.update({ tags: { building: null } });
  });
  await claim('module twin is read and patched', async () => {
    const twin = (await registry.getModuleTwin('node1', 'filter')).responseBody;
    await registry.updateModuleTwin('node1', 'filter', { properties: { desired: { threshold: 70 } } }, twin.etag);
    assert.strictEqual((await registry.getModuleTwin('node1', 'filter')).responseBody.properties.desired.threshold, 70);
  });
  await claim('configuration content is applied', async () => {
    await registry.applyConfigurationContentOnDevice('node1', {
      modulesContent: {
        $edgeAgent: { 'properties.desired': { schemaVersion: '1.1', runtime: { type: 'docker', settings: {} }, systemModules: {}, modules: { gauge: { type: 'docker', status: 'running', restartPolicy: 'always', settings: { image: 'x/y:1' } } } } },
        $edgeHub: { 'properties.desired': { schemaVersion: '1.1', routes: {}, storeAndForwardConfiguration: { timeToLiveSecs: 7200 } } },
        gauge: { 'properties.desired': { unit: 'bar' } },
      },
    });
    assert.strictEqual((await registry.getModuleTwin('node1', 'gauge')).responseBody.properties.desired.unit, 'bar');
  });
  await claim('queries answer', async () => {
    const query = registry.createQuery('SELECT * FROM devices', 100);
    assert.ok((await query.nextAsTwin()).result.some((t) => t.deviceId === 'node1'));
  });
  await claim('statistics count', async () => assert.strictEqual((await registry.getRegistryStatistics()).responseBody.totalDeviceCount, 1));

  await claim('a method of a device that is away fails', () => fails(
    () => client.invokeDeviceMethod('node1', { methodName: 'blink', payload: null, responseTimeoutInSeconds: 5, connectTimeoutInSeconds: 0 }), 'Error'));

  const { Client: Device, Message } = require('azure-iot-device');
  const { Mqtt, MqttWs } = require('azure-iot-device-mqtt');
  const key = device.authentication.symmetricKey.primaryKey;
  for (const Transport of [Mqtt, MqttWs]) {
    const name = Transport === Mqtt ? 'mqtt' : 'websocket';
    const dev = Device.fromConnectionString(`HostName=${host};DeviceId=node1;SharedAccessKey=${key}`, Transport);
    await claim(name + ': device opens', () => dev.open());
    await claim(name + ': device sends telemetry', async () => {
      const m = new Message(JSON.stringify({ via: name }));
      m.messageId = 'm-' + name;
      m.contentType = 'application/json';
      m.contentEncoding = 'utf-8';
      m.properties.add('a b', 'c/d');
      await dev.sendEvent(m);
    });
    await claim(name + ': service calls a method of the device', async () => {
      dev.onDeviceMethod('blink', (request, response) => response.send(201, { got: request.payload }));
      const { result } = await client.invokeDeviceMethod('node1', { methodName: 'blink', payload: { n: 3 }, responseTimeoutInSeconds: 20, connectTimeoutInSeconds: 20 });
      assert.deepStrictEqual(result, { status: 201, payload: { got: { n: 3 } } });
    });
    await claim(name + ': device reports and is told what is desired', async () => {
      const twin = await dev.getTwin();
      const told = new Promise((resolve) => twin.on('properties.desired', (delta) => { if (delta.colour === name) resolve(); }));
      await new Promise((resolve, reject) => twin.properties.reported.update({ via: name }, (err) => (err ? reject(err) : resolve())));
      await registry.updateTwin('node1', { properties: { desired: { colour: name } } }, '*');
      await told;
      assert.strictEqual((await registry.getTwin('node1')).responseBody.properties.reported.via, name);
    });
    await claim(name + ': a bad reported patch is an error at the device', async () => {
      const twin = await dev.getTwin();
      const err = await new Promise((resolve) => twin.properties.reported.update({ list: [null] }, resolve));
      assert.ok(err, 'no error');
    });
    await claim(name + ': device closes', () => dev.close());
  }

  await claim('registry removes a module and a device', async () => {
    await registry.removeModule('node1', 'filter');
    await registry.delete('node1');
    await fails(() => registry.get('node1'), 'DeviceNotFoundError');
  });
  process.exit(0);
})();
