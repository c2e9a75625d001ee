"""A module on Microsoft's unmodified Python SDK; it does what the JavaScript one does."""
import asyncio
import json
import os
import signal
import sys
import time

from azure.iot.device import Message, MethodResponse
from azure.iot.device.aio import IoTHubModuleClient

NAME = os.environ["IOTEDGE_MODULEID"]
state = {"period": 0.05, "phase": "one", "stop": False}


def obey(desired):
    state["period"] = desired.get("periodMs", state["period"] * 1000) / 1000
    state["phase"] = desired.get("phase", state["phase"])
    state["stop"] = state["stop"] or bool(desired.get("stop"))


async def again(what, act):
    """Repeats act until it succeeds: a lost connection is the SDK's to mend, a lost message ours to send again."""
    while True:
        try:
            return await asyncio.wait_for(act(), 45)
        except Exception as err:  # the SDK raises many kinds, all of them passing
            print(f"{NAME} {what}: {err!r}; once more", flush=True)
            await asyncio.sleep(0.3)


async def main():
    # It is the first process of its sandbox, and the kernel hands such a one no signal that it has not asked for.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, os._exit, 0)
    client = IoTHubModuleClient.create_from_edge_environment()
    await client.connect()

    async def on_method(request):
        await client.send_method_response(MethodResponse.create_from_method_request(request, 200, {"pong": request.payload}))

    client.on_method_request_received = on_method
    client.on_twin_desired_properties_patch_received = obey
    obey((await again("twin", client.get_twin))["desired"])
    print(f"{NAME} is up", flush=True)
    started, sent = time.monotonic(), 0
    while not state["stop"]:
        message = Message(json.dumps({"module": NAME, "n": sent + 1, "phase": state["phase"]}))
        message.message_id = f"{NAME}-{sent + 1}"
        message.content_type = "application/json"
        message.content_encoding = "utf-8"
        message.custom_properties["phase"] = state["phase"]
        await again(f"message {sent + 1}", lambda: client.send_message_to_output(message, "telemetry"))
        sent += 1
        await asyncio.sleep(state["period"])
    report = {"sent": sent, "phase": state["phase"], "seconds": round(time.monotonic() - started)}
    await again("report", lambda: client.patch_twin_reported_properties(report))
    print(f"{NAME} stopped after {sent} messages", flush=True)
    await asyncio.Event().wait()


sys.exit(asyncio.run(main()))
