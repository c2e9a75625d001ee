package iothub

// Module ids that belong to the runtime itself, and the names of those modules without the mark.
const (
	EdgeAgent = "$edgeAgent"
	EdgeHub   = "$edgeHub"

	EdgeAgentName = "edgeAgent"
	EdgeHubName   = "edgeHub"
)

// Transports. The ports are literals in the SDKs: no module can be told another one.
const (
	PortMQTT             = 8883
	PortHTTPS            = 443 // WebSocket and method calls
	WebSocketPath        = "/$iothub/websocket"
	WebSocketSubprotocol = "mqtt"
)

// API versions. The value a client sends is not compared with anything; its presence is required.
const (
	APIVersion         = "2021-04-12" // MQTT user name and service REST, when we are the client
	APIVersionWorkload = "2022-08-03" // IOTEDGE_APIVERSION; see WorkloadVersions for what is served
)

// WorkloadVersions returns every api-version that the workload API accepts, oldest first: Node, C and C# send the
// first, Python sends what IOTEDGE_APIVERSION says.
func WorkloadVersions() []string {
	return []string{"2018-06-28", "2019-01-30", "2019-10-22", "2019-11-05", "2020-07-07", "2021-12-07", APIVersionWorkload}
}

// Variables that the SDKs read to find their gateway, and what has a fixed value. All of the first eight are set
// on every module, because each SDK requires another subset.
const (
	EnvWorkloadURI  = "IOTEDGE_WORKLOADURI"
	EnvAuthScheme   = "IOTEDGE_AUTHSCHEME"
	EnvGenerationID = "IOTEDGE_MODULEGENERATIONID"
	EnvHubHost      = "IOTEDGE_IOTHUBHOSTNAME"
	EnvGatewayHost  = "IOTEDGE_GATEWAYHOSTNAME"
	EnvDeviceID     = "IOTEDGE_DEVICEID"
	EnvModuleID     = "IOTEDGE_MODULEID"
	EnvAPIVersion   = "IOTEDGE_APIVERSION"
	EnvNodeCA       = "NODE_EXTRA_CA_CERTS" // Node forgets the trust bundle when a module calls setOptions
	EnvLogLevel     = "RuntimeLogLevel"

	// EnvConnectionString and EnvHubConnectionString override all of the above in Node, C and C#: never set them.
	EnvConnectionString    = "EdgeHubConnectionString"
	EnvHubConnectionString = "IotHubConnectionString"

	AuthScheme = "sasToken" // the C SDK compares case
)

// HeaderEdgeModule names the calling module, "device/module", in a method call over HTTPS.
const HeaderEdgeModule = "x-ms-edge-moduleId"

// Keys of system properties in a bag, decoded. Everything else in a bag is an application property.
const (
	PropMessageID       = "$.mid"
	PropCorrelationID   = "$.cid"
	PropUserID          = "$.uid"
	PropTo              = "$.to"
	PropExpiry          = "$.exp" // ISO 8601
	PropContentType     = "$.ct"
	PropContentEncoding = "$.ce"
	PropOutput          = "$.on"
	PropInterface       = "$.ifid"
	PropComponent       = "$.sub"
	PropCreated         = "$.ctime"
	PropSchema          = "$.schema"
	PropDiagnosticID    = "$.diagid"
	PropDiagnostics     = "$.diagctx"
	PropSourceDevice    = "$.cdid" // set by the server on inputs, never believed from a client
	PropSourceModule    = "$.cmid" // likewise
	PropOperation       = "iothub-operation"
	PropAck             = "ack"
	PropDeviceboundAck  = "iothub-ack"         // cloud-to-device: none, positive, negative, full
	PropMessageType     = "iothub-MessageType" // "Will" on a will message
	PropRetain          = "mqtt-retain"        // the hub's mark on a message that was published with RETAIN
)
