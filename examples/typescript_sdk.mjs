// Call the sandbox with the official MCP SDK (npm install @modelcontextprotocol/sdk): node examples/typescript_sdk.mjs [URL]
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const client = new Client({ name: "example", version: "1.0.0" });
await client.connect(new StreamableHTTPClientTransport(new URL(process.argv[2] ?? "http://127.0.0.1:8001/mcp")));
const result = await client.callTool({ name: "execute_python", arguments: { code: "print(sum(range(10)))" } });
process.stdout.write(result.structuredContent.stdout);
await client.close();
